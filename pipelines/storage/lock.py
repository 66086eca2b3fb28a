"""A lock on a folder, so that two runs never write there at once. It names the one that holds it."""

import errno
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from flowferry.configs.validation import UserError

PATIENCE = 2  # seconds, in which a process that was just killed is gone
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}  # some NFS, CIFS and FUSE

log = logging.getLogger("flowferry")


class FolderLock:
    """The lock of a folder, by a file there. The system frees it with the process that holds it, however that ends.

    A second file, `record`, names that process. Where the disk has no locks, its presence is the lock: what a killed
    process left is then removed on the host of that process, and has to be removed by hand on others.
    """

    def __init__(self, folder: Path, file: str = ".lock") -> None:
        self.folder, self.path, self.record = folder, folder / file, folder / f"{file}.held"
        self._lock: BaseFileLock | None = None

    def acquire(self) -> None:
        """Make the folder and lock it. Raises UserError naming the process that holds it, and OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = self._acquired(FileLock(self.path), "")
            with suppress(OSError):
                self.record.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")  # as SoftFileLock does
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            self.path.unlink(missing_ok=True)
            self._lock = self._acquired(SoftFileLock(self.record), f", or remove {self.record} if it has")
            log.warning("%s: its disk has no locks (%s); %s does instead", self.folder, error.strerror, self.record)

    def _acquired(self, lock: BaseFileLock, otherwise: str) -> BaseFileLock:
        """Return the lock, acquired. Raises UserError where another process holds it, and OSError."""
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=0.2)
        except Timeout:
            problem = f"another run is writing there{self.describe_holder()}; try again when it ends{otherwise}"
            raise UserError(f"{self.folder}: {problem}") from None
        return lock

    def describe_holder(self) -> str:
        """Return ": process P on host H", as the record says; nothing where it does not."""
        try:
            process, host, *_ = self.record.read_text(errors="replace").split("\n")
        except (OSError, ValueError):
            return ""
        return f": process {process} on host {host.partition('?')[0]}"  # SoftFileLock appends ? and the container's id

    def release(self) -> None:
        """Unlock the folder and leave nothing of the lock in it; does nothing without the lock."""
        if self._lock is not None:
            self.record.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)  # while it is locked, so that it is no other run's
            self._lock.release()
            self._lock = None
