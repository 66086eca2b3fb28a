"""Endless samplers in closed form: Gaussian noise of any shape, and distributions of points in the plane."""

import math
from typing import Protocol

import torch
from torch import Tensor

from flowferry.configs.components import GaussianConfig, GaussianRingConfig, MoonsConfig
from flowferry.datasets.base import Batch, Sampler
from flowferry.datasets.rng import generator


class Toy(Sampler, Protocol):
    """A sampler whose variance is known in closed form."""

    @property
    def variance(self) -> float:
        """The variance of one coordinate, averaged over the coordinates; ≥ 0."""
        ...


class Gaussian:
    """Samples x ~ N(mean, std² I) of any shape, without labels."""

    num_classes, size = 0, None

    def __init__(self, config: GaussianConfig, shape: tuple[int, ...], device: torch.device) -> None:
        self.config, self.shape, self.device = config, shape, device
        self.variance = config.std**2

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return samples float32 [count, *shape]."""
        g = generator(self.device, seed, "gaussian", step)
        noise = torch.randn(count, *self.shape, generator=g, device=self.device)
        return Batch(self.config.mean + self.config.std * noise, None)


class GaussianRing:
    """Points radius·(cos 2πk/K, sin 2πk/K) + std·ε, ε ~ N(0, I), with the label k uniform in 0 … K−1."""

    shape, size = (2,), None

    def __init__(self, config: GaussianRingConfig, device: torch.device) -> None:
        self.config, self.num_classes, self.device = config, config.modes, device
        self.variance = (config.radius**2 / 2 if config.modes > 1 else 0.0) + config.std**2

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return points float32 [count, 2] and labels int64 [count] in 0 … K−1."""
        g = generator(self.device, seed, "gaussian-ring", step)
        labels = torch.randint(self.num_classes, (count,), generator=g, device=self.device)
        noise = torch.randn(count, 2, generator=g, device=self.device)
        means = self.config.radius * unit_circle(labels * math.tau / self.num_classes)
        return Batch(means + self.config.std * noise, labels)


class Moons:
    """Points on two half circles of radius 1, plus noise·ε, ε ~ N(0, I).

    The upper half of the circle around (0, 0) has label 0, the lower half of the circle around (1, ½) label 1.
    """

    shape, num_classes, size = (2,), 2, None

    def __init__(self, config: MoonsConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        # The angle is uniform in (0, π): its cosine has mean 0, its sine 2/π, the square of either ½. So x has second
        # moment ¾ around its mean ½; y has mean ¼ and second moment (½ + ¾ − 2/π)/2 around 0.
        self.variance = (3 / 4 + (5 / 4 - 2 / math.pi) / 2 - 1 / 16) / 2 + config.noise**2

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return points float32 [count, 2] and labels int64 [count], 0 or 1."""
        g = generator(self.device, seed, "moons", step)
        labels = torch.randint(2, (count,), generator=g, device=self.device)
        arc = unit_circle(math.pi * torch.rand(count, generator=g, device=self.device))
        noise = torch.randn(count, 2, generator=g, device=self.device)
        lower = torch.tensor([1.0, 0.5], device=self.device) - arc
        return Batch(torch.where(labels[:, None] == 0, arc, lower) + self.config.noise * noise, labels)


def unit_circle(angles: Tensor) -> Tensor:
    """Return the points [B, 2] at `angles` [B], in radians, on the unit circle."""
    return torch.stack([angles.cos(), angles.sin()], dim=1)
