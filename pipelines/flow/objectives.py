"""Objectives: the times at which a network is trained, its loss, and how its velocity leads from source to target."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from flowferry.pipelines.flow.losses import Distance
from flowferry.pipelines.flow.paths import Path, expand
from flowferry.pipelines.flow.predictions import Prediction
from flowferry.pipelines.flow.solvers import Step, Velocity, adams_bashforth, last, trajectory
from flowferry.pipelines.flow.times import training_times

SOLVED = 4  # steps of the solution that a step of the map is trained on
SHORTEST = 1e-4  # a shorter step of the map has the velocity: rounding may leave its solution no length
STEP_EVERY = 4  # of so many samples in a row the last is a step of the map
JUDGED_EVERY = 8  # of so many samples in a row the last is a step of the map that ends at t = 1

BoundNetwork = Callable[..., Tensor]
"""network(xt, t) with xt [B, …] and t [B] or [B, 2] -> its prediction in the shape of xt, to be trained.

Its condition is bound already. network(x, t, rows) asks its average instead, which learns nothing, of those samples of
the batch whose places are in rows, int64 [n].
"""


def ends(path: Path, prediction: Prediction, predicted: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """Return x1 [B, …], the end of the path that each prediction implies."""
    return path.endpoints(xt, prediction.velocity(path, predicted, xt, t), t)[1]


def ends_of_steps(path: Path, prediction: Prediction, predicted: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """Return where each mean velocity leads when followed to t = 1, [B, …]: the end of a step that ends there."""
    return xt + expand(1 - t[:, 0], xt) * predicted


class Objective(NamedTuple):
    """How a network is trained, and how it then leads from source to target."""

    draw_times: Callable[[Tensor, float, float, Path], Tensor]
    """(u [B, *uniforms] uniform in [0, 1), power, start, path) -> training times t [B] (see `times.training_times`), or
    [B, 2] with the ends of steps."""
    loss: Callable[[BoundNetwork, Path, Prediction, Distance, Tensor, Tensor, Tensor], Tensor]
    """(network, path, prediction, distance, x0 [B, …], x1 [B, …], t as drawn) -> scalar."""
    step: Callable[[Velocity, Callable[[Velocity], Step]], Step]
    """(velocity, solver) -> a step from one time of the grid to the next."""
    results: Callable[[Path, Prediction, Tensor, Tensor, Tensor], Tensor] = ends
    """(path, prediction, predicted [B, …], xt [B, …], t as drawn) -> the samples of the target [B, …] that the
    predictions imply."""
    max_time: float = 1.0
    """The latest time at which the network is trained, in [0, 1]."""
    max_steps: int | None = None
    """The largest number of steps from source to target; None: no limit."""
    nfe: int | None = None
    """Evaluations of the velocity per step; None: as many as the solver needs."""
    judged_every: int = 1
    """Of so many samples in a row the last has a result that a critic may judge."""
    uniforms: tuple[int, ...] = ()
    """The shape of the random numbers that `draw_times` takes for each sample."""
    two_times: bool = False
    """Whether the network is asked for mean velocities from one time to another."""


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


def map_times(u: Tensor, power: float, start: float, path: Path) -> Tensor:
    """Return [B, 2]: starts along the whole path, each with an end; of three samples in four the two are equal.

    u: [B, 3]. Every fourth sample is a step of the map. Half of the steps start at t = 0, and every other one ends at
    t = 1.
    """
    s = training_times(u[:, 0], power=power, start=start)
    from_start = training_times(u[:, 1], power=power, start=0.5)
    to = 1 - u[:, 2] * (1 - from_start)
    place = torch.arange(len(u), device=u.device)
    to = torch.where(place % JUDGED_EVERY == JUDGED_EVERY - 1, 1.0, to)
    is_step = place % STEP_EVERY == STEP_EVERY - 1
    return torch.stack([torch.where(is_step, from_start, s), torch.where(is_step, to, s)], dim=1)


def map_loss(
    network: BoundNetwork, path: Path, prediction: Prediction, distance: Distance, x0: Tensor, x1: Tensor, t: Tensor
) -> Tensor:
    """Return the mean distance between network(x_s, (s, t)) and what it is trained to predict, a scalar.

    Where s = t, nearly, it is `flow_loss`. Elsewhere the truth is the mean velocity from s to t along the path on which
    the velocity of the network's average leads from x_s: see `mean_velocity`.
    """
    start = t[:, 0]
    xs = path.interpolate(x0, x1, start)
    truth = prediction.truth(path, x0, x1, start)
    length = t[:, 1] - start
    # The longest, as many as are drawn: the host would wait for the device to learn how many are long enough.
    steps = length.topk(-(-len(t) // STEP_EVERY)).indices.sort().values
    solved = mean_velocity(lambda x, t: network(x, t.reshape(-1, 1).expand(-1, 2), steps), xs[steps], t[steps])
    is_solved = expand(length[steps] > SHORTEST, xs)
    truth = truth.index_copy(0, steps, torch.where(is_solved, solved.to(truth), truth[steps]))
    return distance(network(xs, t), truth)


@torch.no_grad()
def mean_velocity(velocity: Velocity, x: Tensor, t: Tensor) -> Tensor:
    """Return (X_st(x) − x)/(t − s) [B, …] with s = t[:, 0] and t = t[:, 1], where X_st follows a velocity from s to t.

    It takes SOLVED steps of Adams–Bashforth, even in √t: from a source of images most is decided near t = 0. To train
    the step on a whole solution, by the network's own averaged velocity, is the global consistency of consistency
    trajectory models (Kim et al. 2023, section 3.2). A step shorter than SHORTEST is taken to be as long as that.
    """
    end = torch.maximum(t[:, 1], t[:, 0] + SHORTEST)
    start, end = (expand(time.sqrt(), x) for time in (t[:, 0], end))
    grid = [torch.lerp(start, end, k / SOLVED).square() for k in range(SOLVED + 1)]
    return (last(trajectory(adams_bashforth(velocity, unbroken=True), x, grid)) - x) / (grid[-1] - grid[0])


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
    # Trained to take a step of any length at one evaluation, and to give the velocity for a step without length.
    "map": Objective(
        map_times, map_loss, follow, results=ends_of_steps, uniforms=(3,), judged_every=JUDGED_EVERY, two_times=True
    ),
}
