"""Samplers made of another sampler: with noise, with augmentation."""

import torch
from torch import Tensor

from flowferry.configs.components import AugmentConfig
from flowferry.datasets.augmentation import augment
from flowferry.datasets.base import Batch, Labeled, Sampler
from flowferry.datasets.rng import generator


class Noisy:
    """Another sampler's images in the same order plus Gaussian noise, z = x + σ·ε, not clipped to [-1, 1].

    sigma: σ where black is 0 and white is 1, which is twice as much in [-1, 1].
    """

    def __init__(self, clean: Sampler, sigma: float) -> None:
        self.clean, self.sigma = clean, sigma
        self.shape, self.num_classes, self.size = clean.shape, clean.num_classes, clean.size

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` samples, of the stream that `seed` names."""
        x, labels = self.clean.draw(count, seed=seed, step=step)
        g = generator(x.device, seed, "noisy", step)
        return Batch(x + 2 * self.sigma * torch.randn(x.shape, generator=g, device=x.device), labels)


class Augmented:
    """Another sampler's images in the same order, each changed at random; partners of one seed and step alike."""

    def __init__(self, plain: Labeled, options: AugmentConfig) -> None:
        self.plain, self.options = plain, options
        self.shape, self.num_classes, self.size = plain.shape, plain.num_classes, plain.size

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` samples, of the stream that `seed` names."""
        return self.change(self.plain.draw(count, seed=seed, step=step), seed=seed, step=step)

    def sample_by_label(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Return a random sample of each of the labels int64 [B]. Raises UserError for a label without samples."""
        return self.change(self.plain.sample_by_label(labels, seed=seed, step=step), seed=seed, step=step)

    def change(self, batch: Batch, *, seed: int, step: int) -> Batch:
        """Return images changed at random; those of the same place in batches of one seed and step alike."""
        g = generator(batch.samples.device, seed, "augment", step)
        return Batch(augment(batch.samples, self.options, g), batch.labels)
