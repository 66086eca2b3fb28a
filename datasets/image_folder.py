"""Samplers of image folders: images are kept as uint8 if they fit in memory, otherwise decoded when needed."""

from collections.abc import Iterable
from pathlib import Path

import torch

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.file_tree import Tree
from flowferry.datasets.image_io import check_background
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.rng import derive_seed
from flowferry.datasets.streaming import MAX_LISTED, ImageFiles, Streamed, load_all

HELD_OUT = 10  # one image in this many is held out of training, for the split "test"


def image_folder(
    config: ImageFolderConfig,
    shape: tuple[int, ...],
    split: str,
    device: torch.device,
    only: frozenset[str] | None = None,
) -> Sampler:
    """Return a sampler of the images of a folder and its sub-folders, of `shape` (C, H, W), C = 1 or 3.

    The sub-folders at the first level are the classes, in alphabetical order, if every image lies in one; otherwise the
    images are unlabeled.

    split: "train", or "test" for the tenth of the images, at least one, that is held out; it is chosen by the stems
    (relative paths without endings) alone, and a single image is in both. only: the stems to keep; None: all.

    Raises UserError for a bad folder, shape or background, where there are no images, and where some cannot be read;
    a `Streamed` sampler finds those only when it draws them.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"image-folder: got the shape {shape}, expected (1 or 3, height, width)")
    check_background(config.background)
    names = list_images(config)
    classes = class_names(names)
    chosen = [stem for stem in names if only is None or stem in only]
    held_out = set(sorted(chosen, key=lambda stem: derive_seed("held out", stem))[: max(1, len(chosen) // HELD_OUT)])
    stems = [stem for stem in chosen if len(chosen) == 1 or (stem in held_out) == (split == "test")]
    if not stems:
        raise UserError(f"image-folder: got no images to {split} on in {config.root}, expected at least one")
    labels = torch.tensor([classes.index(stem.split("/")[0]) for stem in stems]) if classes else None
    channels, height, width = shape
    files = ImageFiles(config, [names[stem] for stem in stems], (channels, height, width))
    if len(stems) * channels * height * width <= config.cache_mb * 2**20:
        return InMemory(load_all(files), labels, num_classes=len(classes), device=device)
    return Streamed(files, labels, num_classes=len(classes), device=device)


def list_images(config: ImageFolderConfig) -> dict[str, str]:
    """Return the relative path of each image by its stem (the path without its ending), sorted by stem.

    Raises UserError where the folder, or one inside it, cannot be listed, or where two images have the same stem.
    """
    if not config.root:
        raise UserError("image-folder: got no folder, expected --source.root FOLDER or --target.root FOLDER")
    if not Path(config.root).is_dir():
        raise UserError(f"image-folder: got {config.root}, which is not a folder, expected a folder of images")
    names: dict[str, str] = {}
    for item in Tree(Path(config.root)).walk():
        if item.problem:
            raise UserError(f"{config.root}: {item.name}: {item.problem}")
        names[item.output.removesuffix(".png")] = item.name
    return dict(sorted(names.items()))


def class_names(stems: Iterable[str]) -> list[str]:
    """Return the names of the sub-folders at the first level, sorted, if every image lies in one; otherwise none."""
    parts = [stem.split("/") for stem in stems]
    return sorted({folder for folder, *_ in parts}) if all(len(part) > 1 for part in parts) else []


def common_stems(source: ImageFolderConfig, target: ImageFolderConfig, *, allow_unmatched: bool) -> frozenset[str]:
    """Return the stems that the images of both folders have.

    Raises UserError where there are none, or, unless `allow_unmatched`, naming images without a partner.
    """
    stems = [list_images(config).keys() for config in (source, target)]
    both = stems[0] & stems[1]
    alone = [
        f"{len(own - both)} only in {c.root} ({shortened(own - both)})"
        for c, own in zip((source, target), stems, strict=True)
        if own - both
    ]
    if not both or (alone and not allow_unmatched):
        raise UserError(
            f"coupling given: got {'; '.join([f'{len(both)} pairs by relative name', *alone])}, "
            "expected a partner for each, or --allow-unmatched, which leaves those without one out"
        )
    return frozenset(both)


def shortened(stems: set[str]) -> str:
    """Return the first few stems in alphabetical order, as text."""
    return ", ".join(sorted(stems)[:MAX_LISTED]) + (", …" if len(stems) > MAX_LISTED else "")
