"""Images of more than 8 bits: read them as numbers, and scale these to 8 bits."""

import math
import struct
import zlib
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flowferry.configs.images import ReadConfig

PNG_KINDS = {2: "RGB", 4: "LA", 6: "RGBA"}  # color type -> mode
OVERSHOOT = 0.1  # of the range: what resampling filters add, and is clipped
BLOCK = 2**22  # values that are scaled at a time
LITTLE = 0.1  # of the range: an image that uses less is told
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
INVERTED, GRAY, COLOR = 0, 1, 2  # PhotometricInterpretation: WhiteIsZero, BlackIsZero, RGB
BITS, PHOTOMETRIC, ORIENTATION, MAX_SAMPLE, SAMPLE_FORMAT, PROFILE = 258, 262, 274, 281, 339, 34675  # TIFF tags


class Deep(NamedTuple):
    """An image as it lies in its file."""

    values: NDArray[np.generic]
    """[H, W, C]: gray or RGB, then alpha."""
    range: tuple[float, float]
    """Black and white, as the file says or as is usual for its kind of numbers."""
    inverted: bool = False
    """Whether the smaller value is white."""
    premultiplied: bool = False
    """Whether the colors are multiplied by alpha."""
    orientation: int = 1
    profile: bytes | None = None
    frames: int = 1


def eight_bit(deep: Deep, reading: ReadConfig) -> tuple[Image.Image, list[str]]:
    """Return a deep image scaled to mode L, LA, RGB or RGBA, and notes: "clipped", "little range".

    A small overshoot is clipped, unless `reading.strict`. Raises ValueError for values that are not finite or lie
    further outside of the range.
    """
    low, high = reading.range or deep.range
    count = 3 if deep.values.shape[-1] >= 3 else 1
    colors = deep.values[..., :count]
    least, most = ((float(value) - low) / (high - low) for value in (colors.min(), colors.max()))
    allowed = 0.0 if reading.strict else OVERSHOOT
    if not (least >= -allowed and most <= 1 + allowed):  # NaN fails both
        raise ValueError(
            f"got {colors.dtype} values from {colors.min():g} to {colors.max():g}, expected {low:g} to {high:g}; "
            "the option range says which values are black and white"
        )
    notes = ["clipped"] if least < 0 or most > 1 else []
    notes += ["little range"] if most - least < LITTLE else []
    blocks = np.array_split(deep.values, math.ceil(deep.values.size / BLOCK))  # rows, to take little memory at a time
    eight = np.concatenate([scaled(block, deep, low, high) for block in blocks])
    return Image.fromarray(eight[..., 0] if eight.shape[-1] == 1 else eight), notes


def scaled(values: NDArray[np.generic], deep: Deep, low: float, high: float) -> NDArray[np.uint8]:
    """Return rows [H, W, C] of a deep image as uint8: colors from low … high, alpha from the whole range."""
    count = 3 if values.shape[-1] >= 3 else 1
    alpha = values[..., count:].astype(np.float64) / full_scale(values.dtype)
    color = values[..., :count].astype(np.float64)
    if deep.premultiplied:
        color = np.divide(color, alpha, out=np.zeros_like(color), where=alpha > 0)
    color = (color - low) / (high - low)
    pixels = np.concatenate([1 - color if deep.inverted else color, alpha], axis=-1)
    return np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)


# --- files that Pillow does not read, or cuts to 8 bits -------------------------------------------------


def deep_png(data: bytes) -> Deep | None:
    """Return a PNG file of 16 bits with color or alpha, which Pillow cuts to 8 bits; None for any other.

    Pillow decodes it twice: once for the upper bytes, and once as little-endian, for the lower ones.
    """
    depth, kind = data[24:26] if len(data) > 25 else (0, 0)
    if depth != 16 or kind not in PNG_KINDS:
        return None
    if kind == 4:  # two channels of 16 bits are laid out as four of 8
        header = data[12:24] + bytes([8, 6]) + data[26:29]
        data = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            upper_and_lower = np.asarray(image).astype(np.uint16)
        return Deep(256 * upper_and_lower[..., ::2] + upper_and_lower[..., 1::2], usual_range(np.dtype(np.uint16)))
    halves = []
    for order in ("B", "L"):
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            image.tile = [image.tile[0]._replace(args=f"{PNG_KINDS[kind]};16{order}")]
            halves.append(np.asarray(image).astype(np.uint16))
    return Deep(256 * halves[0] + halves[1], usual_range(np.dtype(np.uint16)))


def deep_tiff(data: bytes, reading: ReadConfig) -> Deep | None:
    """Return a gray or RGB TIFF file of more than 8 bits; None for any other, which Pillow may know.

    Raises ValueError naming a compression that is not read where Pillow could not follow `reading.range`.
    """
    page = first_page(data)
    deep = page is not None and page.dtype is not None and (page.dtype.itemsize > 1 or page.dtype.kind == "f")
    if not deep or page.photometric not in (INVERTED, GRAY, COLOR):
        return None
    values = tiff_values(page)
    if values is None:
        if reading.range and page.photometric == COLOR:  # of which Pillow takes the upper 8 bits
            raise ValueError(unread_tiff(data))
        return None
    tag = {code: page.tags.valueof(code) for code in (ORIENTATION, MAX_SAMPLE, PROFILE)}
    return Deep(
        values,
        integer_range(values.dtype, page.bitspersample, tag[MAX_SAMPLE]),
        inverted=page.photometric == INVERTED,
        premultiplied=1 in page.extrasamples,
        orientation=tag[ORIENTATION] or 1,
        profile=tag[PROFILE],
        frames=len(page.parent.pages),
    )


def first_page(data: bytes) -> Any:
    """Return the first page of a TIFF file, of the package tifffile; None where it is broken."""
    import tifffile  # not needed for most folders

    try:
        return tifffile.TiffFile(BytesIO(data)).pages.first
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, struct.error):
        return None


def tiff_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) as a TIFF file's header says; None where it is broken."""
    page = first_page(data)
    return None if page is None else (page.imagewidth, page.imagelength)


def unread_tiff(data: bytes) -> str:
    """Return what a TIFF file is that cannot be read, and what could be."""
    page = first_page(data)
    got = f"{page.samplesperpixel} × {page.dtype}, {page.photometric.name}, compression {page.compression.name}"
    return f"got a TIFF of {got}; expected gray or RGB, uncompressed or deflated"


def tiff_values(page: Any) -> NDArray[np.generic] | None:
    """Return the values [H, W, C] of a page of a TIFF file, without samples of no known meaning.

    None where its compression is not read; Pillow may know it.
    """
    try:
        values = page.asarray()
    except (ValueError, NotImplementedError, ImportError):
        return None
    separate = page.planarconfig == 2 and page.samplesperpixel > 1
    values = np.moveaxis(values, 0, -1) if separate else values
    values = values.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    colors = 3 if page.photometric == COLOR else 1
    has_alpha = page.extrasamples[:1] in ((1,), (2,))
    return values[..., : colors + has_alpha]


def deep_from_pillow(image: Image.Image) -> Deep:
    """Return an image of one of Pillow's modes I, I;16 and F, with the one value that is transparent as alpha."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    bits, kind = (first(tags.get(code)) for code in (BITS, SAMPLE_FORMAT))
    if bits == 32 and kind in (None, 1):
        values = values.view(np.uint32)  # Pillow takes them for signed
    scale = integer_range(values.dtype, bits, tags.get(MAX_SAMPLE))
    deep = Deep(values[..., None], scale, inverted=tags.get(PHOTOMETRIC) == INVERTED)
    if "transparency" in image.info:
        opaque = full_scale(values.dtype)
        alpha = np.where(values == image.info["transparency"], 0, opaque).astype(values.dtype)
        deep = deep._replace(values=np.stack([values, alpha], -1))
    return deep


# --- what their numbers mean ----------------------------------------------------------------------------


def integer_range(dtype: np.dtype, bits: int | None, highest: object) -> tuple[float, float]:
    """Return black and white: by the tag MaxSampleValue, by 9 to 15 bits a sample, or as is usual for the kind."""
    if dtype.kind != "f" and (white := first(highest)):
        return 0.0, float(white)
    if bits is not None and 8 < bits < 16:
        return 0.0, 2.0**bits - 1
    return usual_range(dtype)


def usual_range(dtype: np.dtype) -> tuple[float, float]:
    """Return black and white where a file does not say: 0 and 1 of floats, 0 and 65535 of integers of 16 or 32 bits.

    Integers of 32 bits as a rule hold what 16 could have held. Signed ones of 16 bits end at 32767.
    """
    return 0.0, 1.0 if dtype.kind == "f" else 32767.0 if dtype == np.int16 else 65535.0


def full_scale(dtype: np.dtype) -> float:
    """Return the value of an opaque pixel in the alpha channel: the largest one, or 1 of floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def first(value: Any) -> Any:
    """Return the first of the values in a TIFF tag, or its only one."""
    return value[0] if isinstance(value, tuple) and value else value
