"""The exponential moving average of the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model whose parameters and buffers follow it: ema ← d·ema + (1 − d)·model.

    The first update copies; after n updates d = min(decay, (1 + n)/(10 + n)), so that the first steps do not
    linger in the average.
    """

    @torch.no_grad()
    def follow(ema: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        n = int(updates)
        d = min(decay, (1 + n) / (10 + n))
        if ema[0].is_floating_point():
            torch._foreach_lerp_(list(ema), list(current), 1 - d)
        else:  # BatchNorm's count of batches
            torch._foreach_copy_(list(ema), list(current))

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
