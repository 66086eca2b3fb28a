"""From a sampler's configuration to the sampler."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import torch
import torchvision

from configs.schema import SamplerConfig, UserError
from datasets.drawn import draw_digits, draw_garments
from datasets.sampler import InMemory, Sampler
from datasets.toys import Gaussian, GaussianRing, Moons

Split = Literal["train", "test"]


def torchvision_images(dataset: Any, data_root: Path, split: Split, device: torch.device) -> InMemory:
    """One of torchvision's 28×28 grey data sets, downloaded into `data_root` if it is not there."""
    name = dataset.__name__
    try:
        data = dataset(data_root, train=split == "train", download=True)
    except (RuntimeError, URLError, OSError) as error:
        raise UserError(
            f"no {name} in {Path(data_root, name).absolute()} and it could not be downloaded ({error}); "
            f"name the folder that holds {name}/raw with --data-root, or try --quick, which draws its own data"
        ) from error
    return InMemory(data.data[:, None], data.targets, classes=10, device=device)


def drawn_images(draw: Callable, count: int, split: Split, device: torch.device) -> InMemory:
    images, labels = draw(count, seed={"train": 0, "test": 1}[split])
    return InMemory(images[:, None], labels, classes=10, device=device)


# Each builder takes (configuration, shape of a sample, folder of the data, split, device).
SAMPLERS: dict[str, Callable[[Any, tuple[int, ...], Path, Split, torch.device], Sampler]] = {
    "gaussian": lambda c, shape, root, split, device: Gaussian(c, shape, device),
    "gaussian-ring": lambda c, shape, root, split, device: GaussianRing(c, device),
    "moons": lambda c, shape, root, split, device: Moons(c, device),
    "mnist": lambda c, shape, root, split, device: torchvision_images(torchvision.datasets.MNIST, root, split, device),
    "fashion-mnist": lambda c, shape, root, split, device: torchvision_images(
        torchvision.datasets.FashionMNIST, root, split, device
    ),
    "drawn-digits": lambda c, shape, root, split, device: drawn_images(draw_digits, c.count, split, device),
    "drawn-garments": lambda c, shape, root, split, device: drawn_images(draw_garments, c.count, split, device),
}


def build_sampler(
    config: SamplerConfig, shape: tuple[int, ...], *, data_root: Path, split: Split, device: torch.device
) -> Sampler:
    """The sampler that `config` describes. Raises UserError if the data is not there or not of `shape`."""
    sampler = SAMPLERS[config.kind](config, shape, data_root, split, device)
    if tuple(sampler.shape) != tuple(shape):
        raise UserError(f"{config.kind} gives samples of shape {sampler.shape}, the pipeline's shape is {shape}")
    return sampler
