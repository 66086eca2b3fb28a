"""A network that is known exactly: the best denoiser of images whose pixels are independently N(0, S²)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.paths import PATHS, Path, expand
from flowferry.pipelines.flow.predictions import PREDICTIONS

S = 0.25


class Exact(nn.Module):
    """What training without end leads to. means: of each class's pixels, N(mean, S²); none: no class, and 0."""

    def __init__(self, config: Config, means: Sequence[float] = ()) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.tensor([*means, 0.0]))
        self.path, self.prediction = PATHS[config.path], PREDICTIONS[config.prediction]

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        at = expand(t, xt)
        label = condition.label.clamp(max=len(self.means) - 1) if len(self.means) > 1 else torch.zeros(len(xt)).long()
        mean = expand(self.means[label], xt)
        x1 = mean + posterior_mean(self.path, xt - self.path.beta(at) * mean, at)
        x0 = (xt - self.path.beta(at) * x1) / self.path.alpha(at)
        return self.prediction.truth(self.path, x0, x1, t)


def posterior_mean(path: Path, xt: Tensor, t: Tensor) -> Tensor:
    """E[x1 | x_t] for x0 ~ N(0, 1) and x1 ~ N(0, S²)."""
    a, b = path.alpha(t), path.beta(t)
    return b * S**2 / (a**2 + b**2 * S**2) * xt


def clean(count: int = 12) -> Tensor:
    """Draw such images [count, 1, 28, 28]."""
    return S * torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def expected_errors(pipeline: Pipeline, grid: Tensor) -> tuple[float, float]:
    """Mean squared errors, black 0 and white 1, of one step and of a chain down the grid, from noisy images at grid[0].

    One step leaves the posterior's variance. The chain errs by its own spread more: its steps add noise of variance
    q_k, which reaches the end times f_k = β·S²/V (tests/flow/test_ddpm.py).
    """
    grid, path = grid.double(), pipeline.path
    a, b = path.alpha(grid), path.beta(grid)
    f = b * S**2 / (a**2 + b**2 * S**2)
    q = a[:-1] ** 2 - (b[:-1] / b[1:] * a[1:]) ** 2
    variance = (a[0] ** 2 * S**2 / (a[0] ** 2 + b[0] ** 2 * S**2)).item()
    spread = (q[:-1] * f[1:-1] ** 2).sum().item()
    return variance / 4, (variance + spread) / 4
