"""Distributions in closed form: datasets/toy.py."""

import math

import pytest
import torch

from flowferry.configs.components import GaussianConfig, GaussianRingConfig, MoonsConfig
from flowferry.datasets.toy import Gaussian, GaussianRing, Moons
from sample_data import CPU


def test_gaussian_samples_have_the_mean_and_deviation_asked_for() -> None:
    x = Gaussian(GaussianConfig(mean=1.5, std=0.5), (2, 5, 5), CPU).draw(4000, seed=0, step=0).samples
    assert x.shape == (4000, 2, 5, 5)
    assert abs(x.mean().item() - 1.5) < 5 * 0.5 / math.sqrt(x.numel())
    assert abs(x.std().item() - 0.5) < 5 * 0.5 / math.sqrt(2 * x.numel())
    correlation = torch.corrcoef(x.flatten(1).T) - torch.eye(50)
    assert correlation.abs().max() < 6 / math.sqrt(4000)  # elements are independent of each other


def test_moons_without_noise_lie_on_their_half_circles() -> None:
    x, label = Moons(MoonsConfig(noise=0), CPU).draw(4000, seed=0, step=0)
    arc = torch.where(label[:, None] == 0, x, torch.tensor([1.0, 0.5]) - x)  # the lower one, turned onto the upper
    torch.testing.assert_close(arc.norm(dim=1), torch.ones(4000))
    assert arc[:, 1].min() >= -1e-6
    angle = torch.atan2(arc[:, 1], arc[:, 0])
    for moon in (0, 1):  # as many on each, and uniform in angle: mean π/2, standard deviation π/√12
        on_it = angle[label == moon]
        assert abs(len(on_it) - 2000) < 5 * math.sqrt(1000)
        assert abs(on_it.mean().item() - math.pi / 2) < 5 * math.pi / math.sqrt(12 * len(on_it))
        assert abs(on_it.std().item() - math.pi / math.sqrt(12)) < 0.05


def test_moons_have_the_noise_asked_for_on_top() -> None:
    clean, noisy = (Moons(MoonsConfig(noise=noise), CPU).draw(4000, seed=0, step=0) for noise in (0, 0.3))
    assert torch.equal(clean.labels, noisy.labels)
    noise = noisy.samples - clean.samples
    assert abs(noise.mean().item()) < 5 * 0.3 / math.sqrt(noise.numel())
    assert abs(noise.std().item() - 0.3) < 5 * 0.3 / math.sqrt(2 * noise.numel())


def test_ring_samples_lie_about_the_mean_of_their_label() -> None:
    config = GaussianRingConfig(modes=5, radius=3.0, std=0.1)
    x, label = GaussianRing(config, CPU).draw(5000, seed=0, step=0)
    angle = math.tau * label / 5
    deviation = x - 3.0 * torch.stack([angle.cos(), angle.sin()], dim=1)
    assert abs(deviation.std().item() - 0.1) < 5 * 0.1 / math.sqrt(2 * 10_000)
    assert ((label.bincount(minlength=5) - 1000).abs() < 5 * math.sqrt(800)).all()


@pytest.mark.parametrize(
    "sampler",
    [
        Gaussian(GaussianConfig(), (3,), CPU),
        Moons(MoonsConfig(), CPU),
        GaussianRing(GaussianRingConfig(), CPU),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_endless_streams_are_functions_of_seed_and_step(sampler: Gaussian | Moons | GaussianRing) -> None:
    draws = [sampler.draw(50, seed=seed, step=step).samples for seed in (0, 1) for step in (0, 1)]
    torch.manual_seed(99)
    assert torch.equal(sampler.draw(50, seed=1, step=0).samples, draws[2])
    assert len(torch.stack(draws).unique(dim=0)) == 4
