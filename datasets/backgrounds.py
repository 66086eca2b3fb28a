"""The color behind transparent images, and whether anything can be seen on it."""

from PIL import Image, ImageColor

from flowferry.configs.validation import UserError

NEARLY = 8  # values of 256, by which the pixels of one color may differ


def check_background(color: str) -> None:
    """Raise UserError for a color that Pillow does not know, and that is not "auto"."""
    try:
        ImageColor.getrgb("white" if color == "auto" else color)
    except ValueError as error:
        raise UserError(f"background: got {color!r}, expected auto, a name such as white, or #rrggbb") from error


def background_of(image: Image.Image, color: str) -> str:
    """Return the color behind an image: `color`, unless that is "auto".

    Then it is white, which is what most transparent images are drawn for; but black for an image that is not
    transparent, and for one that can be seen on black alone.
    """
    if color != "auto":
        return color
    if not image.has_transparency_data or image.convert("RGBA").getchannel("A").getextrema()[0] == 255:
        return "black"
    on_black_alone = is_one_color(composited(image, "white")) and not is_one_color(composited(image, "black"))
    return "black" if on_black_alone else "white"


def composited(image: Image.Image, background: str) -> Image.Image:
    """Return an image laid on a color where it is transparent."""
    if not image.has_transparency_data:
        return image
    shown = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", shown.size, background), shown)


def is_one_color(image: Image.Image) -> bool:
    """Return whether all pixels of an image of 8 bits have nearly the same color."""
    ranges = image.getextrema()
    return all(high - low <= NEARLY for low, high in (ranges if isinstance(ranges[0], tuple) else [ranges]))
