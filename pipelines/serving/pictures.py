"""Images as the page shows them, and what is painted on one as a mask."""

from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.image_io import decode
from flowferry.datasets.image_writing import png
from flowferry.datasets.pixels import to_pil

SMALL, LARGE = 448, 2048  # pixels of the longer side: a smaller image is enlarged to about the first, a larger reduced


def enlarged(height: int, width: int) -> tuple[int, int]:
    """Return the width and the height in which a small image is shown: a whole multiple of its own."""
    scale = max(1, round(SMALL / max(height, width)))
    return width * scale, height * scale


def to_look_at(image: Tensor) -> Image.Image:
    """Return an image [C, H, W] for the page: of a small one each pixel as a square, a large one reduced."""
    picture = to_pil(image)
    if max(picture.size) > LARGE:
        picture.thumbnail((LARGE, LARGE))
        return picture
    return picture.resize(enlarged(*image.shape[1:]), Image.Resampling.NEAREST)


def painted(layer: bytes, size: tuple[int, int]) -> bytes | None:
    """Return a PNG file that is white where an image file is opaque; None where it is nowhere.

    Raises UserError for an image of another size than `size` (width, height), before it is decoded.
    """
    found = Image.open(BytesIO(layer)).size
    if found != size:
        raise UserError(f"mask: got {found[0]} × {found[1]} pixels, expected {size[0]} × {size[1]}")
    pixels = decode(layer, 4, ReadConfig(max_pixels=size[0] * size[1])).pixels
    opaque = pixels[..., 3] > np.iinfo(pixels.dtype).max // 2
    return png(Image.fromarray(opaque.astype(np.uint8) * 255)) if opaque.any() else None
