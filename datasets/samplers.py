"""From a sampler's configuration to the sampler."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.error import URLError

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from configs.checks import UserError
from configs.parts import AugmentConfig, ImageFolderConfig, NoisyConfig, SamplerConfig
from configs.schema import Config, augment_of
from datasets.drawn import draw_colours, draw_digits, draw_garments
from datasets.folders import image_folder, partners
from datasets.sampler import Augmented, InMemory, Labelled, Noisy, Sampler
from datasets.toys import Gaussian, GaussianRing, Moons

Split = Literal["train", "test"]


class Place(NamedTuple):
    """What the builders are given beside a sampler's own configuration."""

    shape: tuple[int, ...]
    data_root: Path
    split: Split
    device: torch.device
    only: frozenset[str] | None = None
    """Of image folders: the stems of the images that have a partner."""


def published(name: str, where: str, load: Callable[[Path, bool], tuple[Any, Any]], place: Place) -> InMemory:
    """A data set that torchvision downloads into the data root if it is not there.

    load(data root, training split) -> (images [N, …] uint8, labels [N]); where: what the data root then holds.
    """
    root = Path(place.data_root).absolute()
    try:
        images, labels = map(torch.as_tensor, load(root, place.split == "train"))
    except Exception as error:  # whatever a damaged file makes of a loader
        there = os.path.exists(root / where.split()[0])  # which, unlike pathlib's, raises nothing
        if not there or isinstance(error, URLError | ImportError) or "download" in str(error):
            raise UserError(
                f"no {name} in {root} and it could not be downloaded ({error}); "
                f"name the folder that holds {where} with --data-root, or try --quick, which draws its own data"
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(f"{name} in {root} cannot be read: {error}") from error
        raise UserError(
            f"{name} in {root} is damaged ({error!r}); delete {where} to have it downloaded again"
        ) from error
    if len(images) != len(labels) or not len(labels) or labels.min() < 0 or labels.max() >= 10:
        raise UserError(
            f"{name} in {root}: found {len(images)} images and {len(labels)} labels, accepted are as many of both, at "
            "least one, the labels from 0 to 9"
        )
    return InMemory(images, labels, classes=10, device=place.device)


def load_mnist_like(name: str) -> Callable[[Path, bool], tuple[Tensor, Tensor]]:
    def load(root: Path, train: bool) -> tuple[Tensor, Tensor]:
        data = getattr(torchvision.datasets, name)(root, train=train, download=True)
        return data.data[:, None], data.targets

    return load


def load_cifar10(root: Path, train: bool) -> tuple[Any, Any]:
    data = torchvision.datasets.CIFAR10(root, train=train, download=True)
    return torch.as_tensor(data.data).movedim(-1, 1).contiguous(), data.targets


def load_svhn(root: Path, train: bool) -> tuple[Any, Any]:
    data = torchvision.datasets.SVHN(root, split="train" if train else "test", download=True)
    return torch.as_tensor(data.data).contiguous(), data.labels


def drawn(draw: Callable[[int, int], tuple[Tensor, Tensor]], count: int, place: Place) -> InMemory:
    images, labels = draw(count, {"train": 0, "test": 1}[place.split])
    images = images if images.ndim == 4 else images[:, None]
    if images.shape[1] == 3 and len(place.shape) == 3:  # the colours stand in for pictures of any size
        images = F.interpolate(images, size=place.shape[1:])
    return InMemory(images, labels, classes=10, device=place.device)


SAMPLERS: dict[str, Callable[[Any, Place], Sampler]] = {
    "gaussian": lambda c, place: Gaussian(c, place.shape, place.device),
    "gaussian-ring": lambda c, place: GaussianRing(c, place.device),
    "moons": lambda c, place: Moons(c, place.device),
    "mnist": lambda c, place: published("MNIST", "MNIST/raw", load_mnist_like("MNIST"), place),
    "fashion-mnist": lambda c, place: published(
        "FashionMNIST", "FashionMNIST/raw", load_mnist_like("FashionMNIST"), place
    ),
    "cifar10": lambda c, place: published("CIFAR10", "cifar-10-batches-py", load_cifar10, place),
    "svhn": lambda c, place: published("SVHN", "train_32x32.mat and test_32x32.mat", load_svhn, place),
    "drawn-digits": lambda c, place: drawn(draw_digits, c.count, place),
    "drawn-garments": lambda c, place: drawn(draw_garments, c.count, place),
    "drawn-colours": lambda c, place: drawn(draw_colours, c.count, place),
    "image-folder": lambda c, place: image_folder(c, place.shape, place.split, place.device, place.only),
}


def build_sampler(
    config: SamplerConfig,
    shape: tuple[int, ...],
    *,
    data_root: Path,
    split: Split,
    device: torch.device,
    only: frozenset[str] | None = None,
) -> Sampler:
    """The sampler that `config` describes. Raises UserError if the data is not there or not of `shape`.

    only: of an image folder, the relative paths without endings that it is left at.
    """
    if isinstance(config, NoisyConfig):
        raise UserError("noisy: found as a target, accepted is as a source: it is made of the target's images")
    sampler = SAMPLERS[config.kind](config, Place(tuple(shape), Path(data_root), split, device, only))
    if tuple(sampler.shape) != tuple(shape):
        raise UserError(f"{config.kind} gives samples of shape {sampler.shape}, the pipeline's shape is {shape}")
    if split == "train" and (how := augment_of(config)) != AugmentConfig():
        assert isinstance(sampler, Labelled), "those that can be augmented can be asked for labels"
        return Augmented(sampler, how)
    return sampler


def build_source(
    config: Config,
    *,
    data_root: Path,
    split: Split,
    device: torch.device,
    target: Sampler | None = None,
    only: frozenset[str] | None = None,
) -> Sampler:
    """A pipeline's source. target: saves it from loading that again, where the source is made of it."""
    place: Any = {"data_root": data_root, "split": split, "device": device}
    if isinstance(config.source, NoisyConfig):
        return Noisy(target or build_sampler(config.target, config.shape, **place), config.source.sigma)
    return build_sampler(config.source, config.shape, **place, only=only)


def build_samplers(config: Config, *, data_root: Path, split: Split, device: torch.device) -> tuple[Sampler, Sampler]:
    """A pipeline's source and target. Raises UserError as `build_sampler` does, and where they do not go together."""
    place: Any = {"data_root": data_root, "split": split, "device": device, "only": common_stems(config)}
    target = build_sampler(config.target, config.shape, **place)
    source = build_source(config, **place, target=target)
    if config.classes and target.classes != config.classes:
        raise UserError(f"{config.target.kind} has {target.classes} classes, the pipeline has {config.classes}")
    if config.read_labels and source.classes != config.classes:
        raise UserError(
            f"read_labels: {config.source.kind} has {source.classes} classes, accepted are as many as the pipeline's "
            f"{config.classes}"
        )
    if config.coupling == "given" and source.size != target.size:
        raise UserError(
            f"coupling given: found {source.size} samples of {config.source.kind} and {target.size} of "
            f"{config.target.kind}, accepted are as many of both"
        )
    return source, target


def common_stems(config: Config) -> frozenset[str] | None:
    """Of two folders whose images come in pairs: what both have."""
    source, target = config.source, config.target
    if config.coupling != "given" or not (
        isinstance(source, ImageFolderConfig) and isinstance(target, ImageFolderConfig)
    ):
        return None
    return partners(source, target, allow_unmatched=config.allow_unmatched)
