"""Shipped weights: they are what they say, and they work before anything was trained."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowferry import Pipeline
from flowferry.configs.locations import FEATURES, SHIPPED, trained_folder
from flowferry.configs.presets import PIPELINES
from flowferry.datasets.builders import build_samplers
from flowferry.datasets.pixels import to_images
from flowferry.launch import main
from flowferry.pipelines.evaluation import classifier
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import sha256

COMPLETE = sorted(path.parent.name for path in SHIPPED.glob("*/model.safetensors"))
each = pytest.mark.parametrize("name", COMPLETE)


def test_a_translation_and_digits_on_demand_are_shipped() -> None:
    assert {"fashion2mnist", "fashion2mnist-fast", "noise2mnist-cfg", "noise2mnist-cfg-fast"} <= set(COMPLETE)


@pytest.mark.parametrize("name", [name for name in COMPLETE if name.endswith("-fast")])
def test_the_fast_ones_take_one_evaluation(name: str) -> None:
    assert Pipeline.from_pretrained(SHIPPED / name).nfe == 1


@each
def test_they_are_small_named_and_measured(name: str) -> None:
    folder = SHIPPED / name
    assert name in PIPELINES
    most = 4_000_000 if Pipeline.from_pretrained(folder).weaker is None else 5_000_000
    assert (folder / weights.WEIGHTS).stat().st_size < most
    measured = json.loads((folder / weights.EVALUATION).read_text())
    of_file, of_tensors = sha256(folder / weights.WEIGHTS), weights.digest(folder)  # the former up to version 0.1
    assert measured["weights_sha256"] in (of_file, of_tensors)
    assert measured["data"] == "real"
    assert measured["features"]["sha256"] == sha256(FEATURES / "mnist.safetensors")
    card = (folder / "README.md").read_text()
    assert "accelerate launch launch.py --pipeline" in card
    assert f"{measured['target']['frechet']:g}" in card


@each
def test_they_hold_what_the_named_pipeline_would_train(name: str) -> None:
    config = Pipeline.from_pretrained(SHIPPED / name).config
    wanted = PIPELINES[name]
    for part in ("source", "target", "model", "shape", "num_classes", "objective", "path", "prediction", "coupling"):
        assert getattr(config, part) == getattr(wanted, part), part


def test_translate_works_right_after_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (28, 28), 100).save("garment.png")
    argv = ["translate", "--pipeline", "fashion2mnist", "--input", "garment.png", "--output", "digit.png"]
    assert main([*argv, "--steps", "1"]) == 0
    assert Image.open("digit.png").size == (28, 28)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_sample_gives_the_asked_digits_right_after_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        main(["sample", "--pipeline", "noise2mnist-cfg", "--labels", "0-9", "--per-label", "2", "--output", "out"]) == 0
    )
    files = sorted(Path("out").glob("*-*.png"))
    digits = torch.stack([to_images(torch.from_numpy(np.array(Image.open(file)))[None]) for file in files])
    asked = torch.tensor([int(file.stem.split("-")[1]) for file in files])
    assert asked.bincount().tolist() == [2] * 10
    judge = classifier.load(FEATURES / "mnist.safetensors", (1, 28, 28), torch.device("cpu"))
    assert classifier.accuracy(judge.classifier, digits, asked) >= 0.9


def test_ones_own_run_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("runs/fashion2mnist")
    assert trained_folder("fashion2mnist") == SHIPPED / "fashion2mnist"
    own.mkdir(parents=True)  # begun, but without weights yet
    assert trained_folder("fashion2mnist") == SHIPPED / "fashion2mnist"
    assert Pipeline.from_pretrained("fashion2mnist").config.source.kind == "fashion-mnist"
    Pipeline(replace(PIPELINES["fashion2mnist"], seed=7)).save_pretrained(own / "model")
    assert trained_folder("fashion2mnist") == own
    assert Pipeline.from_pretrained("fashion2mnist").config.seed == 7


def test_a_sample_of_shipped_weights_is_not_written_into_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_root: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["sample", "--pipeline", "fashion2mnist", "--count", "2", "--steps", "1", "--data-root", str(data_root)]
    assert main(argv) == 0
    assert (tmp_path / "runs/fashion2mnist/sampled/sheet.png").is_file()
    assert not (SHIPPED / "fashion2mnist" / "sampled").exists()


@pytest.mark.parametrize("name", [name for name in COMPLETE if PIPELINES[name].source.kind == "fashion-mnist"])
def test_results_are_nearer_to_real_digits_than_the_garments_are(name: str, data_root: Path) -> None:
    """The shipped figures, in small: a classifier is surer of the results than of the garments."""
    from flowferry.models.classifier import extract
    from flowferry.pipelines.evaluation.classifier import trained_classifier

    pipe = Pipeline.from_pretrained(SHIPPED / name)
    source, _ = build_samplers(pipe.config, data_root=data_root, split="test", device=torch.device("cpu"))
    x0 = source.draw(64, seed=0, step=0).samples
    place = {"data_root": data_root, "folder": Path("no-such-folder"), "device": torch.device("cpu")}
    judge = trained_classifier(pipe.config.target, (1, 28, 28), num_classes=10, **place).classifier
    before, after = (extract(judge, x)[1].max(dim=1).values.mean() for x in (x0, pipe.translate(x0, steps=10)))
    assert after > 0.75 and after > before + 0.1
