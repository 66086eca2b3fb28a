"""Images on the page: small ones enlarged pixel by pixel; and the mask that is read from what was painted."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from flowferry.configs.validation import UserError
from flowferry.datasets.pixels import to_pixels
from flowferry.pipelines.serving.pictures import enlarged, painted, to_look_at


def png_of(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_small_image_is_shown_with_each_pixel_as_a_square() -> None:
    image = torch.rand(1, 28, 14) * 2 - 1
    shown = np.asarray(to_look_at(image))
    assert shown.shape == (448, 224) and enlarged(28, 14) == (224, 448)
    assert np.array_equal(shown, np.kron(to_pixels(image)[0].numpy(), np.ones((16, 16), np.uint8)))


@pytest.mark.parametrize(("height", "width"), [(448, 300), (600, 100), (2048, 7)])
def test_a_larger_one_is_shown_as_it_is_up_to_a_limit(height: int, width: int) -> None:
    image = torch.rand(3, height, width) * 2 - 1
    assert np.array_equal(np.asarray(to_look_at(image)), to_pixels(image).movedim(0, -1).numpy())
    assert to_look_at(torch.zeros(4, 3 * height, 3000)).size[0] <= 2048


def test_a_mask_is_white_where_something_opaque_was_painted() -> None:
    layer = np.zeros((40, 60, 4), np.uint8)
    layer[5:10, 20:30] = (249, 115, 22, 255)
    layer[10, 20:30] = (249, 115, 22, 100)  # the faint rim of a stroke
    mask = painted(png_of(layer), (60, 40))
    assert mask is not None
    assert np.array_equal(np.asarray(Image.open(BytesIO(mask))), np.where(layer[..., 3] > 127, 255, 0))
    assert painted(png_of(np.zeros((40, 60, 4), np.uint8)), (60, 40)) is None


def test_a_layer_of_another_size_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = png_of(np.zeros((40, 61, 4), np.uint8))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UserError, match="mask: got 61 × 40 pixels, expected 60 × 40"):
        painted(layer, (60, 40))
