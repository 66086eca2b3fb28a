"""Look for image files that cannot be read before they are needed: at their headers, or by decoding all of them."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from flowferry.datasets.bad_files import BadFiles, Unreadable
from flowferry.datasets.bands import PICTURES
from flowferry.datasets.framing import Size
from flowferry.datasets.image_formats import FORMATS
from flowferry.datasets.look_ahead import look_ahead
from flowferry.datasets.streaming import ImageFiles

READERS = 8  # threads that read headers: a disk in the network answers several at once
AHEAD = 256  # files handed to the threads at a time, so that memory does not grow with their number


def check_headers(files: ImageFiles) -> None:
    """Raise BadFiles naming all files whose header cannot be read. Damage behind it is found by decoding alone."""
    unreadable = find_unreadable(files, lambda index: header_defect(files, index), threads=READERS)
    if unreadable.reasons:
        raise BadFiles(unreadable)


def decode_all(files: ImageFiles) -> Unreadable:
    """Return which files cannot be decoded. Keeps no image."""
    return find_unreadable(files, lambda index: defect(files, index), threads=min(READERS, os.cpu_count() or 1))


def memory_of(files: ImageFiles) -> int:
    """Return how many bytes all images take in memory; where they are cropped, as their headers say."""
    channels, height, width = files.shape
    if not files.crops:
        return files.bytes_per_value * len(files) * channels * height * width
    return files.bytes_per_value * sum(channels * width * height for width, height in sizes_of(files))


def sizes_of(files: ImageFiles) -> list[Size]:
    """Return the (width, height) of each image that crops are taken from; (0, 0) for one that cannot be read."""
    return list(look_ahead(partial(size_of, files), range(len(files)), threads=READERS, depth=AHEAD))


def size_of(files: ImageFiles, index: int) -> Size:
    """Return the (width, height) of an image that crops are taken from, from its header, or else by decoding it."""
    try:
        return files.size(index)
    except Exception:  # Pillow's plugins raise all sorts of errors on broken files
        decoded = files.whole(index)
        return (0, 0) if isinstance(decoded, str) else (decoded.shape[2], decoded.shape[1])


def find_unreadable(files: ImageFiles, defect_of: Callable[[int], str | None], *, threads: int) -> Unreadable:
    """Return the files of which `defect_of`, called with their indices in several threads, says what is wrong."""
    reasons: dict[str, str] = {}
    label = f"checking {files.config.root}"
    found = look_ahead(defect_of, range(len(files)), threads=threads, depth=AHEAD)
    bar = tqdm(found, total=len(files), desc=label, unit="files", delay=2, leave=False, dynamic_ncols=True)
    for name, reason in zip(files.names, bar, strict=True):
        if reason is not None:
            reasons[name] = reason
    return Unreadable(files.config.root, reasons)


def header_defect(files: ImageFiles, index: int) -> str | None:
    """Return what is wrong with a file, or None where its header says that it can be read.

    A doubtful file is decoded, so that nothing is refused here that decoding accepts.
    """
    channels, height, width = files.shape
    if channels not in PICTURES:  # Pillow does not tell how many bands a file has
        return defect(files, index)
    try:
        with Image.open(Path(files.config.root, files.names[index]), formats=FORMATS) as opened:
            fits = files.config.resize != "none" or opened.size == (width, height)
            if fits and opened.width * opened.height <= files.config.max_pixels:
                return None
    except Exception:  # Pillow's plugins raise all sorts of errors on broken files
        pass
    return defect(files, index)


def defect(files: ImageFiles, index: int) -> str | None:
    """Return why a file cannot be decoded, or None."""
    decoded = files[index]
    return decoded if isinstance(decoded, str) else None
