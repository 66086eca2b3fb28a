"""Tiny runs and what they leave, for the tests of training."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowferry.configs.schema import Config
from flowferry.pipelines.train import Trainer

ROOT = Path(__file__).parents[2]
TINY = "--quick --train.minutes 100 --train.threads 1 --source.count 64 --target.count 64".split()
TINY += "--solver.num-steps 2 --seed 3".split()


def config_of(tiny, steps: int, name: str = "fashion2mnist-published", **train) -> Config:
    config = tiny(name, seed=3)
    sampling = replace(config.solver, num_steps=1 if config.objective == "one-step" else 2)
    train = {"batch_size": 16, "max_steps": steps, "show_epochs": 0, "min_steps_apart": 1, "threads": 1, **train}
    return replace(config, train=replace(config.train, **train), solver=sampling)


def trained(config: Config, folder: Path) -> Trainer:
    trainer = Trainer(config, folder, data_root=Path("data"))
    assert trainer.run() == 0
    return trainer


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["train/loss"] for row in metrics(folder)]


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def assert_same_tensors(a: Path, b: Path) -> None:
    first, second = load_file(a), load_file(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def story(folder: Path) -> list[dict]:
    """What the run logged, without what its clock said."""
    return [{tag: value for tag, value in row.items() if not tag.startswith("perf/")} for row in metrics(folder)]


def assert_same_run(a: Path, b: Path, last: int) -> None:
    """Weights, averages, optimizers, exported weights, every logged value, every picture and TensorBoard's points."""
    assert story(a) == story(b)
    for folder in (f"checkpoints/step-{last:07d}", "model"):
        files = sorted(path.name for path in (a / folder).glob("*.safetensors"))
        assert files == sorted(path.name for path in (b / folder).glob("*.safetensors")) != []
        for file in files:
            assert_same_tensors(a / folder / file, b / folder / file)
    tags = {tag for row in story(a) for tag in row} - {"step"}
    for tag in tags:
        assert (
            points(a, tag)
            == points(b, tag)
            == [(row["step"], pytest.approx(row[tag])) for row in story(a) if tag in row]
        )
    pictures = {path.name: path.read_bytes() for path in (a / "samples").iterdir()}
    assert pictures.keys() == {path.name for path in (b / "samples").iterdir()}
    assert all((b / "samples" / name).read_bytes() == data for name, data in pictures.items())


def wait_for(condition, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
