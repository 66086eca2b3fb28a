"""How a file holds its image: as which numbers and in which order; and an image back into such numbers."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flowferry.datasets.pixels import to_pixels

Pixels = NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16 [H, W, C], 0 for black and the largest value for white."""


class Stored(NamedTuple):
    """How a file holds its image, so that what is made of it can be held alike."""

    dtype: np.dtype = np.dtype(np.uint8)
    range: tuple[float, float] = (0.0, 255.0)
    """Black and white."""
    are_colors: bool = True
    """Whether the channels are gray, gray and alpha, RGB or RGBA; otherwise they are bands of no known meaning."""
    channels_first: bool = False
    """Whether it is an array [C, H, W]."""

    def numbers(self, image: Tensor) -> NDArray[np.generic]:
        """Return an image [C, H, W] in [-1, 1] as numbers [H, W, C] of this kind, clipped to their range."""
        if self.dtype == np.uint8:
            return to_pixels(image).cpu().movedim(0, -1).numpy()
        low, high = self.range
        unit = (image.detach().double().cpu().movedim(0, -1).numpy().clip(-1, 1) + 1) / 2
        values = low + unit * (high - low)
        if self.are_colors and has_alpha(len(image)):
            values[..., -1] = unit[..., -1] * full_scale(self.dtype)
        if self.dtype.kind != "f":  # whose range may be wider than what they can hold
            held = np.iinfo(self.dtype)
            values = np.rint(values).clip(held.min, held.max)
        return values.astype(self.dtype)


def has_alpha(channels: int) -> bool:
    """Return whether the last of so many channels of a picture is alpha: of gray and alpha, and of RGBA."""
    return channels in (2, 4)


EIGHT_BITS = Stored()
SIXTEEN_BITS = Stored(np.dtype(np.uint16), (0.0, 65535.0))


# --- what numbers mean ----------------------------------------------------------------------------------


def integer_range(dtype: np.dtype, bits: int | None, highest: object) -> tuple[float, float]:
    """Return black and white: by the tag MaxSampleValue, by 9 to 15 bits a sample, or as is usual for the kind."""
    if dtype.kind != "f" and (white := first(highest)):
        return 0.0, float(white)
    if bits is not None and 8 < bits < 16:
        return 0.0, 2.0**bits - 1
    return usual_range(dtype)


def usual_range(dtype: np.dtype) -> tuple[float, float]:
    """Return black and white where a file does not say: 0 and 1 of floats, 0 and 65535 of integers of 16 bits or more.

    Integers of 32 bits as a rule hold what 16 could have held. Signed ones of 16 bits end at 32767, those of 8 bits at
    255 and 127.
    """
    if dtype.kind == "f":
        return 0.0, 1.0
    return 0.0, min(65535.0, float(np.iinfo(dtype).max))


def full_scale(dtype: np.dtype) -> float:
    """Return the value of an opaque pixel in the alpha channel: the largest one, or 1 of floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def first(value: Any) -> Any:
    """Return the first of the values in a TIFF tag, or its only one."""
    return value[0] if isinstance(value, tuple) and value else value
