"""Endless streams: Gaussian noise in any shape, and distributions in the plane."""

import math
from typing import Protocol

import torch
from torch import Tensor

from configs.parts import GaussianConfig, GaussianRingConfig, MoonsConfig
from datasets.keyed import generator
from datasets.sampler import Batch, Sampler


class Toy(Sampler, Protocol):
    """A sampler whose variance is known in closed form."""

    @property
    def variance(self) -> float:
        """Of one coordinate, as the mean over the coordinates."""
        ...


class Gaussian:
    """x ~ N(mean, std² I) of any shape."""

    classes, size = 0, None

    def __init__(self, config: GaussianConfig, shape: tuple[int, ...], device: torch.device) -> None:
        self.config, self.shape, self.device = config, shape, device
        self.variance = config.std**2

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        g = generator(self.device, seed, "gaussian", step)
        noise = torch.randn(count, *self.shape, generator=g, device=self.device)
        return Batch(self.config.mean + self.config.std * noise, None)


class GaussianRing:
    """x = radius·(cos 2πk/K, sin 2πk/K) + std·ε with k uniform in 0 … K−1, which is the label."""

    shape, size = (2,), None

    def __init__(self, config: GaussianRingConfig, device: torch.device) -> None:
        self.config, self.classes, self.device = config, config.modes, device
        self.variance = (config.radius**2 / 2 if config.modes > 1 else 0.0) + config.std**2

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        g = generator(self.device, seed, "gaussian-ring", step)
        labels = torch.randint(self.classes, (count,), generator=g, device=self.device)
        noise = torch.randn(count, 2, generator=g, device=self.device)
        return Batch(self.config.radius * circle(labels * math.tau / self.classes) + self.config.std * noise, labels)


class Moons:
    """Two half circles of radius 1: the upper about (0, 0), label 0, the lower about (1, ½), label 1, plus noise·ε."""

    shape, classes, size = (2,), 2, None

    def __init__(self, config: MoonsConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        # Of the angle, uniform in (0, π), the cosine has mean 0 and the sine 2/π, the square of either ½. The two
        # moons' x have second moment ¾ about ½, and y has ½·(½ + ¾ − 2/π) about 0 and mean ¼.
        self.variance = (3 / 4 + (5 / 4 - 2 / math.pi) / 2 - 1 / 16) / 2 + config.noise**2

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        g = generator(self.device, seed, "moons", step)
        labels = torch.randint(2, (count,), generator=g, device=self.device)
        arc = circle(math.pi * torch.rand(count, generator=g, device=self.device))
        noise = torch.randn(count, 2, generator=g, device=self.device)
        lower = torch.tensor([1.0, 0.5], device=self.device) - arc
        return Batch(torch.where(labels[:, None] == 0, arc, lower) + self.config.noise * noise, labels)


def circle(angle: Tensor) -> Tensor:
    """[B] in radians -> [B, 2] on the unit circle."""
    return torch.stack([angle.cos(), angle.sin()], dim=1)
