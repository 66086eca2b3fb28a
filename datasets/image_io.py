"""Read image files of any accepted format: upright, in sRGB, in the channels and at the size of a network."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.backgrounds import background_of, is_one_color
from flowferry.datasets.bands import bands_of
from flowferry.datasets.color_profiles import to_srgb
from flowferry.datasets.deep_images import TIFF_SIGNATURES, Deep, deep_png, deep_tiff, tiff_size, unread_tiff
from flowferry.datasets.deep_pixels import check_range, convert_on_background, nearly_one_color, range_of
from flowferry.datasets.file_repair import PNG_SIGNATURE, essential_png
from flowferry.datasets.framing import Size, framed, framed_pixels, half_of, half_of_pixels
from flowferry.datasets.image_formats import READ
from flowferry.datasets.large_images import in_turn
from flowferry.datasets.pillow_images import Loaded, flattened, load_with_pillow, upright
from flowferry.datasets.pixels import to_images
from flowferry.datasets.stored import EIGHT_BITS, Pixels, Stored, has_alpha

Frame = Size | Callable[[Size], Size]
AS_USUAL = ReadConfig()

NOTES = {
    "several frames": "several frames (only the first was taken)",
    "no end": "no end marker, but all of the image",
    "damaged chunk": "a damaged part beside the image, which was passed over",
    "clipped": "values a little out of range, which were clipped",
    "little range": "less than a tenth of the range (--range LOW HIGH says which values are black and white)",
    "no alpha": "transparent parts, which the results' format cannot hold (they show the background)",
    "one color": "nearly a single color after loading (transparent drawings may need another --background)",
}
"""What may be worth telling of an image file that was read: a key, and what the file had."""


class Decoded(NamedTuple):
    """The contents of an image file."""

    pixels: Pixels
    """Its first frame [H, W, C], upright, fitted to the frame that was asked for; uint16 of more than 8 bits."""
    size: Size
    """(width, height) of the upright image in the file."""
    notes: list[str]
    """Keys of `NOTES`."""
    alpha: Pixels | None = None
    """[H, W, 1], 0 where a border was added, of an image that was laid on the background; None of an opaque one."""
    stored: Stored = EIGHT_BITS
    """How its file holds it."""


def decode(
    data: bytes, channels: int, reading: ReadConfig, frame: Frame | None = None, half: str | None = None
) -> Decoded:
    """Decode the bytes of an image file.

    channels: 1 for gray, 3 for RGB, 2 and 4 for these with alpha, to which any picture is converted; a file of bands,
    or for any other number, has to have as many. frame: fit the image to this size, or to what this function makes of
    its size, as `reading.resize` says; None: leave it at its own. half: "left" or "right", the half of the image that
    is wanted; None: all of it.

    EXIF orientation is applied, colors are converted from the file's ICC profile to sRGB, transparency is composited
    on `reading.background` where no alpha is asked for, CMYK and palettes are converted, and images of more than 8 bits
    scaled to 16. Damage that leaves the image whole is passed over, unless `reading.strict`. Raises UserError saying
    why an image cannot be read.
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
        raise UserError(f"not a readable image (got {got}, expected {', '.join(READ)})") from error
    except Exception as error:  # Pillow's plugins raise all sorts of errors on broken files
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise UserError(f"not a readable image ({kind}{error})") from error


def decode_now(
    data: bytes, profile: bytes | None, channels: int, reading: ReadConfig, frame: Frame | None, half: str | None
) -> Decoded:
    """Decode an image file as `decode` says, in this thread. Raises any error where that is not possible.

    profile: the ICC profile of a PNG file, of which `data` holds the image alone.
    """
    loaded = load(data, channels, reading)
    loaded = loaded._replace(profile=profile or loaded.profile)
    if isinstance(loaded.image, Deep):
        return decode_deep(loaded.image, loaded, channels, reading, frame, half)
    image = half_of(to_srgb(upright(loaded.image, loaded.orientation), loaded.profile), half)
    color = background_of(image, reading.background)
    image, alpha = flattened(image, channels, color)
    size, notes = image.size, loaded.notes + ["one color"] * is_one_color(image)
    if (wanted := frame(size) if callable(frame) else frame) is not None:
        image = framed(image, wanted, reading.resize, color)
        alpha = None if alpha is None else framed(alpha, wanted, reading.resize)
    return Decoded(pixels_of(image), size, notes, None if alpha is None else pixels_of(alpha))


def decode_deep(
    deep: Deep, loaded: Loaded, channels: int, reading: ReadConfig, frame: Frame | None, half: str | None
) -> Decoded:
    """Decode an image that is held as numbers, as `decode` says. Raises any error where that is not possible."""
    notes = loaded.notes + check_range(deep, reading)
    pixels, alpha, behind = convert_on_background(deep, channels, reading, loaded.profile)
    pixels = half_of_pixels(turned(pixels, loaded.orientation), half)
    alpha = None if alpha is None else half_of_pixels(turned(alpha, loaded.orientation), half)
    height, width, _ = pixels.shape
    notes += ["one color"] * (nearly_one_color(pixels) and "little range" not in notes)
    if (wanted := frame((width, height)) if callable(frame) else frame) is not None:
        weighted = deep.are_colors and has_alpha(channels)
        pixels = framed_pixels(pixels, wanted, reading.resize, behind, weighted=weighted)
        alpha = None if alpha is None else framed_pixels(alpha, wanted, reading.resize, [0.0])
    stored = Stored(deep.values.dtype.newbyteorder("="), range_of(deep, reading), deep.are_colors, deep.channels_first)
    return Decoded(pixels, (width, height), notes, alpha, stored)


def load(data: bytes, channels: int, reading: ReadConfig) -> Loaded:
    """Return the first frame of an image file, or its bands. Raises any error where that is not possible."""
    deep = bands_of(data, channels)
    if deep is None and data.startswith(PNG_SIGNATURE):
        deep = deep_png(data)
    if deep is None and data.startswith(TIFF_SIGNATURES):
        deep = deep_tiff(data, reading)
    if deep is not None:
        return Loaded(deep, ["several frames"] * (deep.frames > 1), deep.orientation, deep.profile)
    try:
        return load_with_pillow(data, reading)
    except UnidentifiedImageError:
        if data.startswith(TIFF_SIGNATURES) and tiff_size(data):
            raise ValueError(unread_tiff(data)) from None
        raise


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Return pixels [H, W, C] turned as EXIF's `orientation` says; unknown ones say nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    down, across = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if down else 1, :: -1 if across else 1])


def pixels_of(image: Image.Image) -> Pixels:
    """Return the pixels of an image of 8 bits: uint8 [H, W, C]."""
    return np.atleast_3d(np.array(image)).astype(np.uint8, copy=False)


# --- files and tensors ----------------------------------------------------------------------------------


def to_tensor(pixels: Pixels) -> Tensor:
    """Return pixels [H, W, C] as float32 [C, H, W] in [-1, 1]."""
    return to_images(torch.from_numpy(pixels).movedim(-1, 0))


def load_image(path: Path, shape: tuple[int, int, int], reading: ReadConfig = AS_USUAL) -> Tensor:
    """Load an image file as float32 of `shape` (C, H, W) in [-1, 1].

    Raises UserError with the path and the reason where that is not possible.
    """
    channels, height, width = shape
    try:
        return to_tensor(decode(read(path), channels, reading, (width, height)).pixels)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read(path: Path) -> bytes:
    """Return a file's bytes. Raises UserError with the reason where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"not a readable image ({error.strerror or error})") from error
