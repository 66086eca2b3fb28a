"""Laws of tiles and of padding: pipelines/flow/tiling.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.guidance import ConditionalVelocity
from flowferry.pipelines.flow.tiling import padded, reflected, tiled, windows

T = torch.tensor(0.3, dtype=torch.float64)
SIZES = [(40, 16, 4), (40, 16, 0), (41, 16, 12), (16, 16, 8), (7, 16, 4), (17, 16, 15), (100, 10, 9), (5, 1, 0)]


def images(height: int, width: int, device: torch.device, seed: int = 0) -> Tensor:
    values = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(device) * 2 - 1


def seen(height: int, width: int, device: torch.device) -> Condition:
    return Condition(torch.tensor([3, 1], device=device), images(height, width, device, seed=1), 10)


def pointwise(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Return a velocity that depends on each pixel, its source, its class and the time alone."""
    return torch.sin(3 * x) * condition.image + t * condition.label[:, None, None, None]


class Blur:
    """A convolution of 5×5 pixels over x and the source, and the shapes that it was given."""

    radius = 2

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.shapes.append(tuple(x.shape))
        kernel = torch.arange(3 * 6 * 25, dtype=x.dtype, device=x.device).reshape(3, 6, 5, 5).sin() / 10
        return torch.tanh(F.conv2d(torch.cat([x, condition.image], dim=1), kernel, padding=self.radius))


@pytest.mark.parametrize("side, size, overlap", SIZES)
def test_the_weights_of_all_windows_sum_to_one_at_each_pixel(side: int, size: int, overlap: int) -> None:
    total = torch.zeros(side)
    for part, weights in windows(side, size, overlap):
        assert (weights > 0).all() and len(weights) == part.stop - part.start == min(size, side)
        total[part] += weights
    torch.testing.assert_close(total, torch.ones(side))


@pytest.mark.parametrize("side, size, overlap", SIZES)
def test_windows_start_evenly_and_the_last_ends_where_the_axis_does(side: int, size: int, overlap: int) -> None:
    parts = [part for part, _ in windows(side, size, overlap)]
    assert parts[0].start == 0 and parts[-1].stop == side
    steps = np.diff([part.start for part in parts])
    assert (steps[:-1] == size - overlap).all() and (steps > 0).all() and (steps <= size - overlap).all()


def test_weights_fade_smoothly_over_the_overlap_alone() -> None:
    (_, first), (_, middle), (_, last) = windows(40, 16, 4)
    ramp = torch.sin(torch.pi / 2 * (torch.arange(4) + 0.5) / 4) ** 2
    torch.testing.assert_close(middle, torch.cat([ramp, torch.ones(8), ramp.flip(0)]))
    torch.testing.assert_close(first, torch.cat([torch.ones(12), ramp.flip(0)]))  # nothing lies before it
    torch.testing.assert_close(last, first.flip(0))


@pytest.mark.parametrize("height, width, size, overlap", [(40, 25, 16, 4), (16, 40, 16, 8), (33, 50, 10, 0)])
def test_the_tiled_velocity_of_a_pointwise_one_is_that_velocity(
    height: int, width: int, size: int, overlap: int, device: torch.device
) -> None:
    x, condition, t = images(height, width, device), seen(height, width, device), T.to(device)
    found = tiled(pointwise, size, overlap)(x, t, condition)
    torch.testing.assert_close(found, pointwise(x, t, condition), rtol=1e-6, atol=1e-6)  # weights are of 32 bits


@pytest.mark.parametrize("height, width", [(16, 16), (9, 16), (16, 5)])
def test_an_image_of_one_tile_is_given_to_the_network_as_it_is(height: int, width: int, device: torch.device) -> None:
    x, condition, t, blur = images(height, width, device), seen(height, width, device), T.to(device), Blur()
    found = tiled(blur, 16, 4)(x, t, condition)
    assert blur.shapes == [tuple(x.shape)]
    assert torch.equal(found, blur(x, t, condition))


def test_no_window_is_larger_than_a_tile(device: torch.device) -> None:
    blur = Blur()
    tiled(blur, 16, 4)(images(40, 10, device), T.to(device), seen(40, 10, device))
    assert blur.shapes == [(2, 3, 16, 10)] * 3


def test_tiles_agree_with_one_pass_where_no_tile_s_border_is_in_reach(device: torch.device) -> None:
    """The weight of a pixel in a window is nearly 0 where the window's border is in reach, and exact elsewhere."""
    x, condition, t, blur = images(64, 64, device), seen(64, 64, device), T.to(device), Blur()
    whole, found = blur(x, t, condition), tiled(blur, 32, 16)(x, t, condition)
    at_border = torch.zeros(64, dtype=torch.bool)
    for part, _ in windows(64, 32, 16):
        for end in (part.start, part.stop):
            if 0 < end < 64:
                at_border[end - blur.radius : end + blur.radius] = True
    touched = at_border[:, None] | at_border
    difference = (found - whole).abs().cpu()
    assert difference[..., ~touched].max() < 1e-6
    assert 1e-6 < difference[..., touched].max() < 0.1  # by weights of at most sin²(π/2 · 1.5/16)


@pytest.mark.parametrize("height, width, multiple", [(10, 13, 4), (1, 1, 8), (2, 3, 16), (12, 8, 5), (5, 16, 8)])
def test_padding_continues_images_by_reflection_as_numpy_does_and_is_cut_off(
    height: int, width: int, multiple: int, device: torch.device
) -> None:
    given: list[Tensor] = []

    def v(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        given.extend([x, condition.image])
        return pointwise(x, t, condition)

    x, condition, t = images(height, width, device), seen(height, width, device), T.to(device)
    found = padded(v, multiple)(x, t, condition)
    assert torch.equal(found, pointwise(x, t, condition))
    more = [(0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)]
    for got, own in zip(given, (x, condition.image), strict=True):
        np.testing.assert_array_equal(got.cpu().numpy(), np.pad(own.cpu().numpy(), more, mode="reflect"))


def test_a_multiple_is_not_padded(device: torch.device) -> None:
    x, condition, t, blur = images(8, 12, device), seen(8, 12, device), T.to(device), Blur()
    assert torch.equal(padded(blur, 4)(x, t, condition), blur(x, t, condition))
    assert blur.shapes[0] == tuple(x.shape)


@pytest.mark.parametrize("wrap", [lambda v: tiled(v, 8, 4), lambda v: padded(v, 8)])
def test_without_a_source_to_see_there_is_none_in_a_window(wrap: ConditionalVelocity, device: torch.device) -> None:
    told: list[Condition] = []

    def v(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        told.append(condition)
        return 2 * x

    x, condition = images(21, 20, device), Condition(torch.tensor([3, 1], device=device), None, 10)
    torch.testing.assert_close(wrap(v)(x, T.to(device), condition), 2 * x, rtol=1e-6, atol=1e-6)
    assert all(one is condition for one in told)


def test_reflection_is_repeated_where_one_does_not_reach() -> None:
    assert reflected(3, 8).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert reflected(1, 3).tolist() == [0, 0, 0]
