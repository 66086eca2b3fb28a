"""Bound the memory that large images take: told by their headers, and decoded one at a time."""

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from flowferry.datasets.deep_images import TIFF_SIGNATURES, tiff_size

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # not those that start other programs, as EPS does
LARGE = 2**24  # pixels: larger images are decoded one at a time, so that several threads do not fill the memory
ONE_AT_A_TIME = threading.RLock()

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


@contextmanager
def turn(data: bytes, max_pixels: int) -> Iterator[None]:
    """Wait until no other thread holds a large image, if this file is one; others do not wait.

    Raises ValueError for more than `max_pixels`, which is known before anything is decoded.
    """
    width, height = size = size_of(data)
    if width * height > max_pixels:
        raise ValueError(
            f"got {width} × {height} pixels, expected at most {max_pixels:,}, which bounds the memory; the option "
            "max-pixels raises it"
        )
    with large_images() if math.prod(size) > LARGE else nullcontext():
        yield


@contextmanager
def large_images() -> Iterator[None]:
    """Lift Pillow's own limit on pixels, in whose place `turn` checks ours, for one thread at a time."""
    with ONE_AT_A_TIME:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def size_of(data: bytes) -> tuple[int, int]:
    """Return (width, height) as a file's header says. Raises UnidentifiedImageError for what is no image."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        with large_images(), Image.open(BytesIO(data), formats=FORMATS) as image:
            return image.size
    except UnidentifiedImageError:
        if data.startswith(TIFF_SIGNATURES) and (size := tiff_size(data)):
            return size
        raise
