"""Sheets, the times of a path's pictures, and pictures stacked."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from flowferry.configs.schema import Config
from flowferry.datasets.in_memory import InMemory
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.visualization import grids


def test_an_animation_of_many_steps_has_fifty_one_frames_from_start_to_end(tiny: Callable[..., Config]) -> None:
    points, pipeline = torch.arange(301.0)[:, None], Pipeline(tiny("noise2mnist")).using(steps=300)
    chosen, times = grids.evenly(points, 51, pipeline.grid())
    assert len(chosen) == 51
    assert (chosen[0], chosen[-1]) == (0, 300)
    assert times == pytest.approx([k / 50 for k in range(51)])


def test_pictures_of_a_path_say_the_times_of_the_solvers_grid(tiny: Callable[..., Config]) -> None:
    config = tiny("noise2mnist")
    pipeline = Pipeline(replace(config, solver=replace(config.solver, num_steps=4, grid_power=2.0)))
    points = torch.arange(5.0)[:, None]
    assert grids.evenly(points, 51, pipeline.grid())[1] == pytest.approx([0, 1 / 16, 1 / 4, 9 / 16, 1])
    assert grids.evenly(points, 3, pipeline.grid(reverse=True))[1] == pytest.approx([1, 1 / 4, 0])
    assert grids.evenly(points[2:], 3, pipeline.grid(0.25))[1] == pytest.approx([1 / 4, 9 / 16, 1])


@pytest.mark.parametrize(("size", "shown"), [(1, 1), (3, 3), (100, 48)])
def test_each_image_of_a_small_source_is_translated_once(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, size: int, shown: int
) -> None:
    pipeline, counts = Pipeline(tiny("fashion2mnist-published")), []
    images = torch.arange(size, dtype=torch.uint8)[:, None, None, None].expand(size, 1, 28, 28)
    source = InMemory(images, None, num_classes=0, device=torch.device("cpu"))
    monkeypatch.setattr(pipeline, "translate", lambda x, labels, seed: counts.append(len(x.unique(dim=0))) or x)
    grids.samples_sheet(pipeline, source, "now")
    assert counts == [shown]
    assert len(grids.shown_sources(pipeline, source, 8)[0]) == min(8, size)


@pytest.mark.parametrize("coupling", ["given", "independent"])
def test_pairs_are_shown_with_their_truth(
    coupling: str, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The truth of image k is k + 100, and the network adds 50."""
    pipeline, drawn = Pipeline(tiny("folders", coupling=coupling, shape=(3, 8, 8))), []
    numbers = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, 8, 8)
    sides: Any = [InMemory(x, None, num_classes=0, device=torch.device("cpu")) for x in (numbers, numbers + 100)]
    monkeypatch.setattr(pipeline, "translate", lambda x, labels, seed: x + 50 / 127.5)
    monkeypatch.setattr(grids, "sheet", lambda rows, title, *, columns: drawn.extend(rows))
    grids.samples_sheet(pipeline, sides[0], "now", target=sides[1])
    kinds = ["source", "result", "truth"] if coupling == "given" else ["source", "result"]
    assert [label for label, _ in drawn] == 3 * kinds
    for first in range(0, len(drawn), len(kinds)):
        before, after, *truth = (127.5 * (images + 1) for _, images in drawn[first : first + len(kinds)])
        torch.testing.assert_close(after, before + 50)
        for images in truth:
            torch.testing.assert_close(images, before + 100)


def test_an_image_of_a_small_source_is_shown_with_each_class(tiny: Callable[..., Config]) -> None:
    config = replace(tiny("fashion2mnist-labels"), infer_labels=False)
    source = InMemory(torch.zeros(2, 1, 28, 28).byte(), None, num_classes=0, device=torch.device("cpu"))
    x, labels = grids.shown_sources(Pipeline(config), source, 40)
    assert len(x) == 40 and labels is not None and labels.bincount().tolist() == [4] * 10


def test_a_sheet_knows_greek() -> None:
    tile = [("", torch.zeros(1, 1, 8, 8))]
    assert grids.sheet(tile, "σ") != grids.sheet(tile, "ε")  # both are a box in a font that has neither


def test_pictures_are_stacked_one_below_the_other() -> None:
    a, b = Image.new("RGB", (3, 2), "red"), Image.new("RGB", (5, 4), "blue")
    out = grids.stacked([a, b])
    assert out.size == (5, 6)
    assert (out.getpixel((0, 0)), out.getpixel((4, 5)), out.getpixel((4, 0))) == (
        (255, 0, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
