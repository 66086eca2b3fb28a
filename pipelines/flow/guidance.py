"""Guidance: away from what a network answers without the class, or from what a weaker network answers."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.solvers import Velocity

ConditionalVelocity = Callable[[Tensor, Tensor, Condition], Tensor]
"""v(x, t, condition) with x [B, …], t a scalar tensor and the condition of the B samples -> dx/dt [B, …]."""


def guide(v: ConditionalVelocity, condition: Condition, w: float) -> Velocity:
    """Return v_uncond + w·(v_cond − v_uncond): classifier-free guidance (Ho & Salimans 2022).

    One forward of twice the batch, or of the batch if w is 0 or 1. What v answers beside a velocity, in channels beyond
    those of x, stays that of the condition.
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


def autoguide(v: ConditionalVelocity, weaker: ConditionalVelocity, w: float) -> ConditionalVelocity:
    """Return v_weaker + w·(v − v_weaker): autoguidance (Karras et al. 2024).

    The weaker network errs as the stronger one does, only more, so that their difference points away from the errors.
    One forward of each, or of one alone if w is 0 or 1.
    """
    if w in (0, 1):
        return v if w else weaker
    return lambda x, t, condition: torch.lerp(weaker(x, t, condition), v(x, t, condition), w)
