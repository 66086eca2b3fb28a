"""Bound the memory that large images take: told by their headers, and decoded one at a time."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from flowferry.datasets.bands import NPY_SIGNATURE, npy_size
from flowferry.datasets.deep_images import TIFF_SIGNATURES, tiff_size
from flowferry.datasets.file_repair import PNG_SIGNATURE
from flowferry.datasets.image_formats import FORMATS

LARGE = 2**24  # pixels

T = TypeVar("T")

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module="PIL.TiffImagePlugin")  # of odd tags, which are not looked at


def in_turn(data: bytes, max_pixels: int, do: Callable[[], T]) -> T:
    """Return `do()`, which decodes the image file `data`; for a large one in a thread that all large ones share.

    One thread, because each would keep the memory that its images took. Raises ValueError for more than `max_pixels`,
    which is known before anything is decoded.
    """
    try:
        width, height = size_of(data)
        if width * height <= min(LARGE, max_pixels):
            return do()
        got = f"{width} × {height}"
        if width * height <= max_pixels:
            return the_thread().submit(with_limit, max_pixels, do).result()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # by Pillow's limit, which is lower
        try:
            return the_thread().submit(with_limit, max_pixels, do).result()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            got = "more"
    raise ValueError(
        f"got {got} pixels, expected at most {max_pixels:,}, which bounds the memory; the option max-pixels raises it"
    )


@cache
def the_thread() -> ThreadPoolExecutor:
    """Return the thread that large images share."""
    return ThreadPoolExecutor(1, "large images")


def with_limit(max_pixels: int, do: Callable[[], T]) -> T:
    """Return `do()`, called with another limit on pixels than Pillow's own."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        return do()
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def size_of(data: bytes) -> tuple[int, int]:
    """Return (width, height) as a file's header says.

    Raises UnidentifiedImageError for what is no image, and Pillow's errors for more pixels than it takes.
    """
    if data.startswith(NPY_SIGNATURE):
        return npy_size(data)
    if data.startswith(PNG_SIGNATURE):  # opened once, not twice: the smaller an image, the more that counts
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    try:
        return Image.open(BytesIO(data), formats=FORMATS).size
    except UnidentifiedImageError:
        if data.startswith(TIFF_SIGNATURES) and (size := tiff_size(data)):
            return size
        raise
