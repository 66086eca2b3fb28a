"""The one loader of image files: from the bytes of any accepted format to the frame of a network, and back."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from configs.checks import UserError
from datasets.pixels import to_images

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")  # not those that start other programs, as EPS does
MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**26  # above Pillow's own limit it only warns: here that is an error

Size = tuple[int, int]
"""(width, height)"""
Box = tuple[int, int, int, int]
"""(left, upper, right, lower) in pixels"""

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
Image.init()  # Pillow loads its formats at need, but not from several threads at once


class Decoded(NamedTuple):
    """An image of mode L or RGB, upright; animated: whether it is the first of several frames."""

    image: Image.Image
    animated: bool


def decode(data: bytes, channels: int, background: str = "black") -> Decoded:
    """The bytes of an image file as 8-bit grey (channels = 1) or RGB (3).

    EXIF orientation is applied, transparency composited on `background`, CMYK and palettes converted, and the range
    of deeper images kept: 16 bits a channel are scaled by 1/257, floats within [0, 1] by 255. Colour profiles are not
    applied. Raises UserError with the reason.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:  # where the limit was raised or the warnings are off
                raise ValueError(f"{opened.width} × {opened.height} pixels: accepted are at most {MAX_PIXELS:,}")
            animated = bool(getattr(opened, "is_animated", False))
            image = eight_bit(ImageOps.exif_transpose(opened))
        if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
            shown = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", shown.size, background), shown)
        return Decoded(image.convert("L" if channels == 1 else "RGB"), animated)
    except UnidentifiedImageError as error:
        found = f"{len(data)} bytes of something else" if data else "an empty file"
        raise UserError(f"not a readable image (found {found}, accepted: {', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow's plugins raise all sorts of errors on broken files
        raise UserError(f"not a readable image ({type(error).__name__}: {error})") from error


def eight_bit(image: Image.Image) -> Image.Image:
    """Pillow clips integers and floats of more than 8 bits when it converts them: here their range is scaled."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float64)
    deepest = 65535.0 if image.mode.startswith("I") else 1.0 if values.max(initial=0) <= 1 else 255.0
    if not (values.min() >= 0 and values.max() <= deepest):  # NaN fails both
        raise ValueError(f"values from {values.min():g} to {values.max():g}: accepted are 0 to {deepest:g}")
    grey = Image.fromarray(np.rint(values * (255 / deepest)).astype(np.uint8))
    if "transparency" in image.info:  # the one value that is transparent
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(alpha))
    return grey


def check_background(colour: str) -> None:
    """Raises UserError for a colour that Pillow does not know."""
    try:
        ImageColor.getrgb(colour)
    except ValueError as error:
        raise UserError(f"background: found {colour!r}, accepted: a name such as white, or #rrggbb") from error


def boxes(size: Size, frame: Size, resize: str) -> tuple[Box, Box]:
    """(the part of an image that is used, where it comes to lie in the frame).

    fit: all of it, as large as the frame allows; fill: as much of its middle as fills the frame; stretch: all of it in
    all of the frame; none: likewise, and UserError for an image of another size than the frame's.
    """
    (w, h), (width, height) = size, frame
    whole, all_of_it = (0, 0, width, height), (0, 0, w, h)
    if resize == "none" and size != frame:
        raise UserError(f"{w} × {h} pixels: with --resize none, accepted are {width} × {height}")
    if resize == "fit":
        scale = min(width / w, height / h)
        return all_of_it, centred((max(1, round(w * scale)), max(1, round(h * scale))), frame)
    if resize == "fill":
        scale = min(w / width, h / height)
        return centred((max(1, round(width * scale)), max(1, round(height * scale))), size), whole
    return all_of_it, whole


def centred(size: Size, frame: Size) -> Box:
    left, top = (frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2
    return left, top, left + size[0], top + size[1]


def moved(image: Image.Image, used: Box, place: Box, frame: Size, background: str) -> Image.Image:
    """The part `used` of an image, scaled to the box `place` of a new image of size `frame`."""
    out = Image.new(image.mode, frame, background)
    # Cropped first: resize's own `box` lets the filter see what lies around it.
    scaled = image.crop(used).resize((place[2] - place[0], place[3] - place[1]), Image.Resampling.LANCZOS)
    out.paste(scaled, place[:2])
    return out


def framed(image: Image.Image, frame: Size, resize: str = "fit", background: str = "black") -> Image.Image:
    """An image brought to the frame's size."""
    used, place = boxes(image.size, frame, resize)
    return moved(image, used, place, frame, background)


def restored(image: Image.Image, size: Size, resize: str = "fit", background: str = "black") -> Image.Image:
    """The inverse of `framed` for what was made of the frame: back at the size of the first image."""
    used, place = boxes(size, image.size, resize)
    return moved(image, place, used, size, background)


def to_tensor(image: Image.Image) -> Tensor:
    """An image of mode L or RGB -> float [C, H, W] in [-1, 1]."""
    return to_images(pixels_of(image))


def pixels_of(image: Image.Image) -> Tensor:
    """An image of mode L or RGB -> uint8 [C, H, W]."""
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)


def load_image(path: Path, shape: tuple[int, int, int], resize: str = "fit", background: str = "black") -> Tensor:
    """An image file as float [C, H, W] in [-1, 1], brought to `shape`. Raises UserError naming the file."""
    channels, height, width = shape
    try:
        return to_tensor(framed(decode(read(path), channels, background).image, (width, height), resize, background))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read(path: Path) -> bytes:
    """A file's bytes; UserError with the reason where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"not a readable image ({error.strerror or error})") from error
