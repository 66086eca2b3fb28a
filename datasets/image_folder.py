"""Samplers of image folders: images are kept as uint8 if they fit in memory, otherwise decoded when needed."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

import torch

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.bad_files import MAX_LISTED, tell
from flowferry.datasets.base import Sampler
from flowferry.datasets.file_checks import check_headers, decode_all
from flowferry.datasets.file_tree import Tree
from flowferry.datasets.image_io import check_background
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.rng import derive_seed
from flowferry.datasets.streaming import ImageFiles, Streamed, load_all

log = logging.getLogger("flowferry")

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

    split: "train" or "test", as `split_names` says. only: the stems (relative paths without endings) to keep; None:
    all, or, where bad files are skipped, `usable_stems`.

    Raises UserError for a bad folder, shape or background, where there are no images, and BadFiles where some cannot be
    read; a `Streamed` sampler finds what is damaged behind its header only when it draws it.
    """
    channels, height, width = image_shape(shape)
    check_background(config.background)
    if only is None and config.on_bad_file == "skip":
        only = usable_stems(config, shape)
    names, classes = split_names(config, split, only)
    if not names:
        raise UserError(f"image-folder: got no images to {split} on in {config.root}, expected at least one")
    labels = torch.tensor([classes.index(stem.split("/")[0]) for stem in names]) if classes else None
    files = ImageFiles(config, list(names.values()), (channels, height, width))
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
    config: ImageFolderConfig, split: str, only: frozenset[str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Return the relative path of each image of a split by its stem, sorted by stem, and the names of all classes.

    split: "test" for the images that `hold_out` chooses, "train" for the others; both are all images where it chooses
    none. only: the stems to choose from; None: all.
    """
    names = list_images(config)
    classes = class_names(names)
    chosen = {stem: name for stem, name in names.items() if only is None or stem in only}
    held_out = hold_out(chosen)
    split_of = {stem: not held_out or (stem in held_out) == (split == "test") for stem in chosen}
    return {stem: name for stem, name in chosen.items() if split_of[stem]}, classes


def hold_out(stems: Collection[str]) -> frozenset[str]:
    """Return the tenth of the images, at least one, that is kept from training; it is chosen by the stems alone.

    At least one image of each class stays in training, so that none is returned where each class has but one image.
    """
    classes = class_names(stems)
    class_of = {stem: stem.split("/")[0] if classes else "" for stem in stems}
    in_training = Counter(class_of.values())
    held_out: set[str] = set()
    for stem in sorted(stems, key=lambda stem: derive_seed("held out", stem)):
        if len(held_out) < max(1, len(stems) // HELD_OUT) and in_training[class_of[stem]] > 1:
            held_out.add(stem)
            in_training[class_of[stem]] -= 1
    return frozenset(held_out)


def usable_stems(
    config: ImageFolderConfig, shape: tuple[int, ...], only: frozenset[str] | None = None
) -> frozenset[str]:
    """Decode all images, or those with the stems `only`; return the stems of those that can be read, log the others."""
    names = {stem: name for stem, name in list_images(config).items() if only is None or stem in only}
    unreadable = decode_all(ImageFiles(config, list(names.values()), image_shape(shape)))
    tell(unreadable, "skipped")
    if bad := len(unreadable.reasons):
        log.warning("%s: skipped %d of %d images, which cannot be read", config.root, bad, len(names))
    return frozenset(stem for stem, name in names.items() if name not in unreadable.reasons)


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
