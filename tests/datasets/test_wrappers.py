"""Samplers made of another one: datasets/wrappers.py."""

import math

import pytest
import torch
from torch import Tensor

from flowferry.configs.components import AugmentConfig
from flowferry.datasets.couplings import given
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.wrappers import Augmented, Noisy
from sample_data import CPU

MIRRORED = AugmentConfig(mirrored=True)
ALL = AugmentConfig(mirrored=True, cutout=7, shifted=2)


# --- noisy images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.2, 0.5])
def test_noisy_images_are_the_clean_ones_and_twice_sigma_of_noise(clean: InMemory, sigma: float) -> None:
    """Twice, because σ is given where white − black is 1, and here it is 2. Nothing is clipped."""
    z, labels = Noisy(clean, sigma).draw(400, seed=3, step=2)
    x, expected = clean.draw(400, seed=3, step=2)
    assert torch.equal(labels, expected)
    noise = (z - x).flatten(1)
    assert abs(noise.mean().item()) < 5 * 2 * sigma / math.sqrt(noise.numel())
    for some in (noise, noise[x[:, 0, 0, 0] > 0.8], noise[x[:, 0, 0, 0] < -0.8]):
        assert abs(some.std().item() / (2 * sigma) - 1) < 5 / math.sqrt(2 * some.numel())
    assert noise.square().mean(dim=1).std() < 2 * (2 * sigma) ** 2 * math.sqrt(2 / 64)  # as much in each image
    correlation = torch.corrcoef(noise.T) - torch.eye(64)
    assert correlation.abs().max() < 6 / math.sqrt(400)


def test_the_noise_of_noisy_images_is_a_function_of_seed_and_step(clean: InMemory) -> None:
    def noise(seed: int, step: int) -> Tensor:
        return Noisy(clean, 0.5).draw(40, seed=seed, step=step).samples - clean.draw(40, seed=seed, step=step).samples

    drawn = [noise(seed, step) for seed in (0, 1) for step in (0, 1, 10)]  # step 10: the next epoch
    torch.manual_seed(99)
    assert torch.equal(noise(1, 1), drawn[4])
    correlation = torch.corrcoef(torch.stack(drawn).flatten(1)) - torch.eye(6)
    assert correlation.abs().max() < 5 / math.sqrt(drawn[0].numel())


def test_noisy_images_of_no_noise_are_the_clean_ones(clean: InMemory) -> None:
    noisy = Noisy(clean, 0.0)
    assert torch.equal(noisy.draw(70, seed=1, step=5).samples, clean.draw(70, seed=1, step=5).samples)
    assert (noisy.shape, noisy.size, noisy.num_classes) == (clean.shape, clean.size, clean.num_classes)


# --- augmented images ---------------------------------------------------------------------------------------


@pytest.fixture
def leaning() -> InMemory:
    """400 images, gray on the left and white on the right: image i has the label i mod 10."""
    images = torch.full((400, 1, 4, 4), 255, dtype=torch.uint8)
    images[..., 0] = torch.linspace(0, 254, 400).round().to(torch.uint8)[:, None, None]
    return InMemory(images, torch.arange(400) % 10, num_classes=10, device=CPU)


def test_half_of_the_images_are_mirrored_and_all_stay_who_they_are(leaning: InMemory) -> None:
    plain, drawn = (sampler.draw(400, seed=3, step=2) for sampler in (leaning, Augmented(leaning, MIRRORED)))
    turned = (drawn.samples[:, 0, 0, 0] == 1) & (plain.samples[:, 0, 0, 0] < 1)
    assert abs(turned.float().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(400)
    assert torch.equal(drawn.samples[turned], plain.samples[turned].flip(3))
    assert torch.equal(drawn.samples[~turned], plain.samples[~turned])
    assert torch.equal(drawn.labels, plain.labels)
    again = [Augmented(leaning, MIRRORED).draw(400, seed=3, step=step).samples for step in (2, 2, 4)]
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])


def test_which_images_are_mirrored_is_another_thing_at_each_step_and_seed(leaning: InMemory) -> None:
    drawn = [Augmented(leaning, MIRRORED).draw(400, seed=s, step=step).samples for s in (0, 1) for step in (0, 1)]
    turned = torch.stack([samples[:, 0, 0, 0] == 1 for samples in drawn]).float()
    assert (torch.corrcoef(turned) - torch.eye(4)).abs().max() < 5 / math.sqrt(400)


def test_images_asked_for_by_label_are_mirrored_too(leaning: InMemory) -> None:
    labels = torch.arange(100) % 10
    plain, drawn = (s.sample_by_label(labels, seed=3, step=2) for s in (leaning, Augmented(leaning, MIRRORED)))
    turned = (drawn.samples != plain.samples).flatten(1).any(dim=1)
    assert 20 < turned.sum() < 80 and torch.equal(drawn.labels, labels)
    assert torch.equal(drawn.samples[turned], plain.samples[turned].flip(3))


def test_given_pairs_are_changed_alike(leaning: InMemory) -> None:
    x0, x1 = given(Augmented(leaning, ALL), Augmented(leaning, ALL), 40, seed=0, step=3)
    assert torch.equal(x0.samples, x1.samples)
