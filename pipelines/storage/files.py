"""Files that are whole or not there: written aside, renamed, hashed, flushed."""

import errno
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

NO_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of some FUSE and CIFS

log = logging.getLogger("flowferry")


def write_aside(path: Path, data: bytes) -> None:
    """Write a file beside `path` and rename it, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, as `write_aside` does."""
    write_aside(path, (json.dumps(data, indent=2) + "\n").encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's contents in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def flush(path: Path) -> bool:
    """Force the contents of a file or a folder onto the disk; return whether the disk knows how to.

    Raises OSError where it does and fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def try_flush(folder: Path) -> None:
    """Flush a folder and a new file in it; log in a line if the disk cannot. Raises OSError where it fails."""
    probe = folder / ".flush"
    try:
        probe.write_bytes(b"\0")
        if not (flush(probe) and flush(folder)):
            message = "%s: its disk cannot be told to write at once (fsync); a power failure may damage checkpoints"
            log.warning(message, folder)
    finally:
        probe.unlink(missing_ok=True)
