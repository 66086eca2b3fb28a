"""Read image files of any accepted format: as 8-bit gray or RGB, upright, in sRGB, at the size of a network."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.backgrounds import background_of, composited, is_one_color
from flowferry.datasets.color_profiles import to_srgb
from flowferry.datasets.deep_images import (
    TIFF_SIGNATURES,
    deep_from_pillow,
    deep_png,
    deep_tiff,
    eight_bit,
    tiff_size,
    unread_tiff,
)
from flowferry.datasets.file_repair import PNG_SIGNATURE, essential_png, jpeg_endings
from flowferry.datasets.framing import Size, framed, half_of
from flowferry.datasets.image_formats import FORMATS
from flowferry.datasets.large_images import in_turn
from flowferry.datasets.pixels import to_images

Frame = Size | Callable[[Size], Size]
AS_USUAL = ReadConfig()
NEVER_ALL_CLEAR = ("BMP", "DIB", "TGA")  # formats whose writers often leave alpha at zero and mean nothing by it

NOTES = {
    "several frames": "several frames (only the first was taken)",
    "no end": "no end marker, but all of the image",
    "damaged chunk": "a damaged part beside the image, which was passed over",
    "clipped": "values a little out of range, which were clipped",
    "little range": "less than a tenth of the range (--range LOW HIGH says which values are black and white)",
    "one color": "nearly a single color after loading (transparent drawings may need another --background)",
}
"""What may be worth telling of an image file that was read: a key, and what the file had."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation."""


class Decoded(NamedTuple):
    """The contents of an image file."""

    image: Image.Image
    """Its first frame, of mode L or RGB, upright, fitted to the frame that was asked for."""
    size: Size
    """(width, height) of the upright image in the file."""
    notes: list[str]
    """Keys of `NOTES`."""


class Loaded(NamedTuple):
    """An image as its format has it, but of 8 bits."""

    image: Image.Image
    notes: list[str]
    orientation: int = 1
    """As EXIF numbers them."""
    profile: bytes | None = None
    """The ICC profile of its colors."""


def decode(
    data: bytes, channels: int, reading: ReadConfig, frame: Frame | None = None, half: str | None = None
) -> Decoded:
    """Decode the bytes of an image file as 8-bit gray (channels = 1) or RGB (channels = 3).

    frame: fit the image to this size, or to what this function makes of its size, as `reading.resize` says; None: leave
    it at its own. half: "left" or "right", the half of the image that is wanted; None: all of it.

    EXIF orientation is applied, colors are converted from the file's ICC profile to sRGB, transparency is composited
    on `reading.background`, CMYK and palettes are converted, and deeper images scaled to 8 bits. Damage that leaves
    the image whole is passed over, unless `reading.strict`. Raises UserError saying why an image cannot be read.
    """
    try:
        data, profile, damaged = essential_png(data) if data.startswith(PNG_SIGNATURE) else (data, None, False)
        if damaged and reading.strict:
            raise ValueError("a chunk beside the image is damaged")
        decoded = in_turn(data, reading.max_pixels, lambda: decode_now(data, profile, channels, reading, frame, half))
        return decoded._replace(notes=decoded.notes + ["damaged chunk"] * damaged)
    except UserError:  # of an image that does not fit the frame
        raise
    except UnidentifiedImageError as error:
        got = f"{len(data)} bytes of something else" if data else "an empty file"
        raise UserError(f"not a readable image (got {got}, expected {', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow's plugins raise all sorts of errors on broken files
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise UserError(f"not a readable image ({kind}{error})") from error


def decode_now(
    data: bytes, profile: bytes | None, channels: int, reading: ReadConfig, frame: Frame | None, half: str | None
) -> Decoded:
    """Decode an image file as `decode` says, in this thread. Raises any error where that is not possible.

    profile: the ICC profile of a PNG file, of which `data` holds the image alone.
    """
    loaded = load(data, reading)
    image = half_of(to_srgb(upright(loaded.image, loaded.orientation), profile or loaded.profile), half)
    color = background_of(image, reading.background)
    image = in_mode(composited(image, color), "L" if channels == 1 else "RGB")
    notes = loaded.notes + ["one color"] * (is_one_color(image) and "little range" not in loaded.notes)
    size = frame(image.size) if callable(frame) else frame
    return Decoded(image if size is None else framed(image, size, reading.resize, color), image.size, notes)


def load(data: bytes, reading: ReadConfig) -> Loaded:
    """Return the first frame of an image file. Raises any error where that is not possible."""
    deep = None
    if data.startswith(PNG_SIGNATURE):
        deep = deep_png(data)
    elif data.startswith(TIFF_SIGNATURES):
        deep = deep_tiff(data, reading)
    if deep is None:
        try:
            return load_with_pillow(data, reading)
        except UnidentifiedImageError:
            if data.startswith(TIFF_SIGNATURES) and tiff_size(data):
                raise ValueError(unread_tiff(data)) from None
            raise
    image, notes = eight_bit(deep, reading)
    return Loaded(image, notes + ["several frames"] * (deep.frames > 1), deep.orientation, deep.profile)


def load_with_pillow(data: bytes, reading: ReadConfig) -> Loaded:
    """Return the first frame of a file as Pillow reads it, a deep one scaled to 8 bits."""
    image: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
    kind, profile = image.format, image.info.get("icc_profile")
    notes = ["several frames"] * bool(getattr(image, "is_animated", False))
    try:
        image.load()
    except OSError:
        if kind != "JPEG" or reading.strict or (endings := jpeg_endings(data)) is None:
            raise
        image, notes = whole_jpeg(*endings), [*notes, "no end"]
    turned = orientation(image)
    if image.mode.startswith(("I", "F")):
        image, told = eight_bit(deep_from_pillow(image), reading)
        notes += told
    elif kind in NEVER_ALL_CLEAR and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image = image.convert("RGB")
    return Loaded(image, notes, turned, profile)


def whole_jpeg(one_way: bytes, another: bytes) -> Image.Image:
    """Return the image of a JPEG file that `jpeg_endings` completed. Raises OSError if a part is missing."""
    first, second = (Image.open(BytesIO(data), formats=("JPEG",)) for data in (one_way, another))
    if first.tobytes() != second.tobytes():
        raise OSError("image file is truncated")
    return first


def orientation(image: Image.Image) -> int:
    """Return how EXIF says that an image lies, 1 for upright. No other entry is looked at: many are odd."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # an EXIF block that cannot be read says nothing
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return an image turned as EXIF's `orientation` says; unknown ones say nothing."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in a mode, without a copy where it is in that mode."""
    return image if image.mode == mode else image.convert(mode)


# --- files and tensors ----------------------------------------------------------------------------------


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image of mode L or RGB as float32 [C, H, W] in [-1, 1]."""
    return to_images(pixels_of(image))


def pixels_of(image: Image.Image) -> Tensor:
    """Return the pixels of an image of mode L or RGB: uint8 [C, H, W], C = 1 or 3."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)


def load_image(path: Path, shape: tuple[int, int, int], reading: ReadConfig = AS_USUAL) -> Tensor:
    """Load an image file as float32 of `shape` (C, H, W), C = 1 or 3, in [-1, 1].

    Raises UserError with the path and the reason where that is not possible.
    """
    channels, height, width = shape
    try:
        return to_tensor(decode(read(path), channels, reading, (width, height)).image)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read(path: Path) -> bytes:
    """Return a file's bytes. Raises UserError with the reason where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"not a readable image ({error.strerror or error})") from error
