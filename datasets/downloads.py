"""Data sets that torchvision downloads: one row each."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.in_memory import InMemory


class Download(NamedTuple):
    """A data set of torchvision's, downloaded into the data root if it is not there."""

    name: str
    files: str
    """What the data root then holds."""
    num_classes: int
    load: Callable[[Path, bool], tuple[Any, Any]]
    """(data root, whether the training split) -> (images uint8 [N, C, H, W], labels [N])."""


def of_torchvision(name: str) -> Any:
    """Return one of torchvision's data sets. To import it takes longer than torch, and most commands need none."""
    from torchvision import datasets

    return getattr(datasets, name)


def mnist_like(name: str) -> Callable[[Path, bool], tuple[Tensor, Tensor]]:
    """Return the loader of a data set that torchvision holds like MNIST: gray images and their labels."""

    def load(root: Path, train: bool) -> tuple[Tensor, Tensor]:
        data = of_torchvision(name)(root, train=train, download=True)
        return data.data[:, None], data.targets

    return load


def load_cifar10(root: Path, train: bool) -> tuple[Any, Any]:
    """Load CIFAR10's images and labels."""
    data = of_torchvision("CIFAR10")(root, train=train, download=True)
    return torch.as_tensor(data.data).movedim(-1, 1).contiguous(), data.targets


def load_svhn(root: Path, train: bool) -> tuple[Any, Any]:
    """Load the images and labels of the Street View House Numbers."""
    data = of_torchvision("SVHN")(root, split="train" if train else "test", download=True)
    return torch.as_tensor(data.data).contiguous(), data.labels


DOWNLOADS: dict[str, Download] = {
    "mnist": Download("MNIST", "MNIST/raw", 10, mnist_like("MNIST")),
    "fashion-mnist": Download("FashionMNIST", "FashionMNIST/raw", 10, mnist_like("FashionMNIST")),
    "cifar10": Download("CIFAR10", "cifar-10-batches-py", 10, load_cifar10),
    "svhn": Download("SVHN", "train_32x32.mat and test_32x32.mat", 10, load_svhn),
}


def downloaded(data_set: Download, *, data_root: Path, train: bool, device: torch.device) -> InMemory:
    """Return the training or test split of a data set, downloaded if need be.

    Raises UserError where it cannot be downloaded, or where its files are damaged or may not be read.
    """
    name, files, num_classes, load = data_set
    root = data_root.absolute()
    try:
        images, labels = map(torch.as_tensor, load(root, train))
    except Exception as error:  # whatever a damaged file makes of a loader
        present = os.path.exists(root / files.split()[0])  # which, unlike pathlib's, raises nothing
        if not present or isinstance(error, URLError | ImportError) or "download" in str(error):
            raise UserError(
                f"no {name} in {root} and it could not be downloaded ({error}); "
                f"name the folder that holds {files} with --data-root, or try --quick, which draws its own data"
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(f"{name} in {root} cannot be read: {error}") from error
        raise UserError(
            f"{name} in {root} is damaged ({error!r}); delete {files} to have it downloaded again"
        ) from error
    if len(images) != len(labels) or not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"{name} in {root}: got {len(images)} images and {len(labels)} labels, expected as many of both, at "
            f"least one, and labels from 0 to {num_classes - 1}"
        )
    return InMemory(images, labels, num_classes=num_classes, device=device)
