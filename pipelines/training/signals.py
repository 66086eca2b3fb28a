"""Stop on SIGINT and SIGTERM: finish the step, save, and exit with 130 or 143. A second signal exits at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A signal came during work that the next run can start again."""


class SignalHandler:
    """The signals of this process: after `install()`, `received` is the one that asks to stop, or 0."""

    def __init__(self) -> None:
        self._received = 0
        self._raises = False
        self._launcher = os.getppid() if "ACCELERATE_MIXED_PRECISION" in os.environ else None

    def install(self) -> None:
        """Handle SIGINT and SIGTERM from now on."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._received:
            os._exit(128 + signum)
        self._received = signum
        if self._raises:
            raise Interrupted

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise Interrupted in this context as soon as a signal comes, or at once if one came before."""
        self._raises = True
        try:
            if self.received:
                raise Interrupted
            yield
        finally:
            self._raises = False

    @property
    def received(self) -> int:
        """The signal that asks to stop, or 0.

        `accelerate launch` dies of SIGTERM without passing it on, so its death counts as one.
        """
        if not self._received and self._launcher is not None and os.getppid() != self._launcher:
            self._received = signal.SIGTERM
        return self._received
