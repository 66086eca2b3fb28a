"""The folder that translations go to: what is done there, what failed, and files that are whole or not there."""

import hashlib
import heapq
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from configs.checks import UserError
from datasets.tree import order

MANIFEST, FAILURES, WORK = "manifest.jsonl", "failures.jsonl", ".flowferry"
Entry = dict[str, Any]


class Outputs:
    """One process's view of the folder. Each keeps a journal in `.flowferry/`; the main one merges them all.

    header: what every output depends on beside its input; what was done under another header counts as not done.
    """

    def __init__(self, root: Path, header: Entry, *, rank: int = 0) -> None:
        self.root, self.header, self.rank = root, header, rank
        self.work = root / WORK
        self._parts = count()

    # --- the main process, before and after all of them ------------------------------------------------

    def open(self, *, overwrite: bool) -> None:
        """Takes the folder for this run and gathers what earlier runs did there.

        Raises UserError where another run is at it, or where it cannot be written to.
        """
        if self.work.is_symlink():
            raise UserError(f"{self.work} is a symbolic link: accepted is a folder, or nothing, there")
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise UserError(f"--output: another translation is writing to {self.root}; accepted when it ends") from None
        except OSError as error:
            raise UserError(f"--output: {self.root} cannot be written to ({error.strerror or error})") from error
        done = [] if overwrite else [*self._journals("done"), self.root / MANIFEST]
        self._replace(MANIFEST, merged(entries(path, self.header) for path in done), heading=[self.header])
        for leftover in self.work.iterdir():
            if leftover.name != "lock":
                leftover.unlink()

    def close(self) -> None:
        """Publishes what all processes did and what failed."""
        journals = [entries(path, self.header) for path in self._journals("done")]
        self._replace(MANIFEST, merged(journals), heading=[self.header])
        self._replace(FAILURES, merged(lines(path) for path in self._journals("failed")), heading=[])
        self._lock.release()
        shutil.rmtree(self.work)

    @cached_property
    def _lock(self) -> FileLock:
        return FileLock(self.work / "lock")

    def _journals(self, what: str) -> list[Path]:
        return sorted(self.work.glob(f"{what}-*.jsonl"))

    def _replace(self, name: str, body: Iterator[Entry], *, heading: list[Entry]) -> None:
        """The file of that name in the folder, or none where there is nothing to write."""
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
        return Done(entries(self.root / MANIFEST, self.header))

    def is_done(self, entry: Entry | None, output: str, digest: str) -> bool:
        """Whether an input of this digest was translated into `output`, and the file is still what it was then."""
        if entry is None or (entry["output"], entry["input_sha256"]) != (output, digest):
            return False
        try:
            return sha256((self.root / output).read_bytes()) == entry["output_sha256"]
        except OSError:
            return False

    def write(self, name: str, data: bytes) -> str:
        """A file at a relative path, whole or not at all; returns its digest. OSError where it cannot be written."""
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
        """Makes a folder. OSError where a symbolic link leads out of the outputs."""
        folder = self.root / name
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise OSError(f"{folder} leads out of {self.root}")
        folder.mkdir(parents=True, exist_ok=True)

    def journal(self, what: str, new: Iterable[Entry]) -> None:
        """Adds to this process's list of what is "done", or "failed"."""
        path = self.work / f"{what}-{self.rank}.jsonl"
        lines = [self.header] if what == "done" and not path.exists() else []
        if lines := [*lines, *new]:
            with path.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))


class Done:
    """Looks entries up in a sorted stream of them; the names that are asked for come in that order too."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._next = next(entries, None)

    def find(self, name: str) -> Entry | None:
        while self._next is not None and order(self._next["input"]) < order(name):
            self._next = next(self._entries, None)
        return self._next if self._next is not None and self._next["input"] == name else None


def lines(path: Path) -> Iterator[Entry]:
    """The objects of a JSON-lines file, up to a line that was cut short or is none; nothing where there is no file."""
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
    """What a manifest or journal lists as done, if it begins with `header`."""
    found = lines(path)
    if next(found, None) == header:
        yield from (entry for entry in found if all(isinstance(entry.get(key), str) for key in KEYS))


KEYS = ("input", "output", "input_sha256", "output_sha256")


def merged(sources: Iterable[Iterator[Entry]]) -> Iterator[Entry]:
    """Sorted streams as one; of several entries of one input, the first source's."""
    last = None
    for entry in heapq.merge(*sources, key=lambda entry: order(entry["input"])):
        if entry["input"] != last:
            yield entry
        last = entry["input"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
