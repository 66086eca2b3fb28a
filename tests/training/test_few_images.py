"""What a run of few images is told: pipelines/training/few_images.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.pipelines.training.few_images import note
from flowferry.pipelines.training.progress import Progress
from picture_folders import folder_run, pictures
from tiny_runs import trained

FOLDERS = PIPELINES["folders"]


@pytest.mark.parametrize(
    ("size", "steps", "told"),
    [
        (1, 1, "few images to train on, 1: an epoch is 1 step of 64, 100 epochs are 100 steps (more: --train.epochs)."),
        (16, 1, "few images to train on, 16: an epoch is 1 step of 64, 100 epochs are 100 steps "),
        (900, 15, "few images to train on, 900: an epoch is 15 steps of 64, 100 epochs are 1,500 steps "),
    ],
)
def test_few_images_are_told_with_the_steps_that_they_make(size: int, steps: int, told: str) -> None:
    line = note(FOLDERS, Progress(FOLDERS.train, steps), size)
    assert line.startswith(told) and "by heart" in line and "--target.augment.mirrored" in line
    assert "\n" not in line


def test_of_pairs_both_sides_are_to_be_changed() -> None:
    line = note(PIPELINES["paired"], Progress(FOLDERS.train, 1), 16)
    assert "--source.augment.mirrored --target.augment.mirrored" in line


def test_many_images_streams_points_and_synthetic_data_are_not(tiny: Callable[..., Config]) -> None:
    progress = Progress(FOLDERS.train, 1)
    assert note(FOLDERS, progress, 1000) == note(FOLDERS, progress, None) == ""
    assert note(PIPELINES["moons"], progress, 16) == note(tiny("folders"), progress, 16) == ""


def test_a_run_tells_it_before_its_first_step(
    tiny: Callable[..., Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch is larger than the folder and is filled from the next passes over it."""
    caplog.set_level("INFO")
    config = folder_run(tiny, pictures(tmp_path / "a", 3), pictures(tmp_path / "b", 3), 1, cache_mb=9)
    trainer = trained(replace(config, train=replace(config.train, epochs=7)), tmp_path / "run")
    (line,) = [line for line in caplog.messages if line.startswith("few images")]
    assert "few images to train on, 2: an epoch is 1 step of 4, 7 epochs are 7 steps " in line
    x1 = trainer.train_step.global_batch(0).x1
    assert len(x1) == 4 and len(x1.unique(dim=0)) == 2
