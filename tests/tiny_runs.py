"""Tiny runs and what they leave, for the tests of training."""

import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.schema import Config
from pipelines.trainer import Trainer
from pipelines.training import run

ROOT = Path(__file__).parents[1]
TINY = "--quick --train.minutes 100 --train.threads 1 --source.count 64 --target.count 64".split()
TINY += "--solver.steps 2 --seed 3".split()


def config_of(tiny, steps: int, name: str = "fashion2mnist-published", **train) -> Config:
    config = tiny(name, seed=3)
    sampling = replace(config.solver, steps=1 if config.path == "one-step" else 2)
    train = {"batch_size": 16, "max_steps": steps, "show_epochs": 0, "threads": 1, **train}
    return replace(config, train=replace(config.train, **train), solver=sampling)


def trained(config: Config, folder: Path) -> Trainer:
    trainer = Trainer(config, folder, data_root=Path("data"))
    assert run(trainer) == 0
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


def wait_for(condition, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
