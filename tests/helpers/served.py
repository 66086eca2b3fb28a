"""A server of the verb `serve` in a process of its own, and requests to it without a browser."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen


@contextmanager
def served(where: Path, script: Path, *argv: object) -> Iterator[tuple[str, list[str]]]:
    """Start a server in the folder `where`; give its address, and the lines that it logs until it has one.

    In the end it is ended by Ctrl-C, and what it says then is added to the lines.
    """
    command = [sys.executable, str(script), *map(str, argv), "--port", "0"]
    process = subprocess.Popen(command, cwd=where, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
    assert process.stderr is not None
    lines: list[str] = []
    try:
        while not lines or not lines[-1].startswith("http://"):
            line = process.stderr.readline()
            assert line, f"it ended with {process.wait()}: {lines}"
            lines.append(line)
        yield lines[-1].split()[0], lines
    finally:
        process.send_signal(signal.SIGINT)
        lines += [*process.communicate(timeout=60)[1].splitlines(keepends=True), f"exit code {process.returncode}"]


def heed_ctrl_c() -> None:
    """Let a process that is started in the background be ended as one of a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def fetched(address: str) -> bytes:
    """Return what is at an address."""
    with urlopen(address) as answer:
        return bytes(answer.read())
