"""The figures of one-step denoisers, against networks whose errors are known."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import Split, build_samplers
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.visualization import denoising


class Answer(nn.Module):
    """Predicts `answer(xt)`."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.zero, self.answer = nn.Parameter(torch.zeros(1)), answer

    def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.answer(xt)


def samplers(config: Config, split: Split = "test") -> tuple[Sampler, Sampler]:
    return build_samplers(config, data_root=Path("data"), split=split, device=torch.device("cpu"))


def test_noise_is_added_where_black_is_0_and_white_is_1(tiny: Callable[..., Config]) -> None:
    x = torch.zeros(64, 1, 28, 28)
    for sigma in denoising.SIGMAS:
        assert denoising.squared_error(denoising.add_noise(x, sigma), x) == pytest.approx(sigma**2, rel=0.03)
    half, whole = (denoising.add_noise(x, sigma) for sigma in (0.5, 1.0))
    torch.testing.assert_close(whole, 2 * half)  # the same ε


def test_the_errors_of_a_denoiser_that_does_nothing_and_of_one_that_knows_are_as_expected(
    tiny: Callable[..., Config],
) -> None:
    config = tiny("denoise-mnist")
    _, target = samplers(config)
    for errors in denoising.denoising_errors(Pipeline(config, Answer(lambda x: x / 2)), target, 32):
        clean = denoising.examples(target, config.seed, 32)
        noisy = denoising.add_noise(clean, errors.sigma)
        assert errors.noisy == pytest.approx(errors.sigma**2, rel=0.05)
        assert errors.denoised == pytest.approx((((noisy / 2).clamp(-1, 1) - clean) ** 2).mean().item() / 4, rel=1e-5)


def test_pure_noise_is_compared_with_the_mean_of_all_training_images(tiny: Callable[..., Config]) -> None:
    config = tiny("denoise-noise")
    _, train = samplers(config, "train")
    source, _ = samplers(config)
    every = train.draw(64, seed=0, step=0).samples  # there are 64
    mean = every.mean(dim=0, keepdim=True)
    knows = denoising.compare_with_mean(Pipeline(config, Answer(lambda x: mean.expand_as(x))), source, train)
    torch.testing.assert_close(knows.mean, mean)
    assert knows.to_mean == pytest.approx(0, abs=1e-6)
    assert knows.among == pytest.approx(0, abs=1e-6)
    assert knows.digits == pytest.approx(((every - mean) / 2).square().mean().sqrt().item(), rel=1e-4)

    black = denoising.compare_with_mean(Pipeline(config, Answer(lambda x: -torch.ones_like(x))), source, train)
    assert black.to_mean == pytest.approx(((mean + 1) / 2).square().mean().sqrt().item(), rel=1e-4)
    noise = denoising.compare_with_mean(Pipeline(config, Answer(lambda x: x)), source, train)
    clipped = 0.5 * math.sqrt(0.5161)  # variance of a unit normal value clipped to [-1, 1]
    assert noise.among == pytest.approx(clipped, rel=0.02)
