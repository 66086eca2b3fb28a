"""Samplers of image folders: images are kept as uint8 if they fit in memory, otherwise decoded when needed."""

import logging
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import torch

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.names import one_line, same_form, with_code_points
from flowferry.configs.validation import UserError
from flowferry.datasets.bad_files import MAX_LISTED, tell
from flowferry.datasets.base import Sampler
from flowferry.datasets.file_checks import check_headers, decode_all
from flowferry.datasets.file_tree import Tree, stem_of
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

    The sub-folders at the first level are the classes, as `checked_classes` orders them, if every image lies in one;
    otherwise the images are unlabeled.

    split: "train", or "test" for the images that `hold_out` chooses by their stems (relative paths without endings);
    both are all images where it chooses none. only: the stems to keep, of `pair_name`; None: all. skipped: the relative
    paths to leave out; None: those that the configuration leaves out.

    Raises UserError for a bad folder, shape or background, where there are no images, where the classes are not those
    that the configuration names, and BadFiles where some images cannot be read; a `Streamed` sampler finds what is
    damaged behind its header only when it draws it.
    """
    channels, height, width = image_shape(shape)
    check_background(config.background)
    skipped = unreadable_images(config, shape, only) if skipped is None else skipped
    names, classes = split_names(config, split, only, skipped)
    if not names:
        raise UserError(f"image-folder: got no images to {split} on in {config.root}, expected at least one")
    labels = torch.tensor([classes.index(class_of(name)) for name in names]) if classes else None
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
) -> tuple[list[str], tuple[str, ...]]:
    """Return the relative paths of the images of a split in the order of its sampler, and the names of all classes.

    The arguments are those of `image_folder`.
    """
    names: Collection[str] = list_images(config).values()
    classes = checked_classes(config, names)
    stem = stem_of if only is None else pair_name
    if only is not None:  # in an order that both folders have, however each of them writes its names
        names = sorted((name for name in names if pair_name(name) in only), key=pair_name)
    kept = [name for name in names if name not in skipped]
    held_out = hold_out(set(map(stem, kept)))
    chosen = [name for name in kept if not held_out or (stem(name) in held_out) == (split == "test")]
    return chosen, classes


def unreadable_images(
    config: ImageFolderConfig, shape: tuple[int, ...], only: frozenset[str] | None = None
) -> frozenset[str]:
    """Return the relative paths of the images to leave out because they cannot be read, and log which and why.

    All images, or those with the stems `only`, are decoded for it; none are, and none is returned, where bad files are
    not skipped.
    """
    if config.on_bad_file == "stop":
        return frozenset()
    names = [name for name in list_images(config).values() if only is None or pair_name(name) in only]
    unreadable = decode_all(ImageFiles(config, names, image_shape(shape)))
    tell(unreadable, "skipped")
    if bad := len(unreadable.reasons):
        log.warning("%s: skipped %d of %d images, which cannot be read", config.root, bad, len(names))
    return frozenset(unreadable.reasons)


def list_images(config: ImageFolderConfig) -> dict[str, str]:
    """Return the relative path of each image, sorted, by its stem, or by the path itself where others have its stem.

    Raises UserError where there are no images, and where the folder, or one inside it, cannot be listed.
    """
    return list_folder(config)[0]


def list_folder(config: ImageFolderConfig) -> tuple[dict[str, str], str]:
    """Return what `list_images` does, and a text saying what was passed over, empty for nothing."""
    if not config.root:
        raise UserError("image-folder: got no folder, expected --source.root FOLDER or --target.root FOLDER")
    if not Path(config.root).is_dir():
        raise UserError(f"image-folder: got {config.root}, which is not a folder, expected a folder of images")
    tree, names = Tree(Path(config.root), follow_links=config.follow_links), []
    for item in tree.walk():
        if item.problem:
            raise UserError(f"{config.root}: {item.name}: {item.problem}")
        names.append(item.name)
    skipped = tree.describe_skipped("--source.follow-links or --target.follow-links")
    if not names:
        told = skipped or "it is empty"
        raise UserError(f"image-folder: got no images in {config.root} ({told}), expected at least one")
    count = Counter(map(stem_of, names))
    names.sort(key=lambda name: (stem_of(name), name))
    return {(stem if count[stem := stem_of(name)] == 1 else name): name for name in names}, skipped


# --- classes --------------------------------------------------------------------------------------------


def class_of(name: str) -> str:
    """Return the name of the class of the image at a relative path: the first folder in it."""
    return same_form(name.split("/")[0])


def class_names(names: Collection[str]) -> set[str]:
    """Return the names of the sub-folders at the first level, if every image lies in one; otherwise none.

    names: relative paths. Raises UserError where two sub-folders have the same name but for how it is encoded.
    """
    if not all("/" in name for name in names):
        return set()
    folders = {name.split("/")[0] for name in names}
    for name, count in Counter(map(same_form, folders)).items():
        if count > 1:
            alike = [ascii(folder) for folder in sorted(folders) if same_form(folder) == name]
            raise UserError(
                f"image-folder: got {' and '.join(alike)}, which are the same name, expected one sub-folder"
            )
    return {same_form(folder) for folder in folders}


def checked_classes(config: ImageFolderConfig, names: Collection[str]) -> tuple[str, ...]:
    """Return the names of the classes in the order of their labels; none for unlabeled images.

    The order is that of `config.classes`, or alphabetical without them, as all runs had it before they kept the names.
    Raises UserError where `config.classes` are not the names of the sub-folders.
    """
    found, named = class_names(names), tuple(map(same_form, config.classes))
    if named and (set(named) != found or len(named) != len(found)):
        got = one_line(sorted(found)) or "images that lie in no sub-folder"
        raise UserError(f"image-folder: got the classes {got} in {config.root}, expected {one_line(named)}")
    return named or tuple(sorted(found))


# --- pairs ----------------------------------------------------------------------------------------------


def pair_name(name: str) -> str:
    """Return what the image at a relative path has in common with its partner: its stem, however it is encoded."""
    return same_form(stem_of(name))


def pair_names(config: ImageFolderConfig) -> set[str]:
    """Return the `pair_name` of each image. Raises UserError where two images have the same."""
    seen: dict[str, str] = {}
    for name in list_images(config).values():
        if (first := seen.setdefault(pair_name(name), name)) != name:
            both = f"{with_code_points(first)} and {with_code_points(name)}"
            raise UserError(f"coupling given: got {both} in {config.root}, expected one image of each name")
    return set(seen)


def common_stems(source: ImageFolderConfig, target: ImageFolderConfig, *, allow_unmatched: bool) -> frozenset[str]:
    """Return the stems, as `pair_name` gives them, that the images of both folders have.

    Raises UserError where there are none, where two images of a folder have the same, or, unless `allow_unmatched`,
    naming images without a partner.
    """
    stems = [pair_names(config) for config in (source, target)]
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
    return ", ".join(map(with_code_points, sorted(stems)[:MAX_LISTED])) + (", …" if len(stems) > MAX_LISTED else "")
