"""The manifest of a folder of translations: which inputs are done, which failed. Files are whole or not there."""

import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import order
from flowferry.pipelines.storage.lock import FolderLock

MANIFEST, FAILURES, WORK = "manifest.jsonl", "failures.jsonl", ".flowferry"
Entry = dict[str, Any]


class Manifest:
    """The manifest as one process sees it. Each keeps journals in `.flowferry/`; the main process merges them all.

    root: the folder of the outputs. header: all that an output depends on besides its input; what was done under
    another header counts as not done. rank: the number of this process.
    """

    def __init__(self, root: Path, header: Entry, *, rank: int = 0) -> None:
        self.root, self.header, self.rank = root, header, rank
        self.work = root / WORK
        self._lock = FolderLock(root, f"{WORK}/lock")
        self._parts = count()

    # --- the main process, before and after all of them ------------------------------------------------

    def open(self, *, overwrite: bool) -> None:
        """Lock the folder for this run and merge what earlier runs did there, or forget it to `overwrite` everything.

        For the main process, before the others begin. Raises UserError where another run is writing to the folder, or
        where it cannot be written to.
        """
        if self.work.is_symlink():
            raise UserError(f"{self.work}: got a symbolic link, expected a folder, or nothing")
        try:
            self._lock.acquire()
        except UserError as error:
            raise UserError(f"--output: {error}") from error
        except OSError as error:
            raise UserError(f"--output: {self.root} cannot be written to ({error.strerror or error})") from error
        done = [] if overwrite else [*self._journals("done"), self.root / MANIFEST]
        self._replace(MANIFEST, merged(entries(path, self.header) for path in done), heading=[self.header])
        self._clear()

    def close(self) -> None:
        """Write the manifest and the failures of all processes, and unlock the folder. For the main process, last."""
        journals = [entries(path, self.header) for path in self._journals("done")]
        self._replace(MANIFEST, merged(journals), heading=[self.header])
        self._replace(FAILURES, merged(lines(path) for path in self._journals("failed")), heading=[])
        self._clear()
        self._lock.release()
        with suppress(OSError):  # where the next run has begun
            self.work.rmdir()

    def _clear(self) -> None:
        """Remove the journals and what was left by a kill."""
        for file in self.work.iterdir():
            if file not in (self._lock.path, self._lock.record):
                file.unlink()

    def _journals(self, what: str) -> list[Path]:
        return sorted(self.work.glob(f"{what}-*.jsonl"))

    def _replace(self, name: str, body: Iterator[Entry], *, heading: list[Entry]) -> None:
        """Write the JSON-lines file `name` in the folder, or remove it where there is nothing to write."""
        part = self.work / f"{name}.part"
        with part.open("w") as file:
            for entry in heading:
                file.write(json.dumps(entry) + "\n")
            for entry in body:
                file.write(json.dumps(entry) + "\n")
        if part.stat().st_size:
            os.replace(part, self.root / name)
        else:
            (self.root / name).unlink(missing_ok=True)

    # --- each process ----------------------------------------------------------------------------------

    def done_before(self) -> "Done":
        """Return what earlier runs did, to look inputs up in order."""
        return Done(entries(self.root / MANIFEST, self.header))

    def is_done(self, entry: Entry | None, output: str, digest: str) -> bool:
        """Return whether `entry` says that an input of this digest became `output`, and that file is unchanged."""
        if entry is None or (entry["output"], entry["input_sha256"]) != (output, digest):
            return False
        try:
            return sha256((self.root / output).read_bytes()) == entry["output_sha256"]
        except OSError:
            return False

    def write(self, name: str, data: bytes) -> str:
        """Write a file at a relative path, whole or not at all; return its SHA-256. Raises OSError where that fails."""
        self._folder(str(Path(name).parent))
        part = self.work / f"part-{self.rank}-{next(self._parts)}"
        try:
            with part.open("xb") as file:
                file.write(data)
            os.replace(part, self.root / name)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        return sha256(data)

    @lru_cache(maxsize=256)  # noqa: B019  the folders of one run, which ends with the process
    def _folder(self, name: str) -> None:
        """Make a folder at a relative path. Raises OSError where a symbolic link leads out of the outputs."""
        folder = self.root / name
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise OSError(f"got {folder}, which leads out of {self.root}")
        folder.mkdir(parents=True, exist_ok=True)

    def journal(self, what: str, new: Iterable[Entry]) -> None:
        """Append entries to this process's journal, "done" or "failed"."""
        path = self.work / f"{what}-{self.rank}.jsonl"
        lines = [self.header] if what == "done" and not path.exists() else []
        if lines := [*lines, *new]:
            with path.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))


class Done:
    """A sorted stream of entries, in which inputs are looked up in the same order."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._next = next(entries, None)

    def find(self, name: str) -> Entry | None:
        """Return the entry of an input, or None. Inputs have to come in the order of a walk."""
        while self._next is not None and order(self._next["input"]) < order(name):
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._next["input"] == name else None


def lines(path: Path) -> Iterator[Entry]:
    """Yield the objects of a JSON-lines file up to the first line that is not whole; nothing without a file."""
    if path.is_file():
        with path.open() as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    return
                if not isinstance(entry, dict):
                    return
                yield entry


def entries(path: Path, header: Entry) -> Iterator[Entry]:
    """Yield the entries of a manifest or journal that begins with `header`; nothing of another one."""
    found = lines(path)
    if next(found, None) == header:
        yield from (entry for entry in found if all(isinstance(entry.get(key), str) for key in KEYS))


KEYS = ("input", "output", "input_sha256", "output_sha256")


def merged(sources: Iterable[Iterator[Entry]]) -> Iterator[Entry]:
    """Yield the entries of sorted streams in order; of several entries for one input, the first stream's."""
    last = None
    for entry in heapq.merge(*sources, key=lambda entry: order(entry["input"])):
        if entry["input"] != last:
            yield entry
        last = entry["input"]


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
