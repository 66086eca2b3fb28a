"""Classifier-free guidance (Ho & Salimans 2022): a velocity that knows labels in, a guided velocity out."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipelines.solvers import Velocity

LabelledVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""v(x, t, label) with label int64 [B]."""


def guide(v: LabelledVelocity, label: Tensor, null: int, w: float) -> Velocity:
    """v_uncond + w·(v_cond − v_uncond). One doubled forward; a single one for w = 1 and for w = 0.

    label: int64 [B]; null: the label that stands for "not told".
    """
    unlabelled = torch.full_like(label, null)
    if w == 1:
        return lambda x, t: v(x, t, label)
    if w == 0:
        return lambda x, t: v(x, t, unlabelled)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        both = v(torch.cat([x, x]), t, torch.cat([label, unlabelled]))
        cond, uncond = both.chunk(2)
        return uncond + w * (cond - uncond)

    return guided
