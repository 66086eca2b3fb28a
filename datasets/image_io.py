"""Read image files of any accepted format, and fit them to the size of a network and back."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.image_formats import FORMATS
from flowferry.datasets.pixels import to_images

MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26  # a larger image is an error here; Pillow itself only warns

Size = tuple[int, int]
"""(width, height)"""
Box = tuple[int, int, int, int]
"""(left, upper, right, lower) in pixels"""

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class Decoded(NamedTuple):
    """The contents of an image file."""

    image: Image.Image
    """Its first frame, of mode L or RGB, upright."""
    animated: bool
    """Whether the file holds more frames."""


def decode(data: bytes, channels: int, background: str = "black") -> Decoded:
    """Decode the bytes of an image file as 8-bit gray (channels = 1) or RGB (channels = 3).

    EXIF orientation is applied, transparency composited on the color `background`, CMYK and palettes converted. Deeper
    images are scaled to 8 bits: 16-bit integers by 255/65535, floats by 255 if they lie within [0, 1]; floats within
    [0, 255] keep their scale. Color profiles are ignored. Raises UserError saying why an image is not readable.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:  # where the limit was raised or the warnings are off
                raise ValueError(f"got {opened.width} × {opened.height} pixels, expected at most {MAX_PIXELS:,}")
            animated = bool(getattr(opened, "is_animated", False))
            image = eight_bit(ImageOps.exif_transpose(opened))
        if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
            shown = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", shown.size, background), shown)
        return Decoded(image.convert("L" if channels == 1 else "RGB"), animated)
    except UnidentifiedImageError as error:
        got = f"{len(data)} bytes of something else" if data else "an empty file"
        raise UserError(f"not a readable image (got {got}, expected {', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow's plugins raise all sorts of errors on broken files
        raise UserError(f"not a readable image ({type(error).__name__}: {error})") from error


def eight_bit(image: Image.Image) -> Image.Image:
    """Return an image of more than 8 bits scaled to mode L or LA, and any other as it is.

    Pillow's own conversion would clip the values instead. Raises ValueError for values outside of the scaled range.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float64)
    deepest = 65535.0 if image.mode.startswith("I") else 1.0 if values.max(initial=0) <= 1 else 255.0
    if not (values.min() >= 0 and values.max() <= deepest):  # NaN fails both
        raise ValueError(f"got values from {values.min():g} to {values.max():g}, expected 0 to {deepest:g}")
    gray = Image.fromarray(np.rint(values * (255 / deepest)).astype(np.uint8))
    if "transparency" in image.info:  # the one value that is transparent
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        gray.putalpha(Image.fromarray(alpha))
    return gray


def check_background(color: str) -> None:
    """Raise UserError for a color that Pillow does not know."""
    try:
        ImageColor.getrgb(color)
    except ValueError as error:
        raise UserError(f"background: got {color!r}, expected a name such as white, or #rrggbb") from error


def boxes(size: Size, frame: Size, resize: str) -> tuple[Box, Box]:
    """Return which part of an image of `size` is used, and to which part of a frame of size `frame` it is scaled.

    resize: "fit" scales all of the image into the middle of the frame, as large as it fits; "fill" scales as much of
    the image's middle as fills the frame; "stretch" scales all of the image to the whole frame; "none" accepts only
    images of the frame's size. Raises UserError for an image of another size with "none".
    """
    (w, h), (width, height) = size, frame
    whole_image, whole_frame = (0, 0, w, h), (0, 0, width, height)
    if resize == "none" and size != frame:
        raise UserError(f"resize none: got {w} × {h} pixels, expected {width} × {height}")
    if resize == "fit":
        scale = min(width / w, height / h)
        return whole_image, centered((max(1, round(w * scale)), max(1, round(h * scale))), frame)
    if resize == "fill":
        scale = min(w / width, h / height)
        return centered((max(1, round(width * scale)), max(1, round(height * scale))), size), whole_frame
    return whole_image, whole_frame


def centered(size: Size, frame: Size) -> Box:
    """Return the box of `size` in the middle of `frame`."""
    left, top = (frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2
    return left, top, left + size[0], top + size[1]


def moved(image: Image.Image, used: Box, place: Box, frame: Size, background: str) -> Image.Image:
    """Return a new image of size `frame`: the part `used` of `image` scaled to the box `place`, and background."""
    out = Image.new(image.mode, frame, background)
    # Cropped first: resize's own `box` lets the filter see what lies around it.
    scaled = image.crop(used).resize((place[2] - place[0], place[3] - place[1]), Image.Resampling.LANCZOS)
    out.paste(scaled, place[:2])
    return out


def framed(image: Image.Image, frame: Size, resize: str = "fit", background: str = "black") -> Image.Image:
    """Return an image fitted to the size `frame` as `boxes` says. Raises UserError as `boxes` does."""
    used, place = boxes(image.size, frame, resize)
    return moved(image, used, place, frame, background)


def restored(image: Image.Image, size: Size, resize: str = "fit", background: str = "black") -> Image.Image:
    """Invert `framed`: return an image made from the frame at `size`, the size of the image that was framed.

    The background fills what "fill" had cut off.
    """
    used, place = boxes(size, image.size, resize)
    return moved(image, place, used, size, background)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image of mode L or RGB as float32 [C, H, W] in [-1, 1]."""
    return to_images(pixels_of(image))


def pixels_of(image: Image.Image) -> Tensor:
    """Return the pixels of an image of mode L or RGB: uint8 [C, H, W], C = 1 or 3."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)


def load_image(path: Path, shape: tuple[int, int, int], resize: str = "fit", background: str = "black") -> Tensor:
    """Load an image file as float32 of `shape` (C, H, W), C = 1 or 3, in [-1, 1].

    resize: how `boxes` fits it. Raises UserError with the path and the reason where that is not possible.
    """
    channels, height, width = shape
    try:
        return to_tensor(framed(decode(read(path), channels, background).image, (width, height), resize, background))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read(path: Path) -> bytes:
    """Return a file's bytes. Raises UserError with the reason where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"not a readable image ({error.strerror or error})") from error
