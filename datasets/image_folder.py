"""Samplers of image folders: images are kept as uint8 if they fit in memory, otherwise decoded when needed."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.bad_files import MAX_LISTED, tell
from flowferry.datasets.base import Sampler
from flowferry.datasets.file_checks import check_headers, decode_all
from flowferry.datasets.file_tree import Tree
from flowferry.datasets.held_out import hold_out
from flowferry.datasets.image_io import check_background
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.streaming import ImageFiles, Streamed, load_all

log = logging.getLogger("flowferry")


def image_folder(
    config: ImageFolderConfig,
    shape: tuple[int, ...],
    split: str,
    device: torch.device,
    only: frozenset[str] | None = None,
    skipped: frozenset[str] | None = None,
) -> Sampler:
    """Return a sampler of the images of a folder and its sub-folders, of `shape` (C, H, W), C = 1 or 3.

    The sub-folders at the first level are the classes, in alphabetical order, if every image lies in one; otherwise the
    images are unlabeled.

    split: "train", or "test" for the images that `hold_out` chooses; both are all images where it chooses none. only:
    the stems (relative paths without endings) to keep; None: all. skipped: the relative paths to leave out; None: those
    that the configuration leaves out.

    Raises UserError for a bad folder, shape or background, where there are no images, and BadFiles where some cannot be
    read; a `Streamed` sampler finds what is damaged behind its header only when it draws it.
    """
    channels, height, width = image_shape(shape)
    check_background(config.background)
    skipped = unreadable_images(config, shape, only) if skipped is None else skipped
    names, classes = split_names(config, split, only, skipped)
    if not names:
        raise UserError(f"image-folder: got no images to {split} on in {config.root}, expected at least one")
    labels = torch.tensor([classes.index(name.split("/")[0]) for name in names]) if classes else None
    files = ImageFiles(config, names, (channels, height, width))
    if len(names) * channels * height * width <= config.cache_mb * 2**20:
        return InMemory(load_all(files), labels, num_classes=len(classes), device=device)
    if config.on_bad_file == "stop":  # else all of them were decoded
        check_headers(files)
    return Streamed(files, labels, num_classes=len(classes), device=device)


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return `shape`. Raises UserError unless it is (1 or 3, height, width)."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"image-folder: got the shape {shape}, expected (1 or 3, height, width)")
    channels, height, width = shape
    return channels, height, width


def split_names(
    config: ImageFolderConfig, split: str, only: frozenset[str] | None, skipped: frozenset[str]
) -> tuple[list[str], list[str]]:
    """Return the relative paths of the images of a split in the order of its sampler, and the names of all classes.

    The arguments are those of `image_folder`.
    """
    names = list_images(config)
    classes = class_names(names)
    chosen = {s: name for s, name in names.items() if (only is None or s in only) and name not in skipped}
    held_out = hold_out(chosen)
    return [name for s, name in chosen.items() if not held_out or (s in held_out) == (split == "test")], classes


def unreadable_images(
    config: ImageFolderConfig, shape: tuple[int, ...], only: frozenset[str] | None = None
) -> frozenset[str]:
    """Return the relative paths of the images to leave out because they cannot be read, and log which and why.

    All images, or those with the stems `only`, are decoded for it; none are, and none is returned, where bad files are
    not skipped.
    """
    if config.on_bad_file == "stop":
        return frozenset()
    names = [name for stem, name in list_images(config).items() if only is None or stem in only]
    unreadable = decode_all(ImageFiles(config, names, image_shape(shape)))
    tell(unreadable, "skipped")
    if bad := len(unreadable.reasons):
        log.warning("%s: skipped %d of %d images, which cannot be read", config.root, bad, len(names))
    return frozenset(unreadable.reasons)


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


def stems_of(config: ImageFolderConfig, names: frozenset[str]) -> frozenset[str]:
    """Return the stems of the images at the relative paths `names`."""
    return frozenset(stem for stem, name in list_images(config).items() if name in names) if names else frozenset()


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
