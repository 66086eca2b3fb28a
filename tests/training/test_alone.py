"""One run at a time in a folder, on disks with and without locks and fsync: `Processes.alone_in`."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowferry import launch
from flowferry.configs.validation import UserError
from flowferry.pipelines.storage import lock
from flowferry.pipelines.storage.lock import FolderLock
from flowferry.pipelines.train import Trainer
from tiny_runs import ROOT, TINY, assert_same_run, config_of, losses, wait_for

COMMAND = ["--pipeline", "fashion2mnist-published", *TINY, "--model.width", "8", "--train.warmup-steps", "2"]
COMMAND += ["--train.batch-size", "16", "--train.checkpoint-steps", "2"]


def train(folder: Path, steps: int, *more: str) -> int:
    return launch.main([*COMMAND, "--output-dir", str(folder), "--train.max-steps", str(steps), *more])


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of its own process that has saved its first checkpoint and goes on."""
    more = ["--output-dir", str(tmp_path / "run"), "--train.max-steps", "1000000", "--train.epochs", "100000"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "launch.py", *COMMAND, *more], cwd=ROOT, stdout=log, stderr=log)
    try:
        wait_for(lambda: list((tmp_path / "run" / "checkpoints").glob("step-*")), "the first checkpoint", 120)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_second_run_is_refused_by_the_first_s_name_and_goes_on_when_that_is_killed(
    tmp_path: Path, endless: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    endless.send_signal(signal.SIGSTOP)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert train(tmp_path / "run", 4, "--train.epochs", "100000") == 2
    holder = f"process {endless.pid} on host {socket.gethostname()}"
    told = capsys.readouterr().err
    assert told == (
        f"error: --output-dir: {tmp_path / 'run'}: another run is writing there: {holder}; try again when it ends\n"
    )
    assert train(tmp_path / "run", 1000000, "--dry-run") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    endless.kill()
    endless.wait()
    last = 2 + max(int(path.name[-7:]) for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert train(tmp_path / "run", last, "--train.epochs", "100000") == 0
    assert len(losses(tmp_path / "run")) == last
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.slow
def test_all_processes_of_a_second_run_end_in_one_line(tmp_path: Path) -> None:
    first = FolderLock(tmp_path / "run")
    first.acquire()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "launch.py"]
    command += [*COMMAND, "--output-dir", str(tmp_path / "run"), "--train.max-steps", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    first.release()
    assert done.returncode != 0 and not (tmp_path / "run" / "metrics.jsonl").exists()
    said = [line for line in done.stderr.splitlines() if f"writing there: process {os.getpid()} on host" in line]
    assert 1 <= len(said) <= 2, done.stderr
    assert all(line.startswith("error: --output-dir: ") for line in said)
    assert 'File "' not in done.stderr.split("torch/distributed")[0]
    assert subprocess.run(command, cwd=ROOT, timeout=240).returncode == 0


def refusing(name: str, only: Callable[[int], bool] = lambda descriptor: True) -> Callable[..., None]:
    def refuse(descriptor: int, *more: int) -> None:
        if only(descriptor):
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    return refuse


def test_a_disk_without_fsync_and_locks_is_told_before_the_first_step_and_the_run_is_the_same(
    tiny: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tiny, 4, checkpoint_steps=2)

    def run(folder: Path) -> list[str]:
        caplog.clear()
        trainer = Trainer(config, folder, data_root=Path("data"))
        with caplog.at_level("INFO", logger="flowferry"), trainer.processes.alone_in(folder):
            assert trainer.progress.step == 0
            told = [record.getMessage() for record in caplog.records]
            assert trainer.run() == 0
        assert not list(folder.glob(".*"))
        return told

    assert run(tmp_path / "plain") == []
    monkeypatch.setattr(fcntl, "flock", refusing("EOPNOTSUPP"))
    for number, name in enumerate(("EINVAL", "EOPNOTSUPP")):
        monkeypatch.setattr(os, "fsync", refusing(name))
        told = run(folder := tmp_path / f"poor{number}")
        assert told[0].startswith(f"{folder}: its disk has no locks (") and len(told) == 2
        assert told[1].startswith(f"{folder}: its disk cannot be told to write at once (fsync)")
        assert not any("\n" in line for line in told)
        assert_same_run(tmp_path / "plain", folder, 4)


@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
def test_a_disk_that_fails_to_flush_is_an_error_before_the_first_step_and_after(
    tiny: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    reason = os.strerror(getattr(errno, name))
    trainer = Trainer(config_of(tiny, 2), tmp_path / "late", data_root=Path("data"))
    with trainer.processes.alone_in(tmp_path / "late"):
        monkeypatch.setattr(os, "fsync", refusing(name))
        assert trainer.run() == 3
    assert not list((tmp_path / "late" / "checkpoints").iterdir())
    assert train(tmp_path / "run", 2) == 2
    assert capsys.readouterr().err.endswith(f"error: --output-dir: {tmp_path}/run cannot be written to ({reason})\n")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_that_ends_in_an_error_leaves_no_lock(
    tiny: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    trainer = Trainer(config_of(tiny, 2), tmp_path / "run", data_root=Path("data"))
    with pytest.raises(ZeroDivisionError), trainer.processes.alone_in(tmp_path / "run"):
        with (
            pytest.raises(UserError, match="another run is writing there"),
            trainer.processes.alone_in(tmp_path / "run"),
        ):
            pytest.fail("locked twice")
        raise ZeroDivisionError
    with trainer.processes.alone_in(tmp_path / "run"):
        pass
