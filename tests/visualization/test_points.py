"""The variance along a path in the plane, against the samples themselves."""

from pathlib import Path

import pytest
import torch

from flowferry.configs.components import GaussianConfig, GaussianRingConfig, MoonsConfig, SamplerConfig
from flowferry.configs.presets import PIPELINES
from flowferry.datasets.builders import build_sampler, build_samplers
from flowferry.pipelines.visualization import points

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "config",
    [GaussianConfig(mean=1.0), GaussianConfig(std=0.3), MoonsConfig(), MoonsConfig(noise=0.3)]
    + [GaussianRingConfig(modes=modes) for modes in (1, 2, 3, 8)],
    ids=str,
)
def test_the_stated_variance_is_that_of_the_samples(config: SamplerConfig) -> None:
    sampler = build_sampler(config, (2,), data_root=Path("data"), split="train", device=CPU)
    x = sampler.draw(200_000, seed=0, step=0).samples.double()
    assert x.var(dim=0).mean().item() == pytest.approx(sampler.variance, rel=0.02)


def test_the_linear_path_halves_the_variance_of_gaussian2d_halfway_and_the_cosine_path_keeps_it() -> None:
    source, target = build_samplers(PIPELINES["gaussian2d"], data_root=Path("data"), split="test", device=CPU)
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert points.closed_form("linear", source, target, t).tolist() == pytest.approx([1, 0.625, 0.5, 1])
    assert points.closed_form("cosine", source, target, t).tolist() == pytest.approx([1, 1, 1, 1])


def test_the_spread_is_the_variance_of_a_coordinate() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    assert points.spread(x) == pytest.approx(1.0)  # (2 + 0) / 2
