"""Paths from x0 to x1: x_t = α_t·x0 + β_t·x1, and the velocity along them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def expand(t: Tensor, x: Tensor) -> Tensor:
    """[B] -> [B, 1, …, 1], to multiply x [B, …]."""
    return t.reshape(-1, *[1] * (x.ndim - 1))


class Path(NamedTuple):
    """α_t, β_t and their derivatives in t. α_0 = β_1 = 1 and α_1 = β_0 = 0: x0 at t = 0, x1 at t = 1."""

    alpha: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    dalpha: Callable[[Tensor], Tensor]
    dbeta: Callable[[Tensor], Tensor]

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """x_t = α_t·x0 + β_t·x1, for x0 and x1 [B, …] and t [B]."""
        t = expand(t, x0)
        return self.alpha(t) * x0 + self.beta(t) * x1

    def velocity(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """v = dx_t/dt = α'_t·x0 + β'_t·x1."""
        t = expand(t, x0)
        return self.dalpha(t) * x0 + self.dbeta(t) * x1


# Rectified flow (Liu et al. 2022), conditional optimal transport (Lipman et al. 2022): v = x1 − x0.
linear = Path(
    alpha=lambda t: 1 - t,
    beta=lambda t: t,
    dalpha=lambda t: -torch.ones_like(t),
    dbeta=lambda t: torch.ones_like(t),
)

# Variance preserving (Albergo & Vanden-Eijnden 2022): α² + β² = 1.
cosine = Path(
    alpha=lambda t: torch.cos(math.pi / 2 * t),
    beta=lambda t: torch.sin(math.pi / 2 * t),
    dalpha=lambda t: -math.pi / 2 * torch.sin(math.pi / 2 * t),
    dbeta=lambda t: math.pi / 2 * torch.cos(math.pi / 2 * t),
)

PATHS: dict[str, Path] = {"linear": linear, "cosine": cosine}
