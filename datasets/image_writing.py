"""Write images as the bytes of files that say that their colors are sRGB: the same image, the same bytes."""

import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.color_profiles import srgb_profile
from flowferry.datasets.file_repair import PNG_SIGNATURE
from flowferry.datasets.stored import EIGHT_BITS, SIXTEEN_BITS, Pixels, Stored, full_scale, has_alpha

PNG_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # number of channels -> color type
PNG_LEVEL = 3  # of zlib: half the time of 6, and files as large to 3 % (docs/PERFORMANCE.md)
MAX_SAMPLE_VALUE = 281  # TIFF tag


class Format(NamedTuple):
    """A format of image files that are written."""

    endings: tuple[str, ...]
    """The first is given to files whose names are made here."""
    encode: Callable[[NDArray[np.generic], Stored], bytes]
    """(numbers [H, W, C], what they mean) -> the bytes of a file."""
    channels: tuple[int, ...] = ()
    """How many it can hold; none: any number."""
    deepest: Stored | None = None
    """The deepest numbers that it can hold; None: any."""
    keeps_alpha: bool = True
    """Whether it can hold the alpha of an image beside its colors."""
    is_lossless: bool = True

    def held(self, stored: Stored) -> Stored:
        """Return how a file of this format holds what another one holds as `stored`: alike if it can."""
        deepest = self.deepest
        return stored if deepest is None or stored.dtype in (np.uint8, deepest.dtype) else deepest


def encode(image: Tensor, name: str, stored: Stored = EIGHT_BITS, alpha: Pixels | None = None) -> bytes:
    """Return an image [C, H, W] in [-1, 1] as the bytes of a file of the format `name`, a key of `WRITTEN`.

    stored: how its input was held, as the file holds it too if it can. alpha: [H, W, 1], kept if the format can.
    Raises UserError where it cannot hold an image of so many channels, or so large a one.
    """
    check_channels(name, len(image))
    kind = WRITTEN[name]
    stored = kind.held(stored)
    numbers = stored.numbers(image)
    if alpha is not None and kind.keeps_alpha:
        opacity = alpha / np.iinfo(alpha.dtype).max * full_scale(stored.dtype)
        opacity = opacity if stored.dtype.kind == "f" else np.rint(opacity)
        numbers = np.concatenate([numbers, opacity.astype(stored.dtype)], axis=-1)
    try:
        return kind.encode(numbers, stored)
    except (ValueError, OSError) as error:
        raise UserError(f"cannot be written as {name} ({error})") from error


def check_channels(name: str, channels: int) -> None:
    """Raise UserError where files of the format `name` cannot hold images of so many channels."""
    able = WRITTEN[name].channels
    if able and channels not in able:
        others = ", ".join(other for other, kind in WRITTEN.items() if not kind.channels or channels in kind.channels)
        raise UserError(f"format {name}: got images of {channels} channels, expected {others}")


def format_named(name: str) -> str | None:
    """Return the format of a file name's ending; None for any other ending."""
    return next((key for key, kind in WRITTEN.items() if name.lower().endswith(kind.endings)), None)


def format_for(name: str, asked: str | None) -> str:
    """Return the format of what is made of the file `name`: as is asked for, else its own if that loses nothing."""
    own = format_named(name)
    return asked or (own if own is not None and WRITTEN[own].is_lossless else "png")


# --- the formats ----------------------------------------------------------------------------------------


def png(image: Image.Image) -> bytes:
    """Return an image of mode L, LA, RGB or RGBA as the bytes of a PNG file.

    Pillow filters and compresses its lines; its writer of whole files takes longer for the rest of a small one.
    """
    lines = image.tobytes("zip", image.mode, False, PNG_LEVEL, -1, b"")
    return png_file(image.size, 8, len(image.getbands()), lines)


def any_png(numbers: NDArray[np.generic], stored: Stored) -> bytes:
    """Return numbers as a PNG file of 8 or 16 bits; Pillow writes only gray ones of 16."""
    return png(pictured(numbers)) if numbers.dtype == np.uint8 else deep_png(numbers)


def deep_png(numbers: NDArray[np.generic]) -> bytes:
    """Return uint16 numbers as a PNG file; each line is written as the difference to the one above it (filter 2)."""
    height, width, count = numbers.shape
    lines = numbers.astype(">u2").reshape(height, -1).view(np.uint8)
    above = np.concatenate([np.zeros_like(lines[:1]), lines[:-1]])
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), lines - above], axis=1)
    return png_file((width, height), 16, count, zlib.compress(filtered.tobytes(), PNG_LEVEL))


def png_file(size: tuple[int, int], depth: int, channels: int, lines: bytes) -> bytes:
    """Return a PNG file of `size` (width, height). lines: filtered and compressed."""
    width, height = size
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, PNG_TYPES[channels], 0, 0, 0])
    chunks = ((b"IHDR", header), srgb_chunk(channels), (b"IDAT", lines), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )


@cache
def srgb_chunk(channels: int) -> tuple[bytes, bytes]:
    """Return the kind and the body of the chunk that says that colors are sRGB.

    It is the profile, which is one of colors, so that a gray file may not hold it; a chunk of its own says it there.
    """
    return (b"sRGB", b"\0") if channels < 3 else (b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile()))


def jpeg(numbers: NDArray[np.generic], stored: Stored) -> bytes:
    """Return numbers as a JPEG file whose colors are as sharp as its brightness."""
    profile = srgb_profile() if numbers.shape[-1] == 3 else None
    return by_pillow(pictured(numbers), "JPEG", quality=95, subsampling=0, optimize=True, icc_profile=profile)


def webp(numbers: NDArray[np.generic], stored: Stored) -> bytes:
    """Return numbers as a lossless WebP file, with the colors under transparent pixels too."""
    return by_pillow(pictured(numbers), "WEBP", lossless=True, exact=True, icc_profile=srgb_profile())


def tiff(numbers: NDArray[np.generic], stored: Stored) -> bytes:
    """Return numbers as a deflated TIFF file of one page."""
    import tifffile  # not needed for most folders

    count, (black, white) = numbers.shape[-1], stored.range
    colors = 3 if stored.are_colors and count in (3, 4) else 1
    alpha = stored.are_colors and has_alpha(count)
    is_unusual = numbers.dtype == np.uint16 and black == 0 and 0 < white < SIXTEEN_BITS.range[1]
    buffer = BytesIO()
    tifffile.imwrite(
        buffer,
        numbers[..., 0] if count == 1 else numbers,
        photometric="rgb" if colors == 3 else "minisblack",
        planarconfig=None if count == 1 else "contig",
        extrasamples=["unassalpha"] * alpha + ["unspecified"] * (count - colors - alpha),
        compression="zlib",
        predictor=numbers.dtype.kind in "ui",
        iccprofile=srgb_profile() if colors == 3 else None,
        extratags=[(MAX_SAMPLE_VALUE, "H", 1, round(white), True)] if is_unusual else [],
        metadata=None,
        software=False,
    )
    return buffer.getvalue()


def array(numbers: NDArray[np.generic], stored: Stored) -> bytes:
    """Return numbers as an array in NumPy's format: [C, H, W] as its input, otherwise [H, W], or [H, W, C]."""
    gray = numbers.shape[-1] == 1
    buffer = BytesIO()
    first = np.ascontiguousarray(np.moveaxis(numbers, -1, 0))
    np.save(buffer, first if stored.channels_first else numbers[..., 0] if gray else numbers, allow_pickle=False)
    return buffer.getvalue()


def pictured(numbers: NDArray[np.generic]) -> Image.Image:
    """Return uint8 numbers [H, W, C] as a Pillow image of mode L, LA, RGB or RGBA."""
    return Image.fromarray(numbers[..., 0] if numbers.shape[-1] == 1 else numbers)


def by_pillow(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as the bytes of a file that Pillow writes."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


WRITTEN = {
    "png": Format((".png",), any_png, (1, 2, 3, 4), SIXTEEN_BITS),
    "jpeg": Format((".jpg", ".jpeg"), jpeg, (1, 3), EIGHT_BITS, keeps_alpha=False, is_lossless=False),
    "webp": Format((".webp",), webp, (1, 2, 3, 4), EIGHT_BITS),
    "tiff": Format((".tif", ".tiff"), tiff),
    "npy": Format((".npy",), array, keeps_alpha=False),
}
"""By the names that `--format` takes."""
