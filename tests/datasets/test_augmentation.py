"""Random changes of training images: datasets/augmentation.py and its options."""

import math
import re
from collections.abc import Callable

import pytest
import torch

from flowferry.configs.components import AugmentConfig, FashionMnistConfig, MnistConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.augmentation import augment

MIRRORED = AugmentConfig(mirrored=True)
ALL = AugmentConfig(mirrored=True, cutout=7, shifted=2)


def g() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_shift_moves_each_image_whole_by_a_few_pixels_of_its_own() -> None:
    x = torch.full((500, 1, 16, 16), -1.0)
    x[:, :, 8, 8] = 1.0
    moved = augment(x, AugmentConfig(shifted=2), g())
    assert ((moved == 1).sum(dim=(1, 2, 3)) == 1).all()
    places = (moved[:, 0] == 1).nonzero()[:, 1:]
    assert len(places.unique(dim=0)) == 25 and (places - 8).abs().max() == 2
    assert (moved[moved != 1] == -1).all()  # black behind


def test_a_shift_with_a_mirror_behind_is_a_window_on_the_image_mirrored_at_its_edges() -> None:
    x = torch.rand(60, 2, 6, 9, generator=g())
    rows, columns = (torch.tensor([*range(3, 0, -1), *range(n), *range(n - 2, n - 5, -1)]) for n in (6, 9))
    larger = x[:, :, rows][:, :, :, columns]  # by 3 on every side, without the edge itself twice
    moved, seen = augment(x, AugmentConfig(shifted=3, behind="mirror"), g()), set()
    for image, around in zip(moved, larger, strict=True):
        windows = [(i, j) for i in range(7) for j in range(7) if torch.equal(around[:, i : i + 6, j : j + 9], image)]
        assert len(windows) == 1
        seen |= set(windows)
    assert len(seen) > 20
    assert augment(torch.rand(2, 1, 4, 4), AugmentConfig(shifted=16, behind="mirror"), g()).shape == (2, 1, 4, 4)


def test_on_a_black_border_both_kinds_of_shift_are_the_same() -> None:
    x = torch.full((40, 1, 16, 16), -1.0)
    x[:, :, 4:12, 4:12] = torch.rand(40, 1, 8, 8, generator=g())
    black, mirror = (augment(x, AugmentConfig(shifted=2, behind=behind), g()) for behind in ("black", "mirror"))
    assert torch.equal(black, mirror)


def test_a_zoom_shows_a_part_of_the_image_enlarged_by_up_to_its_factor() -> None:
    """On a ramp in both directions, linear interpolation is exact: the slope is 1/factor, and all values are inside."""
    down, across = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    x = torch.stack([down, across]).expand(200, 2, 32, 32)
    near = augment(x, AugmentConfig(zoomed=2.0), g())[:, :, 8:24, 8:24]
    slopes = near[:, 0, 8, 8] - near[:, 0, 7, 8]
    torch.testing.assert_close(near[:, 0].diff(dim=1), slopes[:, None, None].expand(-1, 15, 16), atol=1e-4, rtol=0)
    torch.testing.assert_close(near[:, 1].diff(dim=2), slopes[:, None, None].expand(-1, 16, 15), atol=1e-4, rtol=0)
    assert slopes.min() >= 0.5 and slopes.max() <= 1 and slopes.min() < 0.55 and slopes.max() > 0.95
    middles = near[:, 0, 7:9, 7:9].mean(dim=(1, 2)) - 15.5
    assert (middles.abs() <= 16 * (1 - slopes) + 1e-3).all() and middles.std() > 1


@pytest.mark.parametrize("side", [7, 4])
def test_a_square_is_hidden_somewhere_on_each(side: int) -> None:
    areas = (augment(torch.full((4000, 1, 16, 16), 0.5), AugmentConfig(cutout=side), g()) == -1).float()
    assert areas.sum(dim=(1, 2, 3)).max() == side**2
    assert areas.sum(dim=(1, 2, 3)).min() == math.ceil(side / 2) ** 2  # cut where its middle is at the corner
    middle = areas.mean(dim=0)[0, side:-side, side:-side]  # all of these are equally often hidden
    torch.testing.assert_close(middle, torch.full_like(middle, side**2 / 16**2), atol=0.04, rtol=0)


def test_what_is_not_asked_for_is_not_done_and_all_of_it_is_done_together() -> None:
    x = torch.rand(200, 1, 16, 16, generator=g())
    assert augment(x, AugmentConfig(), g()) is x
    changed = augment(x, ALL, g())
    assert changed.shape == x.shape and (changed != x).flatten(1).any(dim=1).all()
    back = augment(x.flip(3), ALL, g())  # the same numbers: mirrored where the other is not, the rest alike
    alike = (changed == -1) & (back == -1)
    assert torch.equal(changed == -1, alike) and not torch.equal(changed, back)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"cutout": -1}, "cutout: got -1, expected a number ≥ 0"),
        ({"shifted": -1}, "shifted: got -1, expected a number ≥ 0 and ≤ 16"),
        ({"shifted": 17}, "shifted: got 17, expected a number ≥ 0 and ≤ 16"),
    ],
)
def test_augmentations_out_of_range_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        AugmentConfig(**wrong)


def test_of_given_pairs_both_are_augmented_alike(tiny: Callable[..., Config]) -> None:
    one, both = (
        {"source": FashionMnistConfig(augment=MIRRORED), "target": target}
        for target in (MnistConfig(), FashionMnistConfig(augment=MIRRORED))
    )
    message = f"coupling given: got {MIRRORED} and {AugmentConfig()}, expected both to be augmented alike"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        tiny("fashion2mnist", coupling="given", **one)
    tiny("fashion2mnist", coupling="given", **both)
    tiny("fashion2mnist", coupling="independent", **one)
    tiny("denoise-mnist", target=FashionMnistConfig(augment=MIRRORED))  # whose source is made of the target
