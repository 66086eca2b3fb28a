"""From the numbers of an image to pixels of 16 bits: scaled, in sRGB, in the channels that are asked for."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from flowferry.configs.images import ReadConfig
from flowferry.datasets.backgrounds import NEARLY
from flowferry.datasets.color_profiles import to_srgb_values
from flowferry.datasets.deep_images import Deep
from flowferry.datasets.stored import Pixels, full_scale, has_alpha

OVERSHOOT = 0.1  # of the range: what resampling filters add, and is clipped
BLOCK = 2**22  # values that are converted at a time
LITTLE = 0.1  # of the range: an image that uses less is told
LUMA = np.array([0.299, 0.587, 0.114])  # of R, G and B, by ITU-R 601, as Pillow has it


def range_of(deep: Deep, reading: ReadConfig) -> tuple[float, float]:
    """Return black and white: as is asked for, or as the file says; those of 8 bits are always 0 and 255."""
    return deep.range if deep.values.dtype == np.uint8 else reading.range or deep.range


def check_range(deep: Deep, reading: ReadConfig) -> list[str]:
    """Return notes on how an image fills its range: "clipped", "little range".

    A small overshoot is clipped, unless `reading.strict`. Raises ValueError for values that are not finite or lie
    further outside of the range.
    """
    low, high = range_of(deep, reading)
    colors = deep.values[..., : num_colors(deep)]
    least, most = ((float(value) - low) / (high - low) for value in (colors.min(), colors.max()))
    allowed = 0.0 if reading.strict else OVERSHOOT
    if not (least >= -allowed and most <= 1 + allowed):  # NaN fails both
        raise ValueError(
            f"got {colors.dtype} values from {colors.min():g} to {colors.max():g}, expected {low:g} to {high:g}; "
            "the option range says which values are black and white"
        )
    if deep.values.dtype == np.uint8:
        return []
    notes = ["clipped"] if least < 0 or most > 1 else []
    return notes + (["little range"] if most - least < LITTLE else [])


def convert_on_background(
    deep: Deep, channels: int, reading: ReadConfig, profile: bytes | None
) -> tuple[Pixels, Pixels | None, NDArray[np.float64]]:
    """Return what `convert` does, and the color behind the image, chosen as `backgrounds.background_of` does."""
    color = reading.background
    if color == "auto":
        opacity: NDArray[Any] = deep.values[..., num_colors(deep) :]
        color = "white" if (opacity < full_scale(opacity.dtype)).any() else "black"
    pixels, alpha = convert(deep, channels, replace(reading, background=color), profile)
    if reading.background == "auto" and color == "white" and nearly_one_color(pixels):
        on_black, _ = convert(deep, channels, replace(reading, background="black"), profile)
        color, pixels = (color, pixels) if nearly_one_color(on_black) else ("black", on_black)
    return pixels, alpha, background_values(color, channels)


def nearly_one_color(pixels: Pixels) -> bool:
    """Return whether all pixels have nearly the same color, as `backgrounds.is_one_color` says of 8 bits."""
    return bool((np.ptp(pixels, axis=(0, 1)) <= NEARLY / 255 * np.iinfo(pixels.dtype).max).all())


def num_colors(deep: Deep) -> int:
    """Return how many channels are not alpha."""
    channels = deep.values.shape[-1]
    return channels - (deep.are_colors and has_alpha(channels))


def convert(deep: Deep, channels: int, reading: ReadConfig, profile: bytes | None) -> tuple[Pixels, Pixels | None]:
    """Return the pixels [H, W, channels], uint8 of 8 bits and uint16 of any other numbers, and the alpha [H, W, 1].

    The alpha is that of a transparent image which was laid on the background, because no alpha is asked for; else None.
    """
    dtype = np.uint8 if deep.values.dtype == np.uint8 else np.uint16
    blocks = np.array_split(deep.values, math.ceil(deep.values.size / BLOCK))  # rows, to take little memory at a time
    whole = np.iinfo(dtype).max
    converted = [
        np.rint(convert_rows(block, deep, channels, reading, profile).clip(0, 1) * whole).astype(dtype)
        for block in blocks
    ]
    pixels = np.concatenate(converted)
    return pixels[..., :channels], pixels[..., channels:] if pixels.shape[-1] > channels else None


def convert_rows(
    values: NDArray[np.generic], deep: Deep, channels: int, reading: ReadConfig, profile: bytes | None
) -> NDArray[np.float64]:
    """Return rows [H, W, C] of a deep image in [0, 1]: `channels`, and one more for an alpha that they leave out."""
    count, (low, high) = num_colors(deep), range_of(deep, reading)
    alpha = values[..., count:].astype(np.float64) / full_scale(values.dtype)
    color = values[..., :count].astype(np.float64)
    if deep.premultiplied:
        color = np.divide(color, alpha, out=np.zeros_like(color), where=alpha > 0)
    color = (color - low) / (high - low)
    color = 1 - color if deep.inverted else color
    if not deep.are_colors:
        return color
    color = in_colors(to_srgb_values(color, profile), channels - has_alpha(channels))
    if has_alpha(channels):
        return np.concatenate([color, alpha if alpha.shape[-1] else np.ones_like(color[..., :1])], axis=-1)
    if alpha.shape[-1]:
        behind = background_values(reading.background, channels)
        color = np.concatenate([color.clip(0, 1) * alpha + behind * (1 - alpha), alpha], axis=-1)
    return color


def in_colors(color: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return gray or RGB [H, W, 1 or 3] as gray (count = 1) or RGB (count = 3)."""
    if count < color.shape[-1]:
        return color @ LUMA[:, None]
    return np.repeat(color, 3, axis=-1) if count > color.shape[-1] else color


def background_values(background: str, channels: int) -> NDArray[np.float64]:
    """Return a color in [0, 1] as it is in `channels`: gray, RGB, opaque with alpha, or its gray in every band."""
    mode = {2: "LA", 3: "RGB", 4: "RGBA"}.get(channels, "L")
    color = np.atleast_1d(ImageColor.getcolor(background, mode)) / 255.0
    return np.broadcast_to(color, channels) if len(color) == 1 else color
