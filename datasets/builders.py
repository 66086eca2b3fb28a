"""Build the source and target of a configuration."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.configs.components import ImageFolderConfig, SamplerConfig, augmentation_of
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.bad_files import CollectedBadFiles
from flowferry.datasets.base import Labeled, Sampler
from flowferry.datasets.classes import check_same_classes
from flowferry.datasets.downloads import DOWNLOADS, Download, downloaded
from flowferry.datasets.image_folder import image_folder, unreadable_images
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.pairs import check_same_sizes, common_names
from flowferry.datasets.synthetic import draw_colors, draw_digits, draw_garments
from flowferry.datasets.toy import Gaussian, GaussianRing, Moons
from flowferry.datasets.wrappers import Augmented, Noisy

log = logging.getLogger("flowferry")

Split = Literal["train", "test"]


class Request(NamedTuple):
    """What a builder is given beside a sampler's own configuration."""

    shape: tuple[int, ...]
    data_root: Path
    split: Split
    device: torch.device
    only: frozenset[str] | None = None
    """Of image folders: the `Member.pair_name` of the images that have a partner; None: all images."""
    skipped: frozenset[str] | None = None
    """Of image folders: the relative paths of the images to leave out; None: those that cannot be read, if it skips."""


Builder = Callable[[Any, Request], Sampler]


def from_download(data_set: Download, config: SamplerConfig, request: Request) -> InMemory:
    """Build a data set of torchvision's."""
    train = request.split == "train"
    return downloaded(data_set, data_root=request.data_root, train=train, device=request.device)


def from_drawing(draw: Callable[[int, int], tuple[Tensor, Tensor]], config: Any, request: Request) -> InMemory:
    """Build synthetic data of ten classes; colors come at any size."""
    images, labels = draw(config.count, {"train": 0, "test": 1}[request.split])
    images = images if images.ndim == 4 else images[:, None]
    if images.shape[1] == 3 and len(request.shape) == 3:
        images = F.interpolate(images, size=request.shape[1:])
    return InMemory(images, labels, num_classes=10, device=request.device)


SAMPLERS: dict[str, Builder] = {
    "gaussian": lambda config, request: Gaussian(config, request.shape, request.device),
    "gaussian-ring": lambda config, request: GaussianRing(config, request.device),
    "moons": lambda config, request: Moons(config, request.device),
    "synthetic-digits": partial(from_drawing, draw_digits),
    "synthetic-garments": partial(from_drawing, draw_garments),
    "synthetic-colors": partial(from_drawing, draw_colors),
    "image-folder": lambda c, r: image_folder(c, r.shape, r.split, r.device, r.only, r.skipped),
    **{kind: partial(from_download, data_set) for kind, data_set in DOWNLOADS.items()},
}


FROM_TARGET: dict[str, Callable[[Any, Sampler], Sampler]] = {
    "noisy": lambda config, target: Noisy(target, config.sigma),
}


def build_sampler(
    config: SamplerConfig,
    shape: tuple[int, ...],
    *,
    data_root: Path,
    split: Split,
    device: torch.device,
    only: frozenset[str] | None = None,
    skipped: frozenset[str] | None = None,
) -> Sampler:
    """Return the sampler that `config` describes.

    only, skipped: of an image folder, as `Request` has them. Raises UserError if the data is missing or its samples are
    not of `shape`.
    """
    if config.from_target:
        raise UserError(f"{config.kind}: got a target, expected a source, because it is made of the target's images")
    sampler = SAMPLERS[config.kind](config, Request(tuple(shape), Path(data_root), split, device, only, skipped))
    if tuple(sampler.shape) != tuple(shape):
        raise UserError(f"{config.kind}: got samples of shape {sampler.shape}, expected the pipeline's {shape}")
    if split == "train" and (augment := augmentation_of(config)).changes:
        assert isinstance(sampler, Labeled), "those that can be augmented can be asked for labels"
        return Augmented(sampler, augment)
    return sampler


def build_source(
    config: Config,
    *,
    data_root: Path,
    split: Split,
    device: torch.device,
    target: Sampler | None = None,
    only: frozenset[str] | None = None,
    skipped: frozenset[str] | None = None,
) -> Sampler:
    """Return a pipeline's source. target: already built, for a source that is made of it."""
    where: Any = {"data_root": data_root, "split": split, "device": device}
    if config.source.from_target:
        clean = target or build_sampler(config.target, config.shape, **where)
        return FROM_TARGET[config.source.kind](config.source, clean)
    return build_sampler(config.source, config.shape, **where, only=only, skipped=skipped)


class Usable(NamedTuple):
    """Which images of a pipeline's folders to take."""

    pairs: frozenset[str] | None
    """The `Member.pair_name` of the images that are whole pairs; None: not two paired folders."""
    bad_sources: frozenset[str]
    """The relative paths of the images that cannot be read and are skipped."""
    bad_targets: frozenset[str]
    """Likewise."""


def usable_images(config: Config) -> Usable:
    """Return which images of a pipeline's folders have a partner, if it is paired, and can be read, if it skips.

    Raises UserError where there are no pairs, or images without a partner that are not allowed.
    """
    check_same_classes(config)
    pairs = paired_names(config) if config.is_paired else None
    folders = [side if isinstance(side, ImageFolderConfig) else None for side in (config.source, config.target)]
    bad = [unreadable_images(side, config.shape, pairs) if side else [] for side in folders]
    broken = frozenset(one.pair_name for some in bad for one in some)
    if pairs and broken:
        message = "coupling given: left out %d of %d pairs, of which an image cannot be read"
        log.warning(message, len(broken), len(pairs))
        pairs -= broken
    if pairs:
        check_same_sizes(config, pairs)
    return Usable(pairs, *(frozenset(one.path for one in some) for some in bad))


def build_samplers(
    config: Config, *, data_root: Path, split: Split, device: torch.device, usable: Usable | None = None
) -> tuple[Sampler, Sampler]:
    """Return a pipeline's source and target in one split, as `build_splits` does."""
    (pair,) = build_splits(config, data_root=data_root, splits=(split,), device=device, usable=usable)
    return pair


def build_splits(
    config: Config, *, data_root: Path, splits: Sequence[Split], device: torch.device, usable: Usable | None = None
) -> list[tuple[Sampler, Sampler]]:
    """Return a pipeline's source and target in each of the splits.

    usable: which images of folders to take; None: those of `usable_images`. Raises UserError as `build_sampler` does,
    and where the two do not go together; BadFiles names the bad files of both sides and all splits.
    """
    usable = usable or usable_images(config)
    bad = CollectedBadFiles()
    where: Any = {"data_root": data_root, "device": device}
    built = [build_pair(config, usable, bad, split=split, **where) for split in splits]
    bad.raise_all()
    pairs = [pair for pair in built if pair is not None]
    for source, target in pairs:
        check_pair(config, source, target)
    return pairs


def build_pair(config: Config, usable: Usable, bad: CollectedBadFiles, **where: Any) -> tuple[Sampler, Sampler] | None:
    """Return source and target in one split; None where `bad` caught what is wrong with their files."""
    source = target = None
    with bad:
        target = build_sampler(config.target, config.shape, **where, only=usable.pairs, skipped=usable.bad_targets)
    if target is not None or not config.source.from_target:
        with bad:
            which: Any = {"only": usable.pairs, "skipped": usable.bad_sources}
            source = build_source(config, **where, **which, target=target)
    return None if source is None or target is None else (source, target)


def check_pair(config: Config, source: Sampler, target: Sampler) -> None:
    """Raise UserError where a pipeline's source and target do not go together."""
    if config.num_classes and target.num_classes != config.num_classes:
        raise UserError(f"{config.target.kind}: got {target.num_classes} classes, expected {config.num_classes}")
    if config.infer_labels and source.num_classes != config.num_classes:
        raise UserError(
            f"infer_labels: got {source.num_classes} classes of {config.source.kind}, expected as many as the "
            f"pipeline's {config.num_classes}"
        )
    if config.is_paired and source.size != target.size:
        sizes = source.size or "endless", target.size or "endless"
        raise UserError(
            f"coupling given: got {sizes[0]} samples of {config.source.kind} and {sizes[1]} of {config.target.kind}, "
            "expected as many of both"
        )


def paired_names(config: Config) -> frozenset[str] | None:
    """Return the names that two image folders share; None where source and target are not both folders."""
    if isinstance(config.source, ImageFolderConfig) and isinstance(config.target, ImageFolderConfig):
        return common_names(config.source, config.target, allow_unmatched=config.allow_unmatched)
    return None
