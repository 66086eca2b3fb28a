"""What one image shows is moved to where another shows it: datasets/registration.py."""

import pytest
import torch
from torch import Tensor

from flowferry.datasets.registration import displacement, registered

SIDE, MARGIN = 64, 8


def scenes(count: int = 6, channels: int = 3) -> Tensor:
    """Images [count, channels, 80, 80] of boxes in random places on white, larger than SIDE by MARGIN all around."""
    g = torch.Generator().manual_seed(0)
    side = SIDE + 2 * MARGIN
    images = torch.ones(count, channels, side, side)
    for image in images:
        for _ in range(12):
            (top, left), (height, width) = (torch.randint(*of, (2,), generator=g).tolist() for of in ((0, 64), (6, 20)))
            image[:, top : top + height, left : left + width] = 2 * torch.rand(channels, 1, 1, generator=g) - 1
    return images


def seen(images: Tensor, moves: list[tuple[int, int]]) -> Tensor:
    """Return the middle of each image after moving what it shows by (down, right) pixels."""
    start = [(MARGIN - down, MARGIN - right) for down, right in moves]
    views = [image[:, y : y + SIDE, x : x + SIDE] for image, (y, x) in zip(images, start, strict=True)]
    return torch.stack(views)


STILL = [(0, 0)] * 6
MOVES = [(4, 0), (-4, 0), (0, 6), (0, -6), (3, 3), (-3, -3)]  # whose mean is 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_move_is_found_and_undone(channels: int) -> None:
    images = scenes(channels=channels)
    fixed, moving = seen(images, STILL), seen(images, MOVES)
    found = SIDE * displacement(moving, fixed)[..., 8:-8, 8:-8]
    assert found.shape == (6, 2, 16, 16)
    torch.testing.assert_close(found.mean(dim=(2, 3)), torch.tensor(MOVES).float(), atol=1.0, rtol=0)
    inside = (..., slice(12, -12), slice(12, -12))
    before, after = ((part - fixed)[inside].square().mean() for part in (moving, registered(moving, fixed)))
    assert after < 0.15 * before


def test_what_all_images_have_in_common_stays() -> None:
    """Where the whole target is lower than the whole source, that is how the target looks."""
    images = scenes()
    fixed, moving = seen(images, STILL), seen(images, [(5, 0)] * 6)
    inside = (..., slice(12, -12), slice(12, -12))
    error = (registered(moving, fixed) - moving)[inside].square().mean()
    assert error < 0.15 * (fixed - moving)[inside].square().mean()


def test_parts_move_apart() -> None:
    """The upper half to the left, the lower half to the right."""
    images = scenes()
    fixed = seen(images, STILL)
    moving = torch.cat([seen(images, [(0, move)] * 6).chunk(2, dim=2)[half] for half, move in ((0, -4), (1, 4))], dim=2)
    field = SIDE * displacement(moving, fixed)[:, 1]
    assert field[:, 4:10, 8:-8].mean() == pytest.approx(-4, abs=1)
    assert field[:, -10:-4, 8:-8].mean() == pytest.approx(4, abs=1)


def test_nothing_moves_where_all_is_alike() -> None:
    blank, other = torch.ones(2, 3, 32, 48), torch.full((2, 3, 32, 48), 0.5)
    assert displacement(blank, other).abs().max() < 1e-6
    torch.testing.assert_close(registered(other, blank), other)


def test_an_image_that_is_where_it_should_be_hardly_changes() -> None:
    still = seen(scenes(), STILL)
    assert (SIDE * displacement(still, still)).abs().mean() < 0.2


def test_a_displacement_does_not_depend_on_the_other_images() -> None:
    images = scenes()
    fixed, moving = seen(images, STILL), seen(images, MOVES)
    one = displacement(moving[2:3], fixed[2:3])
    torch.testing.assert_close(displacement(moving, fixed)[2:3], one, atol=1e-5, rtol=1e-4)


def test_more_images_than_fit_at_once_keep_their_order_and_their_common_mean() -> None:
    images = scenes().repeat(20, 1, 1, 1)
    fixed, moving = seen(images, STILL * 20), seen(images, MOVES * 20)
    torch.testing.assert_close(registered(moving, fixed)[-6:], registered(moving[:6], fixed[:6]), atol=1e-4, rtol=1e-4)


def test_small_and_narrow_images_are_registered_too() -> None:
    images = scenes()[..., ::3, ::2]  # 27×40
    result = registered(images, images.roll(2, dims=-1))
    assert result.shape == images.shape and result.isfinite().all()
