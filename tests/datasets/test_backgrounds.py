"""The color behind transparent images: datasets/backgrounds.py."""

import re

import pytest
from PIL import Image

from flowferry.configs.validation import UserError
from flowferry.datasets.backgrounds import background_of, check_background, is_one_color


def drawn(ink: tuple[int, ...], size: int = 20) -> Image.Image:
    """A square of one color on nothing."""
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    image.paste(ink, (5, 5, 15, 15))
    return image


EXPECTED = [
    (drawn((0, 0, 0, 255)), "white"),
    (drawn((200, 30, 60, 255)), "white"),
    (drawn((255, 255, 255, 255)), "black"),  # on white there is nothing to see
    (drawn((250, 250, 252, 255)), "black"),
    (drawn((255, 255, 255, 90)), "black"),
    (Image.new("RGBA", (20, 20), (0, 0, 0, 0)), "white"),  # nor is there on black
    (Image.new("RGBA", (20, 20), (0, 0, 0, 255)), "black"),  # it is not transparent
    (drawn((0, 0, 0, 255)).convert("LA"), "white"),
    (Image.new("RGB", (20, 20), "white"), "black"),
    (Image.new("L", (20, 20), 255), "black"),
]


@pytest.mark.parametrize(("image", "color"), EXPECTED)
def test_white_is_chosen_unless_only_black_shows_something(image: Image.Image, color: str) -> None:
    assert background_of(image, "auto") == color
    assert background_of(image, "#123456") == "#123456"


def test_colors_that_are_not_known_are_refused() -> None:
    for color in ("auto", "white", "#102030"):
        check_background(color)
    with pytest.raises(UserError, match=f"^{re.escape('background: got ')}'whit', expected auto, a name such as white"):
        check_background("whit")


def test_nearly_one_color_is_one_color() -> None:
    image = Image.new("RGB", (8, 8), (100, 100, 100))
    image.putpixel((3, 3), (100, 108, 100))
    assert is_one_color(image)
    image.putpixel((3, 4), (100, 109, 100))
    assert not is_one_color(image)
