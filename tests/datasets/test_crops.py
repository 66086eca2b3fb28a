"""Crops of images of any size, alike for partners: datasets/crops.py."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flowferry.configs.components import AugmentConfig, ImageFolderConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_samplers
from flowferry.datasets.couplings import given
from flowferry.datasets.crops import Crops, corner, places, scaled_size
from flowferry.datasets.image_folder import image_folder
from flowferry.datasets.pixels import to_pixels
from flowferry.datasets.streaming import Streamed

SHAPE, CPU = (3, 8, 8), torch.device("cpu")
SIZES = [(8, 8), (20, 9), (9, 31), (40, 40), (8, 13)]


def positions(root: Path, sizes: list[tuple[int, int]], orientation: int = 1) -> Path:
    """Write images whose pixels say where they are: (column, row, number of the image)."""
    root.mkdir()
    for number, (width, height) in enumerate(sizes):
        across, down = np.meshgrid(np.arange(width), np.arange(height))
        pixels = np.stack([across, down, np.full_like(down, number)], axis=-1).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(root / f"{number:02d}.png", exif=exif)
    return root


def folder(root: Path, cache_mb: int = 2048, **options: object) -> ImageFolderConfig:
    return ImageFolderConfig(root=str(root), cache_mb=cache_mb, **{"resize": "crop", **options})  # type: ignore[arg-type]


def pixels(sampler: Crops | Streamed, count: int, step: int = 0) -> Tensor:
    return to_pixels(sampler.draw(count, seed=3, step=step).samples)


def test_a_crop_is_a_part_of_its_image_as_it_stands_and_each_part_comes(tmp_path: Path) -> None:
    sampler = image_folder(folder(positions(tmp_path / "a", [*SIZES, (12, 10)])), SHAPE, "train", CPU)
    assert isinstance(sampler, Crops) and sampler.size == 5
    across, down = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="xy")
    corners: dict[int, Counter[tuple[int, int]]] = {number: Counter() for number in range(6)}
    for image in pixels(sampler, 5000).int():
        left, top, number = image[:, 0, 0].tolist()
        assert torch.equal(image, torch.stack([left + across, top + down, torch.full_like(down, number)]).int())
        corners[number][left, top] += 1
    for number, (width, height) in enumerate([*SIZES, (12, 10)]):
        free = (width - 7) * (height - 7)
        found = corners[number]
        if found and free <= 100:
            assert len(found) == free
            assert max(found.values()) < 1000 / free + 5 * (1000 / free) ** 0.5


def test_cached_and_streamed_crops_are_the_same_and_another_at_each_step(tmp_path: Path) -> None:
    root = positions(tmp_path / "a", SIZES * 3)
    cached, streamed = (image_folder(folder(root, mb), SHAPE, "train", CPU) for mb in (1, 0))
    assert (type(cached), type(streamed)) == (Crops, Streamed)
    drawn = []
    for step in (0, 1, 2, 7, 3, 4):  # in turn, and not
        one, other = (pixels(sampler, 7, step) for sampler in (cached, streamed))
        assert torch.equal(one, other)
        drawn.append(one)
    whole = [pixels(cached, 14, step) for step in (0, 1)]  # two epochs of the same images
    assert not torch.equal(*(some[some[:, 2, 0, 0].argsort(stable=True)] for some in whole))


def test_images_that_are_held_out_are_cropped_in_the_middle(tmp_path: Path) -> None:
    for cache_mb in (2048, 0):
        root = positions(tmp_path / str(cache_mb), [(21, 12)])  # the only one is in both splits
        sampler = image_folder(folder(root, cache_mb), SHAPE, "test", CPU)
        assert {tuple(image[:2, 0, 0].tolist()) for image in pixels(sampler, 9)} == {(6, 2)}


@pytest.mark.parametrize(
    ("size", "shorter_side", "expected"),
    [
        ((20, 10), 0, (20, 10)),
        ((20, 10), 30, (60, 30)),
        ((300, 100), 10, (30, 10)),
        ((6, 4), 0, (12, 8)),
        ((4, 30), 0, (8, 60)),
    ],
)
def test_images_are_scaled_by_their_shorter_side_and_fill_the_crop_at_least(
    size: tuple[int, int], shorter_side: int, expected: tuple[int, int]
) -> None:
    assert scaled_size(size, (8, 8), shorter_side) == expected


def test_an_image_is_upright_and_scaled_before_it_is_cropped(tmp_path: Path) -> None:
    root = positions(tmp_path / "a", [(40, 20)], orientation=6)
    for cache_mb in (2048, 0):
        sampler = image_folder(folder(root, cache_mb, shorter_side=10), (3, 20, 10), "train", CPU)
        with Image.open(root / "00.png") as image:
            expected = image.transpose(Image.Transpose.ROTATE_270).resize((10, 20), Image.Resampling.LANCZOS)
        assert torch.equal(pixels(sampler, 1)[0].movedim(0, -1), torch.from_numpy(np.array(expected)))


def test_places_are_anywhere_or_in_the_middle() -> None:
    assert places(3, 0, 0, anywhere=False) == [None] * 3 and corner((13, 8), (8, 8), None) == (2, 0)
    drawn = [corner((13, 10), (8, 8), place) for place in places(4000, 0, 0, anywhere=True)]
    assert set(drawn) == {(left, top) for left in range(6) for top in range(3)}


# --- partners -------------------------------------------------------------------------------------------

EVERY = AugmentConfig(mirrored=True, cutout=3, shifted=3, behind="mirror", zoomed=1.5)


def pairs(a: Path, b: Path, **options: object) -> Config:
    changed = {"resize": "crop", **options}
    sides = {"source": folder(a, 2048, **changed), "target": folder(b, 0, **changed)}
    return replace(PIPELINES["paired"], shape=SHAPE, **sides)  # type: ignore[arg-type]


@pytest.mark.parametrize("augment", [AugmentConfig(), EVERY], ids=["crops", "everything"])
@pytest.mark.parametrize("shorter_side", [0, 12])
def test_partners_are_changed_alike_in_all_ways(augment: AugmentConfig, shorter_side: int, tmp_path: Path) -> None:
    """One is kept in memory and the other streamed; both are the same pictures in files of two kinds."""
    a = positions(tmp_path / "a", SIZES * 4)
    (tmp_path / "b").mkdir()
    for path in a.iterdir():
        with Image.open(path) as image:
            image.save(tmp_path / "b" / f"{path.stem}.bmp")
    config = pairs(a, tmp_path / "b", augment=augment, shorter_side=shorter_side)
    source, target = build_samplers(config, data_root=Path(), split="train", device=CPU)
    drawn = []
    for step in range(4):
        x0, x1 = given(source, target, 30, seed=1, step=step)
        assert torch.equal(x0.samples, x1.samples)
        drawn.append(x0.samples)
    assert not torch.equal(drawn[0], drawn[1])


def test_partners_of_other_sizes_are_refused_and_shown(tmp_path: Path) -> None:
    a, b = positions(tmp_path / "a", [(16, 16)] * 6), positions(tmp_path / "b", [(16, 16), *[(12, 12)] * 5])
    message = "resize crop: got 5 pairs of different sizes (01 of 16 × 16 and 12 × 12; 02 of 16 × 16 and 12 × 12; 03 of"
    with pytest.raises(UserError, match=re.escape(message)) as told:
        build_samplers(pairs(a, b), data_root=Path(), split="train", device=CPU)
    assert "\n" not in str(told.value)
    build_samplers(pairs(a, b, shorter_side=10), data_root=Path(), split="train", device=CPU)


def test_pairs_are_cropped_on_both_sides_or_on_neither(tmp_path: Path) -> None:
    config = pairs(tmp_path, tmp_path)
    with pytest.raises(
        UserError, match=r"^coupling given: got resize crop with shorter_side 0 and resize fit with .* alike$"
    ):
        replace(config, target=ImageFolderConfig(root=str(tmp_path)))
    replace(config, target=ImageFolderConfig(root=str(tmp_path)), coupling="independent")


def test_a_shorter_side_without_crops_is_refused(tmp_path: Path) -> None:
    positions(tmp_path / "a", SIZES)
    with pytest.raises(UserError, match=r"^shorter_side: got 9 with resize fit, expected resize crop$"):
        image_folder(folder(tmp_path / "a", resize="fit", shorter_side=9), SHAPE, "train", CPU)
