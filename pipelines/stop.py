"""Leaving when asked: SIGINT and SIGTERM finish the step, save and exit with 130 and 143; a second leaves at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Asked(Exception):
    """Asked to leave in the midst of something that can be begun again."""


class StopSignal:
    """After `install()`, `received` is the signal that asks to leave, or 0."""

    def __init__(self) -> None:
        self._received = 0
        self._raises = False
        self._launcher = os.getppid() if "ACCELERATE_MIXED_PRECISION" in os.environ else None

    def install(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._received:
            os._exit(128 + signum)
        self._received = signum
        if self._raises:
            raise Asked

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """A signal that comes in here, or came before, ends what is done in here with `Asked`."""
        self._raises = True
        try:
            if self.received:
                raise Asked
            yield
        finally:
            self._raises = False

    @property
    def received(self) -> int:
        """`accelerate launch` dies of a SIGTERM without passing it on: its death counts as one."""
        if not self._received and self._launcher is not None and os.getppid() != self._launcher:
            self._received = signal.SIGTERM
        return self._received
