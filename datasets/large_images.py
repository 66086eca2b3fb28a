"""Bound the memory that large images take: told by their headers, and decoded one at a time."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from flowferry.datasets.deep_images import TIFF_SIGNATURES, tiff_size
from flowferry.datasets.image_formats import FORMATS

LARGE = 2**24  # pixels

T = TypeVar("T")

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def in_turn(data: bytes, max_pixels: int, do: Callable[[], T]) -> T:
    """Return `do()`, which decodes the image file `data`; for a large one in a thread that all large ones share.

    One thread, because each would keep the memory that its images took. Raises ValueError for more than `max_pixels`,
    which is known before anything is decoded.
    """
    width, height = size_of(data)
    if width * height > max_pixels:
        raise ValueError(
            f"got {width} × {height} pixels, expected at most {max_pixels:,}, which bounds the memory; the option "
            "max-pixels raises it"
        )
    return do() if width * height <= LARGE else the_thread().submit(without_limit, do).result()


@cache
def the_thread() -> ThreadPoolExecutor:
    """Return the thread that large images share."""
    return ThreadPoolExecutor(1, "large images")


def without_limit(do: Callable[[], T]) -> T:
    """Return `do()`, called without Pillow's own limit on pixels, in whose place `in_turn` checks ours."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return do()
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def size_of(data: bytes) -> tuple[int, int]:
    """Return (width, height) as a file's header says. Raises UnidentifiedImageError for what is no image."""
    try:
        return Image.open(BytesIO(data), formats=FORMATS).size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        opened = the_thread().submit(without_limit, lambda: Image.open(BytesIO(data), formats=FORMATS))
        return opened.result().size
    except UnidentifiedImageError:
        if data.startswith(TIFF_SIGNATURES) and (size := tiff_size(data)):
            return size
        raise
