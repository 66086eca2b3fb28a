"""Small data in which each sample shows which one it is, for the tests of data sets, couplings and batches."""

from pathlib import Path

import torch
from torch import Tensor

from flowferry.configs.components import SamplerConfig
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_sampler
from flowferry.datasets.couplings import COUPLINGS, Pairing
from flowferry.datasets.in_memory import InMemory

CPU = torch.device("cpu")
IMAGE, COLOR = (1, 28, 28), (3, 32, 32)


def build(config: SamplerConfig, data_root: Path, shape: tuple[int, ...] = IMAGE, split: str = "train") -> InMemory:
    """Return a sampler of images, on the CPU."""
    return build_sampler(config, shape, data_root=data_root, split=split, device=CPU)


def labeled_images(count: int, classes: int, *, shuffle: int) -> InMemory:
    """Return 1×2×2 images whose first pixel is the label and whose second and third are the image's number."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(shuffle))
    labels = order % classes
    images = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1], images[:, 0, 1, 0] = labels, order % 256, order // 256
    return InMemory(images, labels, num_classes=classes, device=CPU)


def bytes_of(samples: Tensor) -> Tensor:
    """Return samples in [-1, 1] as whole numbers 0 … 255."""
    return ((samples + 1) * 127.5).round().long()


def label_in(samples: Tensor) -> Tensor:
    """Return the label that each of `labeled_images` shows."""
    return bytes_of(samples)[:, 0, 0, 0]


def paired(name: str, source: Sampler, target: Sampler, count: int = 60, *, seed: int = 1, step: int = 2) -> Pairing:
    """Return the pairs that the coupling called `name` draws."""
    return COUPLINGS[name](source, target, count, seed, step)
