"""Fit images to the size of a network, and back."""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.stored import Pixels

Size = tuple[int, int]
"""(width, height)"""
Box = tuple[int, int, int, int]
"""(left, upper, right, lower) in pixels"""


def boxes(size: Size, frame: Size, resize: str) -> tuple[Box, Box]:
    """Return which part of an image of `size` is used, and to which part of a frame of size `frame` it is scaled.

    resize: "fit" scales all of the image into the middle of the frame, as large as it fits; "fill" scales as much of
    the image's middle as fills the frame; "stretch" scales all of the image to the whole frame; "crop" takes the
    image's middle as it is, of a smaller image as "fill" does; "none" accepts only images of the frame's size. Raises
    UserError for an image of another size with "none".
    """
    (w, h), (width, height) = size, frame
    whole_image, whole_frame = (0, 0, w, h), (0, 0, width, height)
    if resize == "none" and size != frame:
        raise UserError(f"resize none: got {w} × {h} pixels, expected {width} × {height}")
    if resize == "fit":
        scale = min(width / w, height / h)
        return whole_image, centered((max(1, round(w * scale)), max(1, round(h * scale))), frame)
    if resize in ("fill", "crop"):
        scale = min(w / width, h / height, *[1.0] * (resize == "crop"))
        return centered((max(1, round(width * scale)), max(1, round(height * scale))), size), whole_frame
    return whole_image, whole_frame


def half_of(image: Image.Image, half: str | None) -> Image.Image:
    """Return the "left" or the "right" half of an image, without the middle column of an odd number; None: all."""
    width, height = image.size
    left = {None: 0, "left": 0, "right": width - width // 2}[half]
    return image if half is None else image.crop((left, 0, left + width // 2, height))


def half_of_pixels(pixels: Pixels, half: str | None) -> Pixels:
    """Return the half of pixels [H, W, C] that `half_of` returns of an image."""
    width = pixels.shape[1]
    left = {None: 0, "left": 0, "right": width - width // 2}[half]
    return pixels if half is None else pixels[:, left : left + width // 2]


def centered(size: Size, frame: Size) -> Box:
    """Return the box of `size` in the middle of `frame`."""
    left, top = (frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2
    return left, top, left + size[0], top + size[1]


def moved(image: Image.Image, used: Box, place: Box, canvas: Image.Image) -> Image.Image:
    """Return `canvas`, of the mode of `image`, with the part `used` of `image` scaled to the box `place` in it."""
    # Cropped first: resize's own `box` lets the filter see what lies around it.
    part = image if used == (0, 0, *image.size) else image.crop(used)
    scaled = part.resize((place[2] - place[0], place[3] - place[1]), Image.Resampling.LANCZOS)
    canvas.paste(scaled, place[:2])
    return canvas


def framed(image: Image.Image, frame: Size, resize: str = "fit", background: str | float = "black") -> Image.Image:
    """Return an image fitted to the size `frame` as `boxes` says. Raises UserError as `boxes` does."""
    if image.size == frame:
        return image
    used, place = boxes(image.size, frame, resize)
    return moved(image, used, place, Image.new(image.mode, frame, background))


def restored(image: Image.Image, original: Image.Image, resize: str = "fit") -> Image.Image:
    """Invert `framed`: return an image made from the frame in the place that the original had in it.

    What "fill" had cut off the original stays around it.
    """
    used, place = boxes(original.size, image.size, resize)
    return moved(image, place, used, original.copy())


def framed_pixels(
    pixels: Pixels, frame: Size, resize: str, background: Iterable[float], *, weighted: bool = False
) -> Pixels:
    """Return pixels [H, W, C] of any depth fitted to the size `frame`, channel by channel, as `framed` does.

    background: the color of a border in [0, 1], by channel. weighted: the last channel is alpha, by which the others
    count. Raises UserError as `boxes` does.
    """
    height, width, _ = pixels.shape
    whole = np.iinfo(pixels.dtype).max
    if (width, height) == frame:
        return pixels
    planes = np.moveaxis(pixels, -1, 0).astype(np.float32) / whole
    if weighted:
        planes[:-1] *= planes[-1]
    pairs = zip(planes, background, strict=True)
    scaled = np.stack([np.asarray(framed(Image.fromarray(plane), frame, resize, c)) for plane, c in pairs], axis=-1)
    if weighted:
        alpha = scaled[..., -1:]
        scaled[..., :-1] = np.divide(scaled[..., :-1], alpha, out=np.zeros_like(scaled[..., :-1]), where=alpha > 0)
    return np.rint(scaled.clip(0, 1) * whole).astype(pixels.dtype)


def restored_image(image: Tensor, original: Tensor, resize: str) -> Tensor:
    """Return an image [C, h, w] in [-1, 1] in the place of the frame in its original [C, H, W], as `restored` does."""
    pairs = zip(image.cpu().numpy(), original.numpy(), strict=True)
    planes = [restored(Image.fromarray(plane), Image.fromarray(around), resize) for plane, around in pairs]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))
