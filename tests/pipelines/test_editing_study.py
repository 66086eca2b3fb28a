"""What a denoising study shows of edits, against closed forms: pipelines/editing_study.py."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from exact_denoiser import Exact, clean, expected_errors
from PIL import Image
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.pipelines import editing_study
from flowferry.pipelines.study_subject import Subject
from flowferry.pipelines.visualization.restoration import strided


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Subject]:
    """study(pipeline, **changes): about images whose pixels are independently N(0, S²)."""

    def make(pipeline: Pipeline, **changes: object) -> Subject:
        images = clean()
        subject = Subject(pipeline, tmp_path, images[:1], None, images, None, None, (), 2.0, None)
        return replace(subject, **changes)

    return make


class Answers(nn.Module):
    """A classifier that takes an image for the class of its mean: 1 if it is positive, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


@pytest.mark.parametrize(("path", "prediction"), [("linear", "velocity"), ("ddpm", "source")])
def test_the_distance_falls_from_strong_to_weak_edits_as_in_the_closed_form(
    path: str, prediction: str, tiny: Callable[..., Config], study: Callable[..., Subject]
) -> None:
    config = tiny("noise2mnist", path=path, prediction=prediction)
    pipeline = Pipeline(config, Exact(config))
    text = editing_study.sdedit(study(pipeline))
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert [int(i) for i, _, _ in rows] == [1, 3, 5, 7, 10, 20]
    distances = [float(d) for _, _, d in rows]
    assert all(weaker < 1.01 * stronger for stronger, weaker in pairwise(distances))
    assert distances[-1] < 0.95 * distances[0]
    grid = strided(pipeline).grid()
    for i, t, distance in rows:
        assert float(t) == pytest.approx(grid[int(i)].item(), abs=1e-3)
        assert float(distance) == pytest.approx(expected_errors(pipeline, grid[int(i) :])[1], rel=0.07)


def test_a_sheet_of_edits_ends_with_what_was_given(tiny: Callable[..., Config], study: Callable[..., Subject]) -> None:
    config = tiny("noise2mnist")
    subject = study(Pipeline(config, Exact(config)), drawing=torch.ones(1, 1, 28, 28))
    editing_study.sdedit(subject)
    with Image.open(subject.out / "sdedit.png") as sheet:
        assert sheet.getpixel((sheet.width - 20, sheet.height - 20)) == (255, 255, 255)


def test_readings_of_an_anagram_are_counted_in_their_views(
    tiny: Callable[..., Config], study: Callable[..., Subject]
) -> None:
    """A negative reads as the one class where the image reads as the other; turned, it reads as before."""
    config = tiny("noise2mnist-cfg")
    text = editing_study.anagrams(study(Pipeline(config, Exact(config)), classes=(0, 1), classifier=Answers()))
    found = {
        name: [int(x) for x in shares]
        for name, *shares in re.findall(r"^\| (\w+) \| (\d+)% \| (\d+)% \| (\d+)% \|$", text, re.M)
    }
    assert found.keys() == set(editing_study.VIEWS)
    for name in ("rotate180", "flip", "skew"):
        first, second, both = found[name]
        assert first + second == 100 and both == 0
    first, second, both = found["negative"]
    assert first == second == both


def test_flow_edit_between_equal_velocities_changes_nothing(
    tiny: Callable[..., Config], study: Callable[..., Subject]
) -> None:
    """The exact network knows no classes, so that both velocities are equal, while SDEdit draws anew."""
    config = tiny("noise2mnist-cfg")
    text = editing_study.class_change(study(Pipeline(config, Exact(config)), classes=(0, 1)))
    rows = re.findall(r"^\| (SDEdit|FlowEdit) \| \d+ \| ([\d.]+) \|$", text, re.M)
    assert len(rows) == 2 * len(editing_study.ENTRIES)
    assert all((float(distance) == 0) == (name == "FlowEdit") for name, distance in rows)


def test_flow_edit_moves_images_as_far_as_their_classes_are_apart(
    tiny: Callable[..., Config], study: Callable[..., Subject]
) -> None:
    """Between N(m, S²) and N(m', S²) it moves each pixel by (m' − m)·β, from all noise on."""
    config = tiny("noise2mnist-cfg")
    pipeline = Pipeline(config, Exact(config, [0.3, 0.0, 0.1, *[0.0] * 7])).using(guidance=1)
    labels = torch.full((12,), 2)
    text = editing_study.class_change(study(pipeline, classes=(0, 1), test_labels=labels))
    (distance,) = re.findall(r"^\| FlowEdit \| 1 \| ([\d.]+) \|$", text, re.M)
    assert float(distance) == pytest.approx((0.3 - 0.1) ** 2 / 4, rel=0.1)
