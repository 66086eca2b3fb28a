"""Solvers: from the velocity at a point to the next point of the time grid.

The ODE solvers follow dx/dt = v(x, t). The ancestral solver also adds noise at each step, and needs the path.
A function that takes a velocity or a step and returns another one to use in its place is called an edit.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from flowferry.pipelines.flow.paths import Path
from flowferry.pipelines.flow.variances import Variance, large

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v(x, t) with x [B, …] and t a scalar tensor -> dx/dt [B, …].

Of a network of two times, t may also be [2], the start and the end of a step -> the mean velocity between them.
"""
Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""step(x, t, h) with x [B, …] at time t, both t and h scalar tensors -> x at t + h."""
Noise = Callable[[Tensor], Tensor]
"""noise(x) -> independent standard normal values in the shape of x, new ones at each call."""


def ends_at_target(t: Tensor, h: Tensor) -> bool:
    """Return whether a step from t by h ends at t = 1, where networks are hardly trained or not at all.

    A solver that would evaluate the velocity there takes an Euler step instead (Karras et al. 2022, algorithm 1).
    """
    return bool(t + h == 1)


def euler(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """Return x + h·v(x, t); order 1."""
    return x + h * v(x, t)


def midpoint(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """Return x + h·v(x + h/2·v(x, t), t + h/2); order 2."""
    return x + h * v(x + h / 2 * v(x, t), t + h / 2)


def heun(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """Return x + h/2·(k1 + k2), with k2 at the end of an Euler step: the explicit trapezoid; order 2."""
    if ends_at_target(t, h):
        return euler(v, x, t, h)
    k1 = v(x, t)
    k2 = v(x + h * k1, t + h)
    return x + h / 2 * (k1 + k2)


def rk4(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """Return x + h/6·(k1 + 2·k2 + 2·k3 + k4): the classical Runge–Kutta step; order 4 until t = 1."""
    if ends_at_target(t, h):
        return euler(v, x, t, h)
    k1 = v(x, t)
    k2 = v(x + h / 2 * k1, t + h / 2)
    k3 = v(x + h / 2 * k2, t + h / 2)
    k4 = v(x + h * k3, t + h)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def adams_bashforth(v: Velocity, *, unbroken: bool = False) -> Step:
    """Return a step x + h·(v_k + h/(2·h_{k−1})·(v_k − v_{k−1})), of order 2 at one evaluation.

    It goes on along the line through this velocity and that of the step before, the two-step Adams–Bashforth method for
    steps of any lengths (Hairer, Nørsett & Wanner 1993, section III.5). The first step is Euler's, and so is one that
    does not start where the last one ended. Each sample may have its own times: t and h [B, 1, …, 1]. unbroken: all
    start there, and the host need not wait for the device to compare times.
    """
    before: tuple[Tensor, Tensor, Tensor] | None = None  # end, length and velocity of the step before

    def step(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        nonlocal before
        now = along = v(x, t)
        if before is not None and (unbroken or torch.allclose(t, before[0])):
            _, h_before, v_before = before
            along = now + h / (2 * h_before) * (now - v_before)
        before = t + h, h, now
        return x + h * along

    return step


def flow_map(v: Velocity, x: Tensor, t: Tensor, h: Tensor) -> Tensor:
    """Return x + h·u(x, t, t + h), with u the mean velocity from t to t + h: exact for steps of any length."""
    return x + h * v(x, torch.stack([t, t + h]))


def transition(path: Path, t: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return r = β_t/β_u and q = α_t² − r²·α_u²: x_t = r·x_u + √q·ε of two times t < u of a path from Gaussian noise.

    On DDPM's path from one level to the next, r² = 1 − b_s and q = b_s with its schedule b (Ho et al. 2020, eq. 2).
    """
    r = path.beta(t) / path.beta(u)
    return r, path.alpha(t) ** 2 - r**2 * path.alpha(u) ** 2


def ddim(v: Velocity, path: Path) -> Step:
    """Return α_u·x0 + β_u·x1 for a step from t to u, with both ends as the velocity at t implies them; order 1.

    It is the deterministic sampler of Song et al. 2021, eq. 12 with σ = 0; on the linear path it is Euler's step.
    """

    def step(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        x0, x1 = path.endpoints(x, v(x, t), t)
        return path.alpha(t + h) * x0 + path.beta(t + h) * x1

    return step


def ancestral(v: Velocity, path: Path, noise: Noise, variance: Variance = large) -> Step:
    """Return DDPM's ancestral step (Ho et al. 2020, algorithm 2), on any path that starts from Gaussian noise.

    For a step from t to u, however long, with r and q of `transition`, the mean of x_u given x_t and x1 is
    (q·β_u·x1 + r·α_u²·x_t)/α_t². The step adds noise to it: of the variance q, the larger of the paper's two choices,
    or as `variance` says between that and the smaller, q·α_u²/α_t². The last step, to u = 1, adds no noise.
    """

    def step(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        _, x1 = path.endpoints(x, v(x, t), t)
        r, q = transition(path, t, t + h)
        mean = (q * path.beta(t + h) * x1 + r * path.alpha(t + h) ** 2 * x) / path.alpha(t) ** 2
        if ends_at_target(t, h):
            return mean
        return mean + variance(x, t, q, q * path.alpha(t + h) ** 2 / path.alpha(t) ** 2).sqrt() * noise(x)

    return step


class Solver(NamedTuple):
    """A way to take steps along a velocity."""

    make_step: Callable[..., Step]
    """(velocity, path, noise, variance=large) -> a step, for one trajectory."""
    per_step: int = 1
    """Evaluations of the velocity per step."""
    last_step: int = 1
    """Evaluations of the velocity in a step that ends at t = 1."""
    has_ends: bool = False
    """Whether it steps between the two ends that the velocity implies, so that the image can be kept within bounds."""
    two_times: bool = False
    """Whether it asks for the mean velocity between two times, which only networks of two times answer."""

    def nfe(self, steps: int) -> int:
        """Return the evaluations of the velocity from t = 0 to 1."""
        return self.per_step * (steps - 1) + self.last_step

    def steps_within(self, nfe: int) -> int:
        """Return the most steps from t = 0 to 1 that take no more than `nfe` evaluations; 0 where one takes more."""
        return max(0, (nfe - self.last_step) // self.per_step + 1)


def single_step(method: Callable[[Velocity, Tensor, Tensor, Tensor], Tensor], per_step: int, last_step: int) -> Solver:
    """Return a solver whose step needs neither the path, nor noise, nor what was before."""
    return Solver(lambda v, path, noise, variance=large: lambda x, t, h: method(v, x, t, h), per_step, last_step)


SOLVERS: dict[str, Solver] = {
    "euler": single_step(euler, 1, 1),
    "midpoint": single_step(midpoint, 2, 2),
    "heun": single_step(heun, 2, 1),
    "rk4": single_step(rk4, 4, 1),
    "ab2": Solver(lambda v, path, noise, variance=large: adams_bashforth(v)),
    "ddim": Solver(lambda v, path, noise, variance=large: ddim(v, path), has_ends=True),
    "ancestral": Solver(ancestral, has_ends=True),
    "map": single_step(flow_map, 1, 1)._replace(two_times=True),
}


def trajectory(step: Step, x: Tensor, grid: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield x [B, …] at every time of the grid [N+1], the first included. A decreasing grid leads to the source."""
    yield x
    for t, t_next in pairwise(grid):
        x = step(x, t, t_next - t)
        yield x


def last(states: Iterator[Tensor]) -> Tensor:
    """Return the last state of a trajectory, of which no other is kept in memory."""
    return deque(states, maxlen=1).pop()
