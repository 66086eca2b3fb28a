"""The lock of a folder, on disks with locks and without: pipelines/storage/lock.py."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowferry.configs.validation import UserError
from flowferry.pipelines.storage import lock
from flowferry.pipelines.storage.lock import FolderLock
from tiny_runs import ROOT

HOLD = """
import errno, fcntl, os, sys, time
from pathlib import Path
folder, broken = Path(sys.argv[1]), sys.argv[2]
def refuse(*args):
    raise OSError(getattr(errno, broken), os.strerror(getattr(errno, broken)))
if broken:
    fcntl.flock = refuse
from flowferry.pipelines.storage.lock import FolderLock
lock = FolderLock(folder)
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""

DISKS = ["", "ENOLCK", "EOPNOTSUPP"]
"""What flock answers there; nothing where there are locks."""


@contextmanager
def held_by_another(folder: Path, broken: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(folder), broken]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.3)


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of disk in turn."""
    if request.param:
        monkeypatch.setattr(fcntl, "flock", refusing(request.param))
    return str(request.param)


def refusing(name: str):  # type: ignore[no-untyped-def]
    number = getattr(errno, name)

    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_second_run_is_refused_by_the_name_of_the_first_until_that_is_killed(tmp_path: Path, disk: str) -> None:
    folder = tmp_path / "runs" / "x"
    with held_by_another(folder, disk) as other:
        for _ in range(3):  # the name is there for everyone who asks
            told = f"^{folder}: another run is writing there: process {other.pid} on host {socket.gethostname()}; try"
            with pytest.raises(UserError, match=told):
                FolderLock(folder).acquire()
        other.send_signal(signal.SIGKILL)
        other.wait()
    again = FolderLock(folder)
    again.acquire()
    with pytest.raises(UserError, match=f"process {os.getpid()} on host"):
        FolderLock(folder).acquire()
    again.release()
    assert list(folder.iterdir()) == []


def test_who_ends_leaves_nothing_and_lets_the_next_begin(tmp_path: Path, disk: str) -> None:
    for _ in range(2):
        one = FolderLock(tmp_path)
        one.acquire()
        assert list(tmp_path.iterdir()) != []
        one.release()
        one.release()  # does nothing
        assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_host_is_left_alone_and_it_is_told_how_to_remove_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing("ENOLCK"))
    one = FolderLock(tmp_path)
    one.record.write_text("12\nelsewhere\n")
    told = rf"process 12 on host elsewhere; try again when it ends, or remove {re.escape(str(one.record))} if it has$"
    with pytest.raises(UserError, match=told):
        one.acquire()
    one.record.unlink()
    one.acquire()
    one.release()


def test_a_disk_without_locks_is_told_in_one_line(tmp_path: Path, disk: str, caplog: pytest.LogCaptureFixture) -> None:
    one = FolderLock(tmp_path)
    one.acquire()
    one.release()
    told = [record.getMessage() for record in caplog.records if record.name == "flowferry"]
    if not disk:
        assert told == []
    else:
        reason = os.strerror(getattr(errno, disk))
        assert told == [f"{tmp_path}: its disk has no locks ({reason}); {one.record} does instead"]


def test_a_disk_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing("EIO"))
    with pytest.raises(OSError, match="Input/output error"):
        FolderLock(tmp_path).acquire()
    assert not FolderLock(tmp_path).record.exists()
