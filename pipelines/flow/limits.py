"""Keep the image that a velocity implies within bounds: static and dynamic thresholding."""

from collections.abc import Callable

import torch
from torch import Tensor

from flowferry.pipelines.flow.paths import Path
from flowferry.pipelines.flow.predictions import velocity_from_target
from flowferry.pipelines.flow.solvers import Velocity

Limit = Callable[[Tensor], Tensor]
"""limit(x1) with x1 [B, …] -> x1 within bounds."""


def clipped(bound: float) -> Limit:
    """Return the limit that clips values to [−bound, bound], as DDPM does at each step."""
    return lambda x1: x1.clamp(-bound, bound)


def dynamic(share: float, most: float) -> Limit:
    """Return the limit that brings each sample to [−1, 1] by dividing it (Saharia et al. 2022, section 2.3).

    `share` of its absolute values lie below a bound, which is brought between 1 and `most`. Values are clipped to the
    bound and then divided by it.
    """

    def limit(x1: Tensor) -> Tensor:
        values = x1.flatten(1)
        bound = torch.quantile(values.abs(), share, dim=1, keepdim=True).clamp(1, most)
        return (values.clamp(-bound, bound) / bound).reshape(x1.shape)

    return limit


def limited(v: Velocity, path: Path, limit: Limit) -> Velocity:
    """Return the velocity towards the limited x1 that v implies, from where x is; x0 then follows from these two."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        _, x1 = path.endpoints(x, v(x, t), t)
        return velocity_from_target(path, limit(x1), x, t)

    return velocity
