"""One file on its way: as it was read, and what came of it."""

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import BrokenOff
from flowferry.datasets.file_tree import Item
from flowferry.datasets.image_writing import WRITTEN, format_named
from flowferry.datasets.stored import Pixels, Stored
from flowferry.pipelines.translation.entries import Entry


class LoadedImage(NamedTuple):
    """An image file that was read and framed, ready for the network."""

    item: Item
    digest: str
    """The SHA-256 of the file's bytes."""
    image: Tensor
    """[C, H, W] in [-1, 1], at the size at which it is translated."""
    size: tuple[int, int]
    """(width, height) of the upright image in the file."""
    notes: list[str]
    """What was worth telling when it was read: keys of `image_io.NOTES`."""
    stored: Stored
    """How the file holds it."""
    alpha: Pixels | None
    """[H, W, 1], of a transparent image that was laid on the background."""


class Result(NamedTuple):
    """The outcome of one file."""

    status: str
    """ "translated", "already there" or "failed"."""
    entry: Entry
    """Its line in the manifest, or in the list of failures."""


Loaded = LoadedImage | Result
Written = tuple[list[Result], BrokenOff | None]
"""The results of a batch, and the error of a disk that took no more."""


def format_of(item: Item) -> str:
    """Return the format of a file's output, as its ending says."""
    return format_named(item.output) or "png"


def reading_of_result(name: str, stored: Stored, reading: ReadConfig) -> ReadConfig:
    """Return how to read a result of this file name again, of an input that was held as `stored` and read so."""
    held = WRITTEN[format_named(name) or "png"].held(stored)  # a format that is less deep has a range of its own
    return replace(reading, strict=False, range=reading.range and held.range)


def failure(item: Item, error: Exception) -> Result:
    """Return the result of a file that failed."""
    return Result("failed", {"input": item.name, "error": str(error)})
