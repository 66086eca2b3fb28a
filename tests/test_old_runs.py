"""Runs, configurations and command lines of version 0.1.0, whose names for some options have changed since.

What that version wrote and computed is in `fixtures/runs-0.1.0`, whose README says how it was made.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flowferry import Pipeline, launch
from flowferry.configs.schema import Config

OLD = Path(__file__).parent / "fixtures" / "runs-0.1.0"
CONFIGS: dict[str, dict[str, Any]] = json.loads((OLD / "config-only" / "configs.json").read_text())
"""The options of a command -> the contents of the `config.json` that it made."""

RENAMED_FIELDS = {
    "classes": "num_classes",
    "read_labels": "infer_labels",
    "solver.steps": "solver.num_steps",
    "source.augment.hidden": "source.augment.cutout",
    "target.augment.hidden": "target.augment.cutout",
}
RENAMED_KINDS = {
    "drawn-digits": "synthetic-digits",
    "drawn-garments": "synthetic-garments",
    "drawn-colours": "synthetic-colors",
}
READING = {"range": None, "max_pixels": 2**28, "strict": False}
AUGMENT = {"augment.behind": "black", "augment.zoomed": 1.0}
LAID_OUT = {"layout": "{name}", "shorter_side": 0, "augment.behind": "mirror", "augment.zoomed": 1.0}
ADDED = {
    "image-folder": {"on_bad_file": "stop", "classes": [], "follow_links": False, **READING, **LAID_OUT},
    **dict.fromkeys(("fashion-mnist", "cifar10"), AUGMENT),
}
"""Options that a kind of source or target has since, as they were without a choice."""

LEFT_OPEN = {"layout": "auto", "background": "auto"}
"""What a command leaves to the folders, and to the run that it goes on with; `datasets/test_pairs.py`."""

NO_TEACHER = (
    dict.fromkeys(("pipeline", "sha256"), "") | dict.fromkeys(("solver", "steps", "guidance")) | {"pairs": 65536}
)
"""The teacher, which there was not."""

ADDED_TO_PATCH_UNET = ("model.sees_source", "model.adds_source", "model.two_times")
"""Options of this network, all of which are off."""

ANEW = ("solver.name", "solver.num_steps", "solver.source_noise", "solver.guidance", "train.weaker_share")
LABELS_ANEW = (*ANEW, "train.source_noise")
CHANGED = {"fashion2mnist": ANEW, "noise2mnist": ANEW, "fashion2mnist-labels": LABELS_ANEW}
"""What was changed of a named pipeline since: how it is run and what for, which a run may change, too. Only the noise
in training must be told to go on with an old run: its refusal names the option."""

ADDED_TO_SOLVER = {"source_noise": 0.0, "stride": None, "variance": "large", "clip": None, "threshold": None}
"""How a pipeline is run, where it says no more than it did."""

ADDED_TO_TRAINING = {"min_steps_apart": 100, "start_share": 0.0, "adversary": 0.0, "weaker_share": 0.0, "best": None}
"""Likewise of training; runs of the published pipelines do as before."""


def leaves(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("train.lr", 0.001) and so on, as JSON would have the values."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value


def settings(config: Config) -> dict[str, Any]:
    """Return all that a configuration sets; not its summary, which is free to be worded anew."""
    return {name: value for name, value in leaves(config.to_dict()) if name != "summary"}


def in_new_names(old: dict[str, Any]) -> dict[str, Any]:
    """Return the same of a configuration of version 0.1.0, translated by the tables above alone.

    One step from source to target was a path then, beside the others; it is an objective now.
    """
    in_one_step = old["path"] == "one-step"
    told = {
        RENAMED_FIELDS.get(name, name): RENAMED_KINDS.get(value, value) if name.endswith(".kind") else value
        for name, value in leaves(old)
        if name != "summary"
    }
    for side in ("source", "target"):
        told |= {f"{side}.{name}": value for name, value in ADDED.get(told[f"{side}.kind"], {}).items()}
    told |= {f"train.{name}": value for name, value in ADDED_TO_TRAINING.items()}
    told |= {f"solver.{name}": value for name, value in ADDED_TO_SOLVER.items()}
    told |= {f"teacher.{name}": value for name, value in NO_TEACHER.items()}
    told |= dict.fromkeys(ADDED_TO_PATCH_UNET, False) if told["model.kind"] == "patch-unet" else {}
    return told | {"objective": "one-step", "path": "linear"} if in_one_step else told | {"objective": "flow"}


@pytest.fixture
def printed_config(capsys: pytest.CaptureFixture[str]) -> Callable[[str], Config]:
    """printed_config(options): what `--print-config` says of a command, read back."""

    def printed(options: str) -> Config:
        code = launch.main([*options.split(), "--print-config"])
        told = capsys.readouterr()
        assert code == 0, told.err
        return Config.from_dict(json.loads(told.out))

    return printed


# --- configurations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CONFIGS)
def test_an_old_configuration_is_read_without_loss(options: str) -> None:
    old = CONFIGS[options]["config"]
    config = Config.from_dict(old)
    assert settings(config) == in_new_names(old)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_old_configurations_use_every_old_name() -> None:
    changed = {name for told in CONFIGS.values() for name, value in leaves(told["config"]) if value}
    kinds = {told["config"][part]["kind"] for told in CONFIGS.values() for part in ("source", "target")}
    assert changed >= RENAMED_FIELDS.keys()
    assert {told["config"]["path"] for told in CONFIGS.values()} == {"linear", "cosine", "ddpm", "one-step"}
    assert kinds >= RENAMED_KINDS.keys()


@pytest.mark.parametrize("options", CONFIGS)
def test_an_old_command_makes_the_configuration_that_it_made(
    options: str, printed_config: Callable[[str], Config]
) -> None:
    """So the command that began a run goes on with it: any other configuration would be refused there."""
    expected = in_new_names(CONFIGS[options]["config"])
    for side in ("source", "target"):
        if expected[f"{side}.kind"] == "image-folder":
            expected |= {f"{side}.{name}": value for name, value in LEFT_OPEN.items()}
    made = settings(printed_config(options))
    for name in CHANGED.get(expected["name"], ()):
        expected[name] = made[name]
    assert made == expected


# --- command lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "old", "new"),
    [
        ("noise2mnist", "--classes 10", "--num-classes 10"),
        ("noise2mnist", "--classes=10", "--num-classes=10"),
        ("noise2mnist", "--solver.steps 7", "--solver.num-steps 7"),
        ("noise2mnist", "--solver.steps=7 --quick", "--quick --solver.num-steps=7"),
        ("fashion2mnist", "--classes 10 --read-labels", "--num-classes 10 --infer-labels"),
        ("fashion2mnist", "--classes 10 --read_labels", "--num_classes 10 --infer_labels"),
        ("fashion2mnist-labels", "--no-read-labels", "--no-infer-labels"),
        (
            "noise2mnist-practical",
            "--path one-step --prediction target --solver.steps 1",
            "--objective one-step --prediction target --solver.num-steps 1",
        ),
        ("fashion2mnist", "--source drawn-garments", "--source synthetic-garments"),
        ("fashion2mnist", "--source=drawn-garments", "--source=synthetic-garments"),
        ("noise2mnist", "--target drawn-digits --target.count 64", "--target synthetic-digits --target.count 64"),
        ("noise2cifar", "--target drawn-colours", "--target synthetic-colors"),
        ("fashion2mnist", "--source.augment.hidden 7", "--source.augment.cutout 7"),
        ("folders", "--target.augment.hidden=7", "--target.augment.cutout=7"),
    ],
)
def test_both_spellings_of_an_option_ask_for_the_same(
    printed_config: Callable[[str], Config], pipeline: str, old: str, new: str
) -> None:
    asked = printed_config(f"--pipeline {pipeline} {new}")
    assert asked == printed_config(f"--pipeline {pipeline} {old}")
    assert asked != printed_config(f"--pipeline {pipeline}")


# --- runs -----------------------------------------------------------------------------------------------


def expected_of(name: str) -> dict[str, Tensor]:
    return load_file(OLD / name / "expected.safetensors")


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_old_run_that_infers_labels_translates_as_it_did() -> None:
    pipe, expected = Pipeline.from_pretrained(OLD / "labels", device="cpu"), expected_of("labels")
    x, inferred, asked = expected["x"], expected["read"], expected["asked"]
    assert pipe.config.infer_labels and pipe.config.num_classes == 10
    assert_close(pipe.translate(x, steps=3), expected["translated"])
    assert_close(pipe.translate(x, inferred, steps=3), expected["translated"])
    assert_close(pipe.translate(x, asked, steps=3), expected["translated_to_asked"])
    assert (expected["translated"] - expected["translated_to_asked"]).abs().max() > 0.05


def test_an_old_run_that_is_told_classes_samples_as_it_did() -> None:
    pipe, expected = Pipeline.from_pretrained(OLD / "cfg", device="cpu"), expected_of("cfg")
    assert pipe.config.num_classes == 10 and not pipe.config.infer_labels
    assert_close(pipe.sample(4, expected["asked"], guidance=2.0, steps=3, seed=0), expected["sampled"])
    assert_close(pipe.translate(expected["x"], steps=3), expected["translated"])


def test_an_old_denoiser_in_one_step_denoises_as_it_did() -> None:
    pipe, expected = Pipeline.from_pretrained(OLD / "one-step", device="cpu"), expected_of("one-step")
    assert pipe.config.objective == "one-step" and pipe.config.solver.num_steps == 1
    assert_close(pipe.translate(expected["x"]), expected["translated"])


@pytest.mark.usefixtures("another_precision")
def test_an_old_run_goes_on_with_its_own_command(tmp_path: Path) -> None:
    """From step 4 to 6, with the losses that version 0.1.0 had there: the same data, weights and optimizer."""
    folder, expected = tmp_path / "one-step", expected_of("one-step")
    shutil.copytree(OLD / "one-step", folder)
    before = metrics(folder)
    command = "--pipeline denoise-mnist --quick --model.width 4 --target.count 64 --train.lr 0.01"
    command += " --train.precision fp32 --train.threads 1 --train.minutes 100 --train.batch-size 16 --seed 3"
    assert launch.main([*command.split(), "--train.max-steps", "6", "--output-dir", str(folder)]) == 0
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[:4] == before
    assert [row["train/loss"] for row in rows] == pytest.approx(expected["losses"].tolist(), rel=1e-3)

    config = Config.from_dict(json.loads((folder / "config.json").read_text())["config"])
    pipe = Pipeline.from_pretrained(folder, device="cpu")
    assert pipe.config == config
    assert config.train.max_steps == 6 and config.objective == "one-step" and config.target.kind == "synthetic-digits"
    assert (pipe.translate(expected["x"]) - expected["translated"]).abs().max() > 1e-3


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
