"""Solvers of dx/dt = v(x, t). A step is a function of the velocity and one interval of the time grid."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v(x, t) with x [B, …] and t a scalar tensor -> dx/dt [B, …]."""
Step = Callable[[Velocity, Tensor, Tensor, Tensor], Tensor]
"""(v, x, t, h) -> x at t + h, from x at t."""


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


class Solver(NamedTuple):
    """A step, the order of its error over a whole interval, and its forward evaluations."""

    step: Step
    order: int
    evaluations: int


SOLVERS: dict[str, Solver] = {
    "euler": Solver(euler, order=1, evaluations=1),
    "midpoint": Solver(midpoint, order=2, evaluations=2),
    "heun": Solver(heun, order=2, evaluations=2),
    "rk4": Solver(rk4, order=4, evaluations=4),
}


def trajectory(step: Step, v: Velocity, x: Tensor, grid: Tensor) -> Iterator[Tensor]:
    """x at every point of the grid [N+1], the first included: from source to target if it rises, back if it falls."""
    yield x
    for t, t_next in pairwise(grid):
        x = step(v, x, t, t_next - t)
        yield x


def uniform_grid(steps: int, *, device: torch.device, reverse: bool = False) -> Tensor:
    """steps + 1 points from 0 to 1, or from 1 to 0."""
    ends = (1.0, 0.0) if reverse else (0.0, 1.0)
    return torch.linspace(*ends, steps + 1, device=device)
