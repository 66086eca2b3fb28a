"""Distances between a prediction and the truth: scalars to minimize."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]
"""(prediction, truth), each [B, …] -> scalar."""

C = 0.01  # for data in [-1, 1]: errors well below it count quadratically, errors well above it linearly


def squared(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error over samples and elements; the mean of all truths minimizes it."""
    return F.mse_loss(prediction, truth)


def pseudo_huber(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return the mean of √(d² + c²) − c, with d² each sample's mean squared error (Song & Dhariwal 2023, 3.3).

    As c → 0, the geometric median of all truths minimizes it, which is close to one of several possible images rather
    than a blend of them. A velocity trained this way no longer carries the source distribution exactly to the target.
    """
    d2 = (prediction - truth).square().flatten(1).mean(dim=1)
    return ((d2 + C**2).sqrt() - C).mean()


LOSSES: dict[str, Distance] = {"squared": squared, "pseudo-huber": pseudo_huber}
