"""Files that are whole or not there: written aside, renamed, hashed, flushed."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


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


def flush(path: Path) -> None:
    """Force the contents of a file or a folder onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
