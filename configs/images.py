"""How image files are read: a part of the configuration of image folders, and options of `translate`."""

from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Literal

from flowferry.configs.validation import Range, UserError, Validated


@dataclass(frozen=True, kw_only=True)
class ReadConfig(Validated):
    """How an image file becomes an 8-bit image of the network's size."""

    resize: Literal["fit", "fill", "stretch", "crop", "none"] = "fit"
    """How to bring an image to the pipeline's size: fit all of it inside a border, fill with its middle, stretch it,
    crop: cut a part of that size out of it, in training anywhere, else in its middle; or none: accept only that
    size."""
    background: str = "auto"
    """Color behind transparent images and of borders: a name such as white, or #rrggbb. auto: white behind transparent
    images, but black where nothing could be seen on white; and black around others."""
    range: tuple[float, float] | None = None
    """Which values of images of more than 8 bits are black and white, such as 0 4095 for 12-bit data. None: as their
    TIFF tags say, else 0 and 65535 of integers, 0 and 1 of floating-point numbers."""
    max_pixels: Annotated[int, Range(1)] = 2**28
    """Refuse larger images, because a file of a few kilobytes can ask for more memory than there is."""
    strict: bool = False
    """Refuse files that are whole but for their wrapping: a JPEG without its end marker, a PNG with a damaged chunk
    beside the image, values a little out of range."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.range is not None:
            low, high = self.range
            if not (low < high and isfinite(high - low)):
                raise UserError(f"range: got {low:g} {high:g}, expected two finite numbers, the smaller one first")
