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


def critic_loss(real: Tensor, results: Tensor) -> Tensor:
    """Return the hinge loss of a critic's scores of real samples and of results (Lim & Ye 2017; Miyato et al. 2018).

    It is 0 where it tells them apart by a margin: scores ≥ 1 for what is real, ≤ −1 for results.
    """
    return F.relu(1 - real).mean() + F.relu(1 + results).mean()


def adversarial_loss(results: Tensor) -> Tensor:
    """Return what results lose by a critic's scores of them: less, the more real they seem to it."""
    return -results.mean()


LOSSES: dict[str, Distance] = {"squared": squared, "pseudo-huber": pseudo_huber}
