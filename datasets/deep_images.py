"""Read images of more than 8 bits, and of other channels than colors, as the numbers that lie in their files."""

import struct
import zlib
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flowferry.configs.images import ReadConfig
from flowferry.datasets.stored import first, full_scale, integer_range, usual_range

PNG_KINDS = {2: "RGB", 4: "LA", 6: "RGBA"}  # color type -> mode
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
INVERTED, GRAY, COLOR = 0, 1, 2  # PhotometricInterpretation: WhiteIsZero, BlackIsZero, RGB
BITS, PHOTOMETRIC, ORIENTATION, MAX_SAMPLE, SAMPLE_FORMAT, PROFILE = 258, 262, 274, 281, 339, 34675  # TIFF tags


class Deep(NamedTuple):
    """An image as it lies in its file."""

    values: NDArray[np.generic]
    """[H, W, C]: gray or RGB, then alpha; or bands."""
    range: tuple[float, float]
    """Black and white, as the file says or as is usual for its kind of numbers."""
    are_colors: bool = True
    """Whether the channels are colors and alpha; otherwise they are bands of no known meaning."""
    inverted: bool = False
    """Whether the smaller value is white."""
    premultiplied: bool = False
    """Whether the colors are multiplied by alpha."""
    orientation: int = 1
    profile: bytes | None = None
    frames: int = 1
    channels_first: bool = False
    """Whether the file is an array [C, H, W]."""


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


def tiff_values(page: Any, *, all_samples: bool = False) -> NDArray[np.generic] | None:
    """Return the values [H, W, C] of a page of a TIFF file, with samples of no known meaning if `all_samples`.

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
    return values if all_samples else values[..., : colors + has_alpha]


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
