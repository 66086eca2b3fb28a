"""Read images whose channels are no colors: TIFF files of several bands or pages, and arrays of NumPy."""

from io import BytesIO
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from flowferry.datasets.deep_images import (
    COLOR,
    GRAY,
    INVERTED,
    MAX_SAMPLE,
    ORIENTATION,
    TIFF_SIGNATURES,
    Deep,
    first_page,
    tiff_values,
    unread_tiff,
)
from flowferry.datasets.stored import integer_range, usual_range

NPY_SIGNATURE = b"\x93NUMPY"
PICTURES = (1, 2, 3, 4)  # channels that any picture can be converted to: gray or RGB, without and with alpha
COLORS = (1, 3)  # channels of an array that are taken for gray and RGB


def bands_of(data: bytes, channels: int) -> Deep | None:
    """Return a file whose channels are to be taken as they are; None for a picture, which can be converted.

    Raises ValueError for a file that has not as many channels and cannot be converted.
    """
    if data.startswith(NPY_SIGNATURE):
        return array_of(data, channels)
    if data.startswith(TIFF_SIGNATURES) and channels > 1:
        deep = tiff_bands(data, channels)
        if deep is not None or channels in PICTURES:
            return deep
    elif channels in PICTURES:
        return None
    raise ValueError(f"got a picture, expected {channels} channels: an array, or a TIFF of as many bands or pages")


# --- TIFF -----------------------------------------------------------------------------------------------


def tiff_bands(data: bytes, channels: int) -> Deep | None:
    """Return the bands of the first page, or all pages of one band, if there are `channels` of them and no colors.

    None for any other TIFF file. Raises ValueError naming a compression that is not read.
    """
    page = first_page(data)
    if page is None or page.dtype is None or page.photometric not in (INVERTED, GRAY, COLOR):
        return None
    count, pages = page.samplesperpixel, page.parent.pages
    is_picture = count == (3 if page.photometric == COLOR else 1) + (page.extrasamples[:1] in ((1,), (2,)))
    if count == channels and not is_picture:
        bands = [tiff_values(page, all_samples=True)]
    elif count == 1 and len(pages) == channels > 1 and all(alike(page, other) for other in pages):
        bands = [tiff_values(other, all_samples=True) for other in pages]
    else:
        return None
    found = [values for values in bands if values is not None]
    if len(found) < len(bands):
        raise ValueError(unread_tiff(data))
    values = np.concatenate(found, axis=-1)
    return Deep(
        values,
        integer_range(values.dtype, page.bitspersample, page.tags.valueof(MAX_SAMPLE)),
        are_colors=False,
        inverted=page.photometric == INVERTED,
        orientation=page.tags.valueof(ORIENTATION) or 1,
    )


def alike(page: Any, other: Any) -> bool:
    """Return whether two pages have the same size and kind of numbers, as the bands of one image do."""
    return bool((page.shape, page.dtype, page.photometric) == (other.shape, other.dtype, other.photometric))


# --- arrays ---------------------------------------------------------------------------------------------


def array_of(data: bytes, channels: int) -> Deep:
    """Return an array [H, W], [H, W, C] or [C, H, W] in NumPy's format. Raises ValueError for any other.

    One channel and three are taken for gray and RGB where others are expected.
    """
    shape, is_fortran, dtype, start = npy_header(data)
    if dtype.kind not in "uif":
        raise ValueError(f"got an array of {dtype}, expected integers or floating-point numbers")
    axis = channel_axis(shape, channels)
    values = np.frombuffer(data, dtype, prod(shape), start).reshape(shape, order="F" if is_fortran else "C")
    values = values[..., None] if axis is None else np.moveaxis(values, axis, -1)
    are_colors = values.shape[-1] in COLORS
    return Deep(values, usual_range(dtype), are_colors=are_colors, channels_first=axis == 0)


def channel_axis(shape: tuple[int, ...], channels: int) -> int | None:
    """Return the axis of the channels in an array of `shape`, the last one where two fit; None for [H, W]."""
    convertible = COLORS if channels in PICTURES else ()
    if all(length > 0 for length in shape):
        if len(shape) == 2 and convertible:
            return None
        for wanted in ((channels,), convertible):
            for axis in (-1, 0):
                if len(shape) == 3 and shape[axis] in wanted:
                    return axis
    gray = "(H, W), " if convertible else ""
    raise ValueError(f"got an array of shape {shape}, expected {gray}(H, W, {channels}) or ({channels}, H, W)")


def npy_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return (shape, whether in Fortran's order, kind of numbers, where they begin) of an array in NumPy's format.

    Nothing is unpickled. Raises ValueError for a header that cannot be read.
    """
    file = BytesIO(data)
    readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    version = npy_format.read_magic(file)
    if version not in readers:
        raise ValueError(f"got version {version} of NumPy's format, expected 1.0 or 2.0")
    shape, is_fortran, dtype = readers[version](file)
    return shape, is_fortran, dtype, file.tell()


def npy_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of an array as its header says, whose smallest axis is taken for that of its channels."""
    shape, *_ = npy_header(data)
    if len(shape) == 3:
        least = shape.index(min(shape))
        shape = shape[:least] + shape[least + 1 :]
    height, width = shape if len(shape) == 2 else (1, prod(shape))
    return width, height
