"""Images of 8 bits as Pillow reads them: whole, turned upright, in the mode that is asked for."""

from io import BytesIO
from typing import NamedTuple

from PIL import ExifTags, Image

from flowferry.configs.images import ReadConfig
from flowferry.datasets.deep_images import Deep, deep_from_pillow
from flowferry.datasets.file_repair import jpeg_endings
from flowferry.datasets.image_formats import FORMATS
from flowferry.datasets.stored import has_alpha

NEVER_ALL_CLEAR = ("BMP", "DIB", "TGA")  # formats whose writers often leave alpha at zero and mean nothing by it
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by the number of channels

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


class Loaded(NamedTuple):
    """An image as its format has it: of 8 bits, or as numbers."""

    image: Image.Image | Deep
    notes: list[str]
    orientation: int = 1
    """As EXIF numbers them."""
    profile: bytes | None = None
    """The ICC profile of its colors."""


def load_with_pillow(data: bytes, reading: ReadConfig) -> Loaded:
    """Return the first frame of a file as Pillow reads it. Raises any error where that is not possible."""
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
        return Loaded(deep_from_pillow(image), notes, turned, profile)
    if kind in NEVER_ALL_CLEAR and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
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


def flattened(image: Image.Image, channels: int, background: str) -> tuple[Image.Image, Image.Image | None]:
    """Return an image in `channels`, laid on a color where it is transparent and no alpha is asked for; and its alpha.

    channels: 1 for gray, 2 for gray and alpha, 3 for RGB, 4 for RGBA. The alpha, of mode L, is that of an image that
    was laid on the color; else None.
    """
    mode, alpha = MODES[channels], None
    if has_alpha(channels):
        image = in_mode(image, "RGBA")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return in_mode(image, mode), alpha


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in a mode, without a copy where it is in that mode."""
    return image if image.mode == mode else image.convert(mode)
