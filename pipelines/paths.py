"""Paths from x0 to x1: x_t = α_t·x0 + β_t·x1, the velocity along them, and what a network may predict of it."""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor


def expand(t: Tensor, x: Tensor) -> Tensor:
    """[B] -> [B, 1, …, 1], to multiply x [B, …]; a scalar stays one."""
    return t.reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else t


class Path(NamedTuple):
    """α_t, β_t and their derivatives in t, from x0 at t = 0 to x1 at t = 1: α_1 = 0 and β_1 = 1.

    levels: T where training knows only the times 0, 1/T, …, (T−1)/T; None: all times.
    """

    alpha: Callable[[Tensor], Tensor]
    beta: Callable[[Tensor], Tensor]
    dalpha: Callable[[Tensor], Tensor]
    dbeta: Callable[[Tensor], Tensor]
    levels: int | None = None

    def interpolate(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """x_t = α_t·x0 + β_t·x1, for x0 and x1 [B, …] and t [B]."""
        t = expand(t, x0)
        return self.alpha(t) * x0 + self.beta(t) * x1

    def velocity(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """v = dx_t/dt = α'_t·x0 + β'_t·x1."""
        t = expand(t, x0)
        return self.dalpha(t) * x0 + self.dbeta(t) * x1

    def ends(self, xt: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(x0, x1) from a point and its velocity: x_t = α·x0 + β·x1 and v = α'·x0 + β'·x1, solved."""
        t = expand(t, xt)
        a, b, da, db = self.alpha(t), self.beta(t), self.dalpha(t), self.dbeta(t)
        determinant = a * db - da * b
        return (db * xt - b * v) / determinant, (a * v - da * xt) / determinant


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
    """DDPM's forward process (Ho et al. 2020, eq. 4): x_s = √(1 − ᾱ_s)·ε + √ᾱ_s·x with ᾱ_s = Π (1 − betas).

    betas: float64 [T], from the least noise to the most. Level s = 1 … T is reached at t = 1 − s/T: time runs from
    noise to image, here as everywhere. Between two levels log ᾱ is linear in t. Note that ᾱ_T > 0: x_0 is not
    quite the noise.
    """
    levels = len(betas)
    log_abar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
    table_on = cache(log_abar.to)  # by device: a copy to a GPU waits for it

    def level(t: Tensor) -> Tensor:
        """s = T·(1 − t), which is a whole number where t is one of 1 − s/T but for its rounding."""
        s = levels * (1 - t.double())
        return torch.where((s - s.round()).abs() < 1e-3, s.round(), s).clamp(0, levels)

    def between(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log ᾱ at the levels on either side of t, and how far t is from the less noisy one, in (0, 1]."""
        s, table = level(t), table_on(t.device)
        above = s.ceil().clamp(min=1).long()
        return table[above - 1], table[above], s - (above - 1)

    def log_signal(t: Tensor) -> Tensor:
        return torch.lerp(*between(t))

    def slope(t: Tensor) -> Tensor:
        """d log ᾱ / dt towards the image."""
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
    # One step leads from x0 to x1, so that nothing between them is ever seen: a denoiser at one noise level.
    "one-step": linear._replace(levels=1),
}


class Prediction(NamedTuple):
    """What a network is trained to give, and the velocity that follows from it.

    of(path, x0, x1, t): the answer wanted at x_t; velocity(path, answer, xt, t): the velocity it implies.
    """

    of: Callable[[Path, Tensor, Tensor, Tensor], Tensor]
    velocity: Callable[[Path, Tensor, Tensor, Tensor], Tensor]


def velocity_from_source(path: Path, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """x1 = (x_t − α·x0)/β: where β_t > 0."""
    s = expand(t, xt)
    return path.velocity(x0, (xt - path.alpha(s) * x0) / path.beta(s), t)


def velocity_from_target(path: Path, x1: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """x0 = (x_t − β·x1)/α: where α_t > 0."""
    s = expand(t, xt)
    return path.velocity((xt - path.beta(s) * x1) / path.alpha(s), x1, t)


PREDICTIONS: dict[str, Prediction] = {
    "velocity": Prediction(Path.velocity, lambda path, answer, xt, t: answer),
    "source": Prediction(lambda path, x0, x1, t: x0, velocity_from_source),
    "target": Prediction(lambda path, x0, x1, t: x1, velocity_from_target),
}
