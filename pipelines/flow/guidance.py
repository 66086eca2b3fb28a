"""Classifier-free guidance (Ho & Salimans 2022): a conditional velocity in, a guided velocity out."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.solvers import Velocity

ConditionalVelocity = Callable[[Tensor, Tensor, Condition], Tensor]
"""v(x, t, condition) with x [B, …], t a scalar tensor and the condition of the B samples -> dx/dt [B, …]."""


def guide(v: ConditionalVelocity, condition: Condition, w: float) -> Velocity:
    """Return v_uncond + w·(v_cond − v_uncond): one forward of twice the batch, or of the batch if w is 0 or 1.

    What v answers beside a velocity, in channels beyond those of x, stays that of the condition.
    """
    unconditional = condition.unconditional()
    if w == 1:
        return lambda x, t: v(x, t, condition)
    if w == 0:
        return lambda x, t: v(x, t, unconditional)
    both = condition.followed_by(unconditional)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        cond, uncond = v(torch.cat([x, x]), t, both).unflatten(0, (2, -1))
        mixed, own = uncond + w * (cond - uncond), x.shape[1]
        return mixed if mixed.shape == x.shape else torch.cat([mixed[:, :own], cond[:, own:]], dim=1)

    return guided
