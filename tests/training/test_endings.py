"""A damaged picture that a run comes upon: the run is saved, says which, and goes on there once it is repaired."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowferry.configs.schema import Config
from flowferry.datasets.image_folder import split_members
from flowferry.datasets.in_memory import order_of
from flowferry.datasets.rng import derive_seed
from flowferry.pipelines.train import Trainer
from picture_folders import folder_run, half, no_header, pictures
from tiny_runs import ROOT, assert_same_run, metrics, trained

FIRST = 3  # the step at which the damaged file is met first


@pytest.fixture
def config(tiny: Callable[..., Config], tmp_path: Path) -> Config:
    return folder_run(tiny, pictures(tmp_path / "a", 20), pictures(tmp_path / "b", 20), 6)


def met_at(config: Config, step: int) -> Path:
    """Return a target image that step number `step` (from 0) is the first to draw."""
    images = split_members(config.target, "train", None, frozenset())[0]  # type: ignore[arg-type]
    order = order_of(len(images), torch.device("cpu"), 0, 4 * (step + 1), derive_seed(config.seed, "target")).tolist()
    new = [index for index in order[4 * step :] if index not in order[: 4 * step]]
    return Path(config.target.root, images[new[-1]].path)  # type: ignore[union-attr]


@pytest.mark.parametrize("every", [0, FIRST], ids=["no checkpoint before", "a checkpoint of that very step"])
def test_a_file_damaged_behind_its_header_stops_the_run_after_a_checkpoint(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, every: int
) -> None:
    config = replace(config, train=replace(config.train, checkpoint_steps=every))
    trained(config, tmp_path / "whole")
    file = met_at(config, FIRST)
    whole = half(file)
    run = tmp_path / "run"
    caplog.set_level("INFO")
    for _ in range(2):  # the same command again says the same
        caplog.clear()
        assert Trainer(config, run, data_root=Path("data")).run() == 1
        (line,) = [line for line in caplog.messages if line.startswith("stopped")]
        assert line.startswith(f"stopped after step {FIRST}: {file.parent}: 1 image cannot be read: {file.name}: ")
        assert f"Last checkpoint: {run}/checkpoints/step-000000{FIRST}; the same command goes on there" in line
        assert [row["step"] for row in metrics(run)] == [1, 2, 3]
        assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-000000{FIRST}"]
    file.write_bytes(whole)
    trained(config, run)
    assert_same_run(tmp_path / "whole", run, 6)


def test_before_the_first_step_there_is_nothing_to_save(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half(met_at(config, 0))
    caplog.set_level("INFO")
    assert Trainer(config, tmp_path / "run", data_root=Path("data")).run() == 1
    assert "Last checkpoint: none" in caplog.text
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_damaged_test_image_does_not_lose_the_steps_taken(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The evaluation at the end meets it first."""
    trainer = Trainer(config, tmp_path / "run", data_root=Path("data"))
    files = trainer.test[1].files  # type: ignore[attr-defined]
    file = Path(files.config.root, files.names[0])
    whole = half(file)
    caplog.set_level("INFO")
    assert trainer.run() == 1
    assert f"{file.name}: not a readable image" in caplog.text
    assert (tmp_path / "run" / "checkpoints" / "step-0000006").is_dir()
    file.write_bytes(whole)
    trained(config, tmp_path / "run")
    assert "eval/loss" in metrics(tmp_path / "run")[-1] and len(metrics(tmp_path / "run")) == 6


# --- two processes --------------------------------------------------------------------------------------


def run_by_two(a: Path, b: Path, run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    small = "--model.widths 16 32 32 32 --model.middle 32 --shape 3 8 8 --train.threads 1 --train.precision fp32"
    small += " --train.batch-size 4 --train.max-steps 6 --train.show-epochs 0 --source.cache-mb 0 --target.cache-mb 0"
    argv = ["launch.py", "--pipeline", "folders", "--source.root", str(a), "--target.root", str(b), *small.split()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    argv += ["--solver.num-steps", "2", "--seed", "3", "--output-dir", str(run), *more]
    return subprocess.run([*torchrun, *argv], cwd=ROOT, capture_output=True, text=True, timeout=150)


@pytest.mark.slow
def test_two_processes_end_together_over_a_bad_file(config: Config, tmp_path: Path) -> None:
    """At its header before the first step, in mid-run with a checkpoint, and at the question of changed data."""
    a, b, run = tmp_path / "a", tmp_path / "b", tmp_path / "run"
    file = met_at(config, FIRST)
    whole = file.read_bytes()
    no_header(file)
    done = run_by_two(a, b, run)
    assert done.returncode != 0 and f"{b}: 1 image cannot be read: {file.name}" in done.stderr
    assert not run.exists()
    file.write_bytes(whole)
    half(file)
    done = run_by_two(a, b, run)
    assert done.returncode != 0 and f"stopped after step {FIRST}: " in done.stderr
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-000000{FIRST}"]
    file.unlink()
    done = run_by_two(a, b, run)
    assert done.returncode != 0 and "target: 20 images → 19: 1 removed" in done.stderr
    done = run_by_two(a, b, run, "--allow-changed-data")
    assert done.returncode == 0, done.stderr
    assert len(metrics(run)) == 6
