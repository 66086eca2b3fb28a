"""The conversion of pixels and its inverse: datasets/pixels.py."""

import pytest
import torch

from flowferry.datasets.pixels import to_images, to_pixels

ALL = torch.arange(256, dtype=torch.uint8)


def test_each_pixel_value_survives_the_trip_there_and_back() -> None:
    assert torch.equal(to_pixels(to_images(ALL)), ALL)


def test_pixels_span_minus_1_to_1_evenly() -> None:
    torch.testing.assert_close(to_images(ALL), torch.linspace(-1, 1, 256))


@pytest.mark.parametrize("offset", [-0.45, 0.45])
def test_pixels_are_rounded_not_floored(offset: float) -> None:
    assert torch.equal(to_pixels(to_images(ALL) + offset / 127.5), ALL)


def test_values_outside_are_clipped_not_wrapped() -> None:
    assert to_pixels(torch.tensor([-7.0, -1.02, 1.02, 7.0])).tolist() == [0, 0, 255, 255]


def test_converting_leaves_its_argument_alone() -> None:
    images, pixels = to_images(ALL), ALL.clone()
    before = images.clone()
    to_pixels(images), to_images(pixels)
    assert torch.equal(images, before)
    assert torch.equal(pixels, ALL)
