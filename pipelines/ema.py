"""The exponential moving average of the weights."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_average(
    average: nn.Module, model: nn.Module, decay: float, *, updates: int, unless: Tensor | None = None
) -> None:
    """average ← d·average + (1 − d)·model, for parameters and buffers of two modules that are alike.

    The first update copies; after n `updates` d = min(decay, (1 + n)/(10 + n)), so that the first steps do not linger
    in the average. What is counted and not measured, as BatchNorm's batches are, is copied. (torch's own AveragedModel
    keeps n on the device, where reading it waits for all that is under way.) unless: a bool on the device; where it is
    true, the average stays what it was.
    """
    d = min(decay, (1 + updates) / (10 + updates)) if updates else 0.0
    mine, theirs = ([*module.parameters(), *module.buffers()] for module in (average, model))
    pairs = list(zip(mine, theirs, strict=True))
    before = [] if unless is None else [ours.clone() for ours in mine]
    measured = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([ours for ours, _ in measured], [other for _, other in measured], 1 - d)
    for counted, value in pairs:
        if not counted.is_floating_point():
            counted.copy_(value)
    if unless is not None:
        for ours, old in zip(mine, before, strict=True):
            ours.copy_(torch.where(unless, old, ours))
