"""Samplers of image folders: images are kept as uint8 if they fit in memory, otherwise decoded when needed."""

import logging
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.names import one_line, same_form
from flowferry.configs.validation import UserError
from flowferry.datasets.backgrounds import check_background
from flowferry.datasets.bad_files import tell
from flowferry.datasets.base import Sampler
from flowferry.datasets.crops import Crops
from flowferry.datasets.file_checks import check_headers, decode_all, memory_of
from flowferry.datasets.held_out import hold_out
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.members import Member, members_of
from flowferry.datasets.streaming import ImageFiles, Streamed, load_all, load_whole

log = logging.getLogger("flowferry")


def image_folder(
    config: ImageFolderConfig,
    shape: tuple[int, ...],
    split: str,
    device: torch.device,
    only: frozenset[str] | None = None,
    skipped: frozenset[str] | None = None,
) -> Sampler:
    """Return a sampler of the images of a folder and its sub-folders, of `shape` (C, H, W).

    The sub-folders at the first level are the classes, as `checked_classes` orders them, if every image lies in one;
    otherwise the images are unlabeled.

    split: "train", or "test" for the images that the layout of the folder holds out, else those that `hold_out` chooses
    by their names; both are all images where it chooses none. only: the `Member.pair_name` of those to keep; None: all.
    skipped: the relative paths to leave out; None: those that the configuration leaves out.

    Raises UserError for a bad folder, shape or background, where there are no images, where the classes are not those
    that the configuration names, and BadFiles where some images cannot be read; a `Streamed` sampler finds what is
    damaged behind its header only when it draws it.
    """
    channels, height, width = image_shape(shape)
    check_background(config.background)
    if config.shorter_side and config.resize != "crop":
        raise UserError(f"shorter_side: got {config.shorter_side} with resize {config.resize}, expected resize crop")
    if skipped is None:
        skipped = frozenset(one.path for one in unreadable_images(config, shape, only))
    members, classes = split_members(config, split, only, skipped)
    if not members:
        raise UserError(f"image-folder: got no images to {split} on in {config.root}, expected at least one")
    labels = torch.tensor([classes.index(class_of(one)) for one in members]) if classes else None
    files = ImageFiles(config, [one.path for one in members], (channels, height, width))
    what: Any = {"labels": labels, "num_classes": len(classes), "device": device}
    anywhere = split == "train"  # is where crops are taken
    if memory_of(files) <= config.cache_mb * 2**20:
        if files.crops:
            return Crops(load_whole(files), files.shape, anywhere=anywhere, **what)
        return InMemory(load_all(files), **what)
    if config.on_bad_file == "stop":  # else all of them were decoded
        check_headers(files)
    return Streamed(files, anywhere=anywhere, **what)


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return `shape`. Raises UserError unless it is (channels, height, width)."""
    if len(shape) != 3:
        raise UserError(f"image-folder: got the shape {shape}, expected (channels, height, width)")
    channels, height, width = shape
    return channels, height, width


def split_members(
    config: ImageFolderConfig, split: str, only: frozenset[str] | None, skipped: frozenset[str]
) -> tuple[list[Member], tuple[str, ...]]:
    """Return the images of a split in the order of its sampler, and the names of all classes.

    The arguments are those of `image_folder`.
    """
    members = members_of(config)
    classes = checked_classes(config, members)
    if only is not None:  # in an order that both folders have, however each of them writes its names
        members = sorted((one for one in members if one.pair_name in only), key=lambda one: one.pair_name)
    kept = [one for one in members if one.path not in skipped]
    if any(one.split not in ("", "train") for one in kept):  # the folder says itself what is held out
        return [one for one in kept if (one.split == "train") == (split == "train")], classes
    names = {one: one.name if only is None else same_form(one.name) for one in kept}
    held_out = hold_out(set(names.values()))
    return [one for one in kept if not held_out or (names[one] in held_out) == (split == "test")], classes


def unreadable_images(
    config: ImageFolderConfig, shape: tuple[int, ...], only: frozenset[str] | None = None
) -> list[Member]:
    """Return the images to leave out because they cannot be read, and log which and why.

    All images, or those with the names `only`, are decoded for it; none are, and none is returned, where bad files are
    not skipped.
    """
    if config.on_bad_file == "stop":
        return []
    members = [one for one in members_of(config) if only is None or one.pair_name in only]
    unreadable = decode_all(ImageFiles(config, [one.path for one in members], image_shape(shape)))
    tell(unreadable, "skipped")
    if bad := len(unreadable.reasons):
        log.warning("%s: skipped %d of %d images, which cannot be read", config.root, bad, len(members))
    return [one for one in members if one.path in unreadable.reasons]


# --- classes --------------------------------------------------------------------------------------------


def class_of(member: Member) -> str:
    """Return the name of the class of an image: the first folder in its name."""
    return same_form(member.name.split("/")[0])


def class_names(members: Collection[Member]) -> set[str]:
    """Return the names of the sub-folders at the first level, if every image lies in one; otherwise none.

    Raises UserError where two sub-folders have the same name but for how it is encoded.
    """
    if not all("/" in one.name for one in members):
        return set()
    folders = {one.name.split("/")[0] for one in members}
    for name, count in Counter(map(same_form, folders)).items():
        if count > 1:
            alike = [ascii(folder) for folder in sorted(folders) if same_form(folder) == name]
            raise UserError(
                f"image-folder: got {' and '.join(alike)}, which are the same name, expected one sub-folder"
            )
    return {same_form(folder) for folder in folders}


def checked_classes(config: ImageFolderConfig, members: Collection[Member]) -> tuple[str, ...]:
    """Return the names of the classes in the order of their labels; none for unlabeled images.

    The order is that of `config.classes`, or alphabetical without them, as all runs had it before they kept the names.
    Raises UserError where `config.classes` are not the names of the sub-folders.
    """
    found, named = class_names(members), tuple(map(same_form, config.classes))
    if named and (set(named) != found or len(named) != len(found)):
        got = one_line(sorted(found)) or "images that lie in no sub-folder"
        raise UserError(f"image-folder: got the classes {got} in {config.root}, expected {one_line(named)}")
    return named or tuple(sorted(found))
