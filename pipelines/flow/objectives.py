"""Objectives: the times at which a network is trained, its loss, and how its velocity leads from source to target."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from flowferry.pipelines.flow.losses import Distance
from flowferry.pipelines.flow.paths import Path
from flowferry.pipelines.flow.predictions import Prediction
from flowferry.pipelines.flow.solvers import Step, Velocity
from flowferry.pipelines.flow.times import training_times

BoundNetwork = Callable[[Tensor, Tensor], Tensor]
"""network(xt, t) with xt [B, …] and t [B], its condition already bound -> its prediction in the shape of xt."""


class Objective(NamedTuple):
    """How a network is trained, and how it then leads from source to target."""

    draw_times: Callable[[Tensor, float, float, Path], Tensor]
    """(u [B] uniform in [0, 1), power, start, path) -> training times t [B]: see `times.training_times`."""
    loss: Callable[[BoundNetwork, Path, Prediction, Distance, Tensor, Tensor, Tensor], Tensor]
    """(network, path, prediction, distance, x0 [B, …], x1 [B, …], t [B]) -> scalar."""
    step: Callable[[Velocity, Callable[[Velocity], Step]], Step]
    """(velocity, solver) -> a step from one time of the grid to the next."""
    max_time: float = 1.0
    """The latest time at which the network is trained, in [0, 1]."""
    max_steps: int | None = None
    """The largest number of steps from source to target; None: no limit."""
    nfe: int | None = None
    """Evaluations of the velocity per step; None: as many as the solver needs."""


def flow_times(u: Tensor, power: float, start: float, path: Path) -> Tensor:
    """Return training times along the whole path, rounded down to its levels."""
    return training_times(u, power=power, start=start, levels=path.levels)


def flow_loss(
    network: BoundNetwork, path: Path, prediction: Prediction, distance: Distance, x0: Tensor, x1: Tensor, t: Tensor
) -> Tensor:
    """Return the mean distance between network(x_t, t) and what it is trained to predict, a scalar.

    With the squared error it is, for the prediction "velocity", the conditional flow matching loss (Lipman et al. 2022,
    eq. 9): the truth is the velocity of one pair, and the minimizer is its mean given x_t, which is the velocity that
    carries the source to the target. For "source", where the source is Gaussian noise, it is DDPM's (Ho et al. 2020,
    eq. 14); for "target" at t = 0, that of a one-step denoiser.
    """
    xt = path.interpolate(x0, x1, t)
    return distance(network(xt, t), prediction.truth(path, x0, x1, t))


def follow(velocity: Velocity, solver: Callable[[Velocity], Step]) -> Step:
    """Return the solver's step along the velocity."""
    return solver(velocity)


def jump(velocity: Velocity, solver: Callable[[Velocity], Step]) -> Step:
    """Return x + h·v(x, t), the one step from source to target, whatever the solver."""
    return lambda x, t, h: x + h * velocity(x, t)


OBJECTIVES: dict[str, Objective] = {
    "flow": Objective(flow_times, flow_loss, follow),
    # Trained at t = 0 only: a denoiser at one noise level, or plain regression from x0 to x1.
    "one-step": Objective(
        lambda u, power, start, path: torch.zeros_like(u), flow_loss, jump, max_time=0.0, max_steps=1, nfe=1
    ),
}
