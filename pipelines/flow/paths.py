"""Paths from x0 to x1, x_t = α_t·x0 + β_t·x1, and the velocity along them."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


def expand(t: Tensor, x: Tensor) -> Tensor:
    """Return t [B] as [B, 1, …, 1], to multiply x [B, …]; a scalar stays a scalar."""
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t


class Path(NamedTuple):
    """α_t, β_t and their derivatives in t, from x0 at t = 0 to x1 at t = 1: α_1 = 0 and β_1 = 1.

    levels: T where training uses only the times 0, 1/T, …, (T−1)/T; None: all times.
    """

    alpha: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    dalpha: Callable[[Tensor], Tensor]
    dbeta: Callable[[Tensor], Tensor]
    levels: int | None = None

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """Return x_t = α_t·x0 + β_t·x1, for x0 and x1 [B, …] and t [B] in [0, 1]."""
        t = expand(t, x0)
        return self.alpha(t) * x0 + self.beta(t) * x1

    def velocity(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """Return the velocity of each pair, dx_t/dt = α'_t·x0 + β'_t·x1, for x0 and x1 [B, …] and t [B] in [0, 1]."""
        t = expand(t, x0)
        return self.dalpha(t) * x0 + self.dbeta(t) * x1

    def endpoints(self, xt: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x0, x1) for a point and its velocity by solving x_t = α·x0 + β·x1 and v = α'·x0 + β'·x1."""
        t = expand(t, xt)
        a, b, da, db = self.alpha(t), self.beta(t), self.dalpha(t), self.dbeta(t)
        determinant = a * db - da * b
        return (db * xt - b * v) / determinant, (a * v - da * xt) / determinant

    @property
    def has_signal(self) -> bool:
        """Whether β_0 > 0, so that x_0 already contains some of x1."""
        return bool(self.beta(torch.zeros(())) != 0)

    @property
    def max_time(self) -> float:
        """The latest time used in training, in [0, 1]."""
        return 1 - 1 / self.levels if self.levels else 1.0


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


def diffusion(betas: Tensor) -> Path:
    """Return DDPM's forward process (Ho et al. 2020, eq. 4): x_s = √(1 − ᾱ_s)·ε + √ᾱ_s·x with ᾱ_s = Π (1 − betas).

    betas: float64 [T], from the least noise to the most. In the paper x_0 is the image and time runs towards the noise;
    here x0 is the noise ε and x1 the image, so that level s = 1 … T is at t = 1 − s/T, with β_t² = ᾱ_s and
    α_t² = 1 − ᾱ_s. Between two levels log ᾱ is linear in t. Since ᾱ_T > 0, x_0 is not quite pure noise.
    """
    levels = len(betas)
    log_abar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
    table_on = cache(log_abar.to)  # one copy per device: each copy to a GPU would wait for it

    def level(t: Tensor) -> Tensor:
        """Return s = T·(1 − t), a whole number wherever t is a level 1 − s/T up to rounding errors."""
        s = levels * (1 - t.double())
        return torch.where((s - s.round()).abs() < 1e-3, s.round(), s).clamp(0, levels)

    def between(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log ᾱ at the levels on either side of t, and the distance of t from the less noisy one, in (0, 1]."""
        s, table = level(t), table_on(t.device)
        above = s.ceil().clamp(min=1).long()
        return table[above - 1], table[above], s - (above - 1)

    def log_signal(t: Tensor) -> Tensor:
        return torch.lerp(*between(t))

    def slope(t: Tensor) -> Tensor:
        """Return d log ᾱ / dt; at a level, where it jumps, its value on the side of the image."""
        low, high, _ = between(t)
        return (levels * (low - high)).to(t.dtype)

    def alpha(t: Tensor) -> Tensor:
        return (-torch.expm1(log_signal(t))).sqrt().to(t.dtype)

    def beta(t: Tensor) -> Tensor:
        return (log_signal(t) / 2).exp().to(t.dtype)

    def dbeta(t: Tensor) -> Tensor:
        return beta(t) * slope(t) / 2

    def dalpha(t: Tensor) -> Tensor:
        return -beta(t) * dbeta(t) / alpha(t)  # from α² + β² = 1

    return Path(alpha, beta, dalpha, dbeta, levels)


PATHS: dict[str, Path] = {
    "linear": linear,
    "cosine": cosine,
    "ddpm": diffusion(torch.linspace(1e-4, 0.02, 300, dtype=torch.float64)),
}
