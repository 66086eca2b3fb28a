"""What a network can predict on a path, and the velocity that its prediction implies."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from flowferry.pipelines.flow.paths import Path, expand


class Prediction(NamedTuple):
    """What a network is trained to predict, and the velocity that its prediction implies."""

    truth: Callable[[Path, Tensor, Tensor, Tensor], Tensor]
    """(path, x0, x1, t) -> the correct prediction at x_t, in the shape of x0."""
    velocity: Callable[[Path, Tensor, Tensor, Tensor], Tensor]
    """(path, predicted, xt, t) -> the velocity that the prediction implies."""
    max_time: float = 1.0
    """The latest time at which that velocity can be computed."""
    needs_signal: bool = False
    """Whether computing it needs β_t > 0 even at t = 0, where x_0 must then already contain some of x1."""


def velocity_from_source(path: Path, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """Return the velocity that a predicted x0 implies, with x1 = (x_t − α·x0)/β; needs β_t > 0."""
    s = expand(t, xt)
    return path.velocity(x0, (xt - path.alpha(s) * x0) / path.beta(s), t)


def velocity_from_target(path: Path, x1: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """Return the velocity that a predicted x1 implies, with x0 = (x_t − β·x1)/α; needs α_t > 0."""
    s = expand(t, xt)
    return path.velocity((xt - path.beta(s) * x1) / path.alpha(s), x1, t)


def rotation(path: Path, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Return β·x0 − α·x1 (Salimans & Ho 2022, section 4), at a right angle to x_t = α·x0 + β·x1."""
    s = expand(t, x0)
    return path.beta(s) * x0 - path.alpha(s) * x1


def velocity_from_rotation(path: Path, rotated: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """Return the velocity that a predicted `rotation` implies: with x_t it gives both ends, at any time."""
    s = expand(t, xt)
    a, b = path.alpha(s), path.beta(s)
    length = a**2 + b**2
    return path.velocity((a * xt + b * rotated) / length, (b * xt - a * rotated) / length, t)


ALMOST_ONE = 0.999  # at t = 1, where x_t = x1, the other end would be 0/0

PREDICTIONS: dict[str, Prediction] = {
    "velocity": Prediction(Path.velocity, lambda path, predicted, xt, t: predicted),
    "source": Prediction(lambda path, x0, x1, t: x0, velocity_from_source, ALMOST_ONE, needs_signal=True),
    "target": Prediction(lambda path, x0, x1, t: x1, velocity_from_target, ALMOST_ONE),
    "v-prediction": Prediction(rotation, velocity_from_rotation),
}
