"""How far predictions are from what they are to be: scalars to be minimised."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

C = 0.01  # in units of [-1, 1]: errors much smaller count squared, much larger by their size


def squared(prediction: Tensor, truth: Tensor) -> Tensor:
    """The mean over samples and elements of the squared error. At its least where the prediction is the mean."""
    return F.mse_loss(prediction, truth)


def pseudo_huber(prediction: Tensor, truth: Tensor) -> Tensor:
    """√(d² + c²) − c, with d² a sample's mean squared error, over the samples (Song & Dhariwal 2023, section 3.3).

    At its least, for c → 0, where the prediction is the geometric median: one of several possible images rather than
    all of them at once, which is no longer the velocity that carries the source's distribution exactly to the target's.
    """
    d2 = (prediction - truth).square().flatten(1).mean(dim=1)
    return ((d2 + C**2).sqrt() - C).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"squared": squared, "pseudo-huber": pseudo_huber}
