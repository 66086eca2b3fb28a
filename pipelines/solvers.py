"""Solvers: from the velocity at a point to the next point of the time grid.

The ODE solvers follow dx/dt = v(x, t). The ancestral solver also adds noise at each step, and needs the path.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.paths import Path

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v(x, t) with x [B, …] and t a scalar tensor -> dx/dt [B, …]."""
Step = Callable[[Velocity, Tensor, Tensor, Tensor], Tensor]
"""(v, x, t, h) -> x at t + h, from x at t."""
Noise = Callable[[Tensor], Tensor]
"""Independent standard normal values in the shape of x, new ones at each call."""


def euler(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """x + h·v(x, t); order 1."""
    return x + h * v(x, t)


def midpoint(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """x + h·v(x + h/2·v(x, t), t + h/2); order 2."""
    return x + h * v(x + h / 2 * v(x, t), t + h / 2)


def heun(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """x + h/2·(k1 + k2), k2 at the end of an Euler step: the explicit trapezoid; order 2."""
    k1 = v(x, t)
    k2 = v(x + h * k1, t + h)
    return x + h / 2 * (k1 + k2)


def rk4(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """x + h/6·(k1 + 2·k2 + 2·k3 + k4): the classical Runge–Kutta step; order 4."""
    k1 = v(x, t)
    k2 = v(x + h / 2 * k1, t + h / 2)
    k3 = v(x + h / 2 * k2, t + h / 2)
    k4 = v(x + h * k3, t + h)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def ancestral(path: Path, noise: Noise) -> Step:
    """DDPM's ancestral sampling (Ho et al. 2020, algorithm 2), on any path that starts from Gaussian noise.

    Let r = β_t/β_u for a step from t to u, so that x_t = r·x_u + √q·ε with q = α_t² − r²·α_u². Then the mean of x_u
    given x_t and x1 is (q·β_u·x1 + r·α_u²·x_t)/α_t². Added is √q·ε, the larger of the paper's two choices; on its
    path r² is 1 − β_s and q is β_s of the list. The last step, to u = 1, adds nothing.
    """

    def step(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        _, x1 = path.ends(x, v(x, t), t)
        alpha_t, alpha_u = path.alpha(t), path.alpha(t + h)
        beta_t, beta_u = path.beta(t), path.beta(t + h)
        r = beta_t / beta_u
        q = alpha_t**2 - r**2 * alpha_u**2
        mean = (q * beta_u * x1 + r * alpha_u**2 * x) / alpha_t**2
        return mean if t + h == 1 else mean + q.sqrt() * noise(x)

    return step


class Solver(NamedTuple):
    """How to take a step on a path, and its forward evaluations."""

    step: Callable[[Path, Noise], Step]
    evaluations: int


def ode(step: Step) -> Callable[[Path, Noise], Step]:
    """A step that needs neither the path nor noise."""
    return lambda path, noise: step


ODES: dict[str, Solver] = {
    "euler": Solver(ode(euler), evaluations=1),
    "midpoint": Solver(ode(midpoint), evaluations=2),
    "heun": Solver(ode(heun), evaluations=2),
    "rk4": Solver(ode(rk4), evaluations=4),
}
SOLVERS = ODES | {"ancestral": Solver(ancestral, evaluations=1)}


def trajectory(step: Step, v: Velocity, x: Tensor, grid: Tensor) -> Iterator[Tensor]:
    """x at every point of the grid [N+1], the first included: from source to target if it rises, back if it falls."""
    yield x
    for t, t_next in pairwise(grid):
        x = step(v, x, t, t_next - t)
        yield x


def time_grid(steps: int, *, power: float = 1.0, device: torch.device | None = None, reverse: bool = False) -> Tensor:
    """t_k = (k/steps)^power, k = 0 … steps: from 0 to 1, or, reversed, the same points from 1 to 0."""
    ends = (1.0, 0.0) if reverse else (0.0, 1.0)
    return torch.linspace(*ends, steps + 1, device=device) ** power
