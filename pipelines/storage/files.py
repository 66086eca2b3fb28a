"""Files that are whole or not there: written aside, renamed, hashed, flushed."""

import errno
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from PIL import Image

from flowferry.configs.validation import BrokenOff, UserError
from flowferry.datasets.image_writing import png

NO_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}  # of some FUSE and CIFS

log = logging.getLogger("flowferry")

# --- before work begins ---------------------------------------------------------------------------------


def prepare_folder(folder: Path, what: str) -> None:
    """Make a folder and write into it for a try. Raises UserError naming the option `what` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as probe:  # it has no name, so that not even a kill leaves it there
            probe.write(bytes(4096))
            probe.flush()
    except FileExistsError:
        raise UserError(f"{what}: got the file {folder}, expected a folder") from None
    except OSError as error:
        raise UserError(f"{what}: {folder} cannot be written to ({error.strerror or error})") from error


# --- writing --------------------------------------------------------------------------------------------


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise BrokenOff with the name of `path` instead of an OSError in this context."""
    try:
        yield
    except BrokenOff:
        raise
    except OSError as error:
        raise BrokenOff(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def aside(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give a file beside `path` to write to, and rename it in the end: a reader never sees half of it.

    Where the writing fails, nothing is left. shared: several runs may write it at the same time, each to a file of its
    own; the last one stays. Otherwise a run writes over what a killed one left. Raises BrokenOff for an OSError.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part" if shared else f"{path.name}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def write_aside(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Write a file as `aside` does."""
    with aside(path, shared=shared) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, as `aside` does. Bytes of a name in it that are no UTF-8 are written as Python does."""
    write_aside(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, as `aside` does."""
    write_aside(path, (json.dumps(data, indent=2) + "\n").encode())


def write_png(path: Path, image: Image.Image) -> None:
    """Write an image as a PNG file, as `aside` does."""
    write_aside(path, png(image))


def copy_aside(source: Path, path: Path) -> None:
    """Copy the contents of a file to `path`, as `aside` does."""
    with aside(path) as part:
        shutil.copyfile(source, part)


# --- reading and flushing -------------------------------------------------------------------------------


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
