"""The tasks of the benchmark of pairs: two folders each, in which equal names are pairs, and their held-out part."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torchvision.datasets import FashionMNIST

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.presets import PIPELINES
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_splits, usable_images
from flowferry.datasets.image_folder import split_members
from flowferry.datasets.pixels import to_images
from flowferry.pipelines.evaluation.metrics import nearest

EDGE = 0.8  # of the Sobel gradient where black and white are 1 apart: an edge is at least so steep
TWIN = 0.02  # mean squared error, black and white 2 apart (23 dB): pictures that are drawn nearly alike


class Task(NamedTuple):
    """Two folders, and what is compared on them unless something else is asked for."""

    folders: Callable[[Namespace], tuple[Path, Path]]
    """(source, target), made where they are not there yet."""
    shape: tuple[int, ...]
    entries: tuple[str, ...]


def emoji(source: str, target: str) -> Callable[[Namespace], tuple[Path, Path]]:
    return lambda options: (options.emoji / source, options.emoji / target)


def outlines(garment: np.ndarray) -> np.ndarray:
    """Return the edges of a garment, uint8 [28, 28]: white where it changes steeply, else black."""
    values = garment / 255.0
    steepness = np.hypot(ndimage.sobel(values, axis=0), ndimage.sobel(values, axis=1))
    return np.where(steepness > EDGE, 255, 0).astype(np.uint8)


def garments(options: Namespace) -> tuple[Path, Path]:
    """Write FashionMNIST's first training images and their edges as files, once."""
    folder = options.output / "edges2garments" / f"{options.garments} images"
    edges, targets = folder / "edges", folder / "garments"
    images = FashionMNIST(options.data_root, train=True).data[: options.garments].numpy()
    last = edges / f"{len(images) - 1:05d}.png"
    if not last.exists():
        for path in (edges, targets):
            path.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(targets / f"{index:05d}.png")
            Image.fromarray(outlines(image)).save(edges / f"{index:05d}.png")
    return edges, targets


PAIRED = ("copy", "l1", "pix2pix", "folders", "paired")
TASKS = {
    "line2colour": Task(emoji("line2colour/line", "line2colour/colour"), (3, 64, 64), PAIRED),
    "edges2garments": Task(garments, (1, 28, 28), PAIRED),
    "noto2twemoji": Task(
        emoji("noto2twemoji/noto", "noto2twemoji/twemoji"),
        (3, 64, 64),
        ("copy", "unpaired", "unpaired --coupling ot", "unpaired --coupling independent"),
    ),
}


class Data(NamedTuple):
    """The pairs of a task."""

    train: tuple[Sampler, Sampler]
    source: Tensor
    """Held-out images [N, C, H, W] in [-1, 1]."""
    truth: Tensor
    """Their partners."""
    names: list[str]
    """The relative paths of the held-out source images."""

    @property
    def train_targets(self) -> Tensor:
        """All target images to train on, in [-1, 1]."""
        return images_of(self.train[1])

    def evenly(self, count: int) -> "Data":
        """Return at most `count` held-out pairs, evenly spaced."""
        chosen = spaced(len(self.names), count)
        return Data(self.train, self.source[chosen], self.truth[chosen], [self.names[index] for index in chosen])

    def twins(self) -> int:
        """Return how many held-out targets are nearly alike to some target that is trained on."""
        distances, _ = nearest(self.truth, self.train_targets)
        return int((distances.square() / self.truth[0].numel() < TWIN).sum())


def spaced(size: int, count: int) -> list[int]:
    """Return `count` indices below `size`, evenly spaced from the first to the last, or all where there are fewer."""
    return torch.linspace(0, size - 1, min(size, count)).round().int().tolist()


def images_of(sampler: Sampler) -> Tensor:
    return to_images(sampler.images).cpu()  # type: ignore[attr-defined]


def load(source: Path, target: Path, shape: tuple[int, ...], data_root: Path) -> Data:
    """Load the pairs of two folders, split as the project splits them."""
    folders: dict[str, Any] = {
        "source": ImageFolderConfig(root=str(source)),
        "target": ImageFolderConfig(root=str(target)),
    }
    config = replace(PIPELINES["paired"], **folders, shape=shape)
    usable = usable_images(config)
    where: Any = {"data_root": data_root, "device": torch.device("cpu"), "usable": usable}
    train, test = build_splits(config, splits=("train", "test"), **where)
    images, _ = split_members(folders["source"], "test", usable.pairs, usable.bad_sources)
    return Data(train, images_of(test[0]), images_of(test[1]), [one.path for one in images])
