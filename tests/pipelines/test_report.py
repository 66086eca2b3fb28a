"""The verb `report`, and the command that a report gives."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from flowferry.configs.cli import parse_train
from flowferry.configs.components import AugmentConfig
from flowferry.configs.diff import training_command
from flowferry.configs.networks import PracticalUNetConfig
from flowferry.configs.options import ReportOptions
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.report import run
from flowferry.pipelines.report_studies import asked_share
from flowferry.pipelines.storage.weights import SYNTHETIC
from flowferry.pipelines.train import Trainer


def trained(config: Config, folder: Path, steps: int = 8) -> Path:
    """Train two epochs of four steps, shown after each, in `folder`, and return it."""
    often = {"show_epochs": 1, "min_steps_apart": 1}
    train = replace(config.train, batch_size=16, epochs=2, epoch_size=64, max_steps=steps, **often, threads=1)
    solver = replace(config.solver, num_steps=min(config.solver.num_steps, 3))
    assert Trainer(replace(config, train=train, solver=solver), folder, data_root=Path("data")).run() == 0
    return folder


def written(folder: Path, **options: Any) -> str:
    """Write the report of a run, check that every file it names is there, and return its text."""
    options = {"per_label": 1, "images": 16, **options}
    assert run(ReportOptions(pipeline=str(folder), **options)) == 0
    text = (folder / "report" / "index.md").read_text()
    for name in re.findall(r"\]\((.+?)\)", text):
        assert (folder / "report" / name).exists(), name
    return text


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "report").iterdir()}


def test_a_denoisers_report_has_its_errors_at_all_seven_sigmas(tiny: Callable[..., Config], tmp_path: Path) -> None:
    folder = trained(tiny("denoise-mnist"), tmp_path / "denoise-mnist")
    text = written(folder)
    pictures = {"loss", "samples", "samples-epoch-1", "noising", "out-of-distribution"}
    assert names(folder) == {f"{name}.png" for name in pictures} | {"path.gif", "index.md"}
    assert re.findall(r"^\| (0|0\.2|0\.4|0\.5|0\.6|0\.8|1) \| ", text, re.M) == "0 0.2 0.4 0.5 0.6 0.8 1".split()
    assert "2 of 2 epochs, 8 steps" in text
    assert SYNTHETIC in text.splitlines()[4]  # the data is not real


def test_the_pure_noise_report_compares_with_the_mean_image_and_explains(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    folder = trained(tiny("denoise-noise"), tmp_path / "denoise-noise")
    text = written(folder)
    assert {"mean.png", "samples.png", "samples-epoch-1.png"} <= names(folder)
    assert "E[x]" in text and "outputs from the mean training image" in text


def test_a_class_conditioned_report_measures_what_was_asked_at_both_weights_and_beside_another_run(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    for name in ("noise2mnist-cfg-published", "noise2mnist-cfg-constant"):
        trained(tiny(name), tmp_path / name)
    text = written(tmp_path / "noise2mnist-cfg-constant")
    assert {"beside.png", "samples.png", "path.gif"} <= names(tmp_path / "noise2mnist-cfg-constant")
    assert re.search(r"^\| 1 \| [\d.]+% \|$", text, re.M) and re.search(r"^\| 5 \| [\d.]+% \|$", text, re.M)
    assert re.search(r"^\| noise2mnist-cfg-published \| 2 \|", text, re.M)
    assert "## Why" in text
    assert (tmp_path / "classifiers").is_dir()


def test_a_run_that_is_not_there_to_be_shown_beside_is_named(tiny: Callable[..., Config], tmp_path: Path) -> None:
    folder = trained(tiny("noise2mnist-wide"), tmp_path / "noise2mnist-wide")
    assert "noise2mnist-published has not been trained here" in written(folder)
    with Image.open(folder / "report" / "grid.png") as grid:  # 128 samples: 8 rows of 16, each 56 pixels and a gap
        assert grid.height == pytest.approx(8 * 58, abs=40) and grid.width == pytest.approx(16 * 58, abs=40)


def test_a_plane_is_reported_beside_the_other_path(tiny: Callable[..., Config], tmp_path: Path) -> None:
    moons = trained(tiny("moons"), tmp_path / "moons")
    cosine = trained(tiny("moons", path="cosine"), tmp_path / "cosine")
    text = written(moons, beside=cosine)
    pictures = {"densities", "trajectories", "variance", "loss", "beside", "trajectories-epoch-1"}
    assert {f"{name}.png" for name in pictures} <= names(moons)
    assert re.search(r"^\| cosine \| 2 \|", text, re.M)


def test_weights_alone_can_be_reported(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("fashion2mnist-published")
    config = replace(config, solver=replace(config.solver, num_steps=2))
    Pipeline(config).save_pretrained(tmp_path / "run" / "model")
    text = written(tmp_path / "run")
    assert "No metrics.jsonl" in text
    inputs, outputs = (sorted((tmp_path / "run/report" / part).glob("*.png")) for part in ("input", "translated"))
    assert [path.name for path in inputs] == [path.name for path in outputs] == [f"{i:02d}.png" for i in range(16)]
    assert {"samples.png", "path.png", "path.gif", "translated"} <= names(tmp_path / "run")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights in"):
        run(ReportOptions(pipeline=str(tmp_path)))


# --- what was asked -------------------------------------------------------------------------------------


def test_the_asked_share_counts_each_class_alike(tiny: Callable[..., Config]) -> None:
    config = tiny("noise2mnist-cfg")
    seen = []

    def judge(images: torch.Tensor, labels: torch.Tensor) -> float:
        seen.append((images.shape, labels.tolist()))
        return 0.25

    pipeline = Pipeline(replace(config, solver=replace(config.solver, num_steps=1)))
    assert asked_share(pipeline, judge, 3, guidance=1.0, data_root=Path("data")) == 0.25
    ((shape, labels),) = seen
    assert shape == (30, 1, 28, 28)
    assert sorted(labels) == sorted(list(range(10)) * 3)


# --- the command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_the_command_trains_the_same_configuration(name: str) -> None:
    config = PIPELINES[name]
    train = replace(config.train, lr=3e-3, minutes=2.5, ema=None, sync_batchnorm=True)
    changed = replace(config, seed=7, train=train, allow_unmatched=True, infer_labels=False)
    if hasattr(config.source, "augment"):
        mirrored = not config.source.augment.mirrored
        alike = config.is_paired or config.coupling == "content-ot"
        sides = ("source", "target") if alike else ("source",)
        new = {side: replace(getattr(config, side), augment=AugmentConfig(mirrored=mirrored)) for side in sides}
        changed = replace(changed, **new)
    for wanted in (config, changed):
        words = shlex.split(training_command(wanted, Path("elsewhere/it")))
        assert words[:3] == ["accelerate", "launch", "launch.py"]
        options = parse_train(words[3:])
        assert options.config == wanted
        assert options.folder == Path("elsewhere/it")


def test_the_command_of_a_named_pipeline_is_short() -> None:
    command = training_command(PIPELINES["moons"], Path("runs/moons"))
    assert command == "accelerate launch launch.py --pipeline moons"


def test_the_command_swaps_the_components_that_were_swapped() -> None:
    config = replace(PIPELINES["noise2mnist"], model=PracticalUNetConfig(width=48), path="cosine")
    options = parse_train(shlex.split(training_command(config, Path("runs/it")))[3:])
    assert options.config == config
