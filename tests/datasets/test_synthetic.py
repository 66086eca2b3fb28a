"""Synthetic images: datasets/synthetic.py and garments.py."""

import random
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from flowferry.datasets.synthetic import draw_colors, draw_digits, draw_garments

Draw = Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]

for_both = pytest.mark.parametrize("draw", [draw_digits, draw_garments])
for_all = pytest.mark.parametrize("draw", [draw_digits, draw_garments, draw_colors])
SHAPES = {draw_digits: (28, 28), draw_garments: (28, 28), draw_colors: (3, 32, 32)}
COUNT = 500


@cache
def drawn(draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
    return draw(COUNT, 0)


def flat(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1).float() / 255


def seed_global_generators() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)


def next_global_numbers() -> tuple[float, float, float]:
    return torch.rand(1).item(), np.random.rand(), random.random()


@for_all
def test_shapes_and_types(draw: Draw) -> None:
    images, labels = drawn(draw)
    assert (images.shape, images.dtype) == ((COUNT, *SHAPES[draw]), torch.uint8)
    assert (labels.shape, labels.dtype) == ((COUNT,), torch.int64)


@for_both
def test_the_whole_range_of_grays_is_used(draw: Draw) -> None:
    images, _ = drawn(draw)
    assert images.min() == 0
    assert images.max() == 255
    assert images.unique().numel() > 200
    assert images.flatten(1).amax(dim=1).min() > 60  # no image is blank


@for_all
@pytest.mark.parametrize("count", [1, 17, 40])
def test_an_image_and_its_label_depend_on_nothing_but_seed_and_index(draw: Draw, count: int) -> None:
    images, labels = drawn(draw)
    seed_global_generators()
    fewer_images, fewer_labels = draw(count, 0)
    assert torch.equal(fewer_images, images[:count])
    assert torch.equal(fewer_labels, labels[:count])


@for_all
def test_drawing_leaves_the_global_generators_alone(draw: Draw) -> None:
    seed_global_generators()
    expected = next_global_numbers()
    seed_global_generators()
    draw(10, 0)
    assert next_global_numbers() == expected


@for_all
@pytest.mark.parametrize("seed", [1, -1, 2**40])
def test_another_seed_draws_other_images_in_another_order(draw: Draw, seed: int) -> None:
    images, labels = drawn(draw)
    other_images, other_labels = draw(40, seed)
    assert not torch.equal(other_labels, labels[:40])
    assert torch.cdist(flat(other_images), flat(images)).min() > 0.1


@for_all
def test_each_block_of_ten_holds_each_label_once_in_an_order_of_its_own(draw: Draw) -> None:
    _, labels = drawn(draw)
    blocks = labels.view(-1, 10)
    assert torch.equal(blocks.sort(dim=1).values, torch.arange(10).expand_as(blocks))
    assert blocks.unique(dim=0).shape == blocks.shape


def test_digits_and_garments_of_one_seed_are_not_paired_by_label() -> None:
    agreement = (drawn(draw_digits)[1] == drawn(draw_garments)[1]).float().mean()
    assert agreement < 0.2  # chance is 0.1


@for_both
def test_each_class_varies(draw: Draw) -> None:
    images, labels = drawn(draw)
    pixels = flat(images)
    assert torch.pdist(pixels).min() > 0.1  # no two images are alike
    for label in range(10):  # the mean squared distance from the class mean, measured at 13 to 38
        assert pixels[labels == label].var(dim=0).sum() > 8


@for_both
def test_a_linear_classifier_fitted_to_one_seed_names_the_images_of_another(draw: Draw) -> None:
    """Measured: 0.95 of the digits and 0.98 of the garments; chance is 0.1."""
    images, labels = drawn(draw)
    others, truth = draw(300, 1)
    pixels, targets = flat(images), torch.nn.functional.one_hot(labels, 10).float()
    ridge = pixels.T @ pixels + 10 * torch.eye(28 * 28)
    hits = (flat(others) @ torch.linalg.solve(ridge, pixels.T @ targets)).argmax(dim=1) == truth
    assert hits.float().mean() > 0.85
    assert min(hits[truth == label].float().mean() for label in range(10)) > 0.6


def test_digits_are_framed_as_in_mnist() -> None:
    images, _ = drawn(draw_digits)
    border = torch.ones(28, 28, dtype=torch.bool)
    border[2:26, 2:26] = False
    assert images[:, border].max() == 0
    assert 18 <= (images > 0).any(dim=2).sum(dim=1).float().mean() <= 21  # rows with ink: 20 in MNIST


def test_garments_fill_the_frame() -> None:
    images, _ = drawn(draw_garments)
    rows, columns = (images > 0).any(dim=2).sum(dim=1), (images > 0).any(dim=1).sum(dim=1)
    assert torch.maximum(rows, columns).min() >= 25


@for_all
@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(draw: Draw, count: int) -> None:
    with pytest.raises(ValueError, match=rf"^count: got {count}, expected at least 1$"):
        draw(count, 0)


# --- in color ------------------------------------------------------------------------------------------


def colored() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The garments framed on 32×32 [N, 32, 32], and the same in color [N, 3, 32, 32], in 0 … 1; where cloth is."""
    gray = torch.nn.functional.pad(drawn(draw_garments)[0], (2, 2, 2, 2)).double() / 255
    return gray, drawn(draw_colors)[0].double() / 255, gray > 0


def test_colors_are_the_garments_with_their_labels() -> None:
    """Each channel of the cloth is the gray garment times one number: the channel's part of the color."""
    gray, color, cloth = colored()
    assert torch.equal(drawn(draw_colors)[1], drawn(draw_garments)[1])
    of_cloth = color * cloth[:, None]
    paint = (of_cloth * gray[:, None]).sum((2, 3)) / gray.square().sum((1, 2))[:, None]  # least squares
    expected = paint[..., None, None] * gray[:, None]
    torch.testing.assert_close(of_cloth, expected, rtol=0, atol=1.1 / 255)  # rounded to whole numbers
    assert paint.min() > 0.19 and paint.max() < 1.01


def test_the_ground_is_of_one_dim_color_around_the_garment() -> None:
    _, color, cloth = colored()
    for image, on in zip(color, cloth, strict=True):
        (shade,) = image[:, ~on].T.unique(dim=0)
        assert shade.min() > 0.07 and shade.max() < 0.41


def test_each_image_has_colors_of_its_own() -> None:
    gray, color, cloth = colored()
    paint = (color * cloth[:, None]).sum((2, 3)) / gray.sum((1, 2))[:, None]
    ground = color[:, :, 0, 0]
    assert (color.amax(dim=1) - color.amin(dim=1)).flatten(1).amax(dim=1).min() > 4 / 255  # none is gray
    assert torch.pdist(torch.cat([paint, ground], dim=1)).min() > 0.01
    numbers = torch.corrcoef(torch.cat([paint, ground], dim=1).T) - torch.eye(6)
    assert numbers.abs().max() < 5 / COUNT**0.5  # red, green and blue, of cloth and ground, are independent


def test_another_seed_brings_other_colors() -> None:
    """Not only other garments."""
    ground = drawn(draw_colors)[0][:40, :, 0, 0].float()
    other = draw_colors(40, 1)[0][:, :, 0, 0].float()
    assert (ground - other).abs().amax(dim=1).min() > 0
