"""The manifest of a folder of translations: which inputs are done, which failed, which files are ours.

Files are whole or not there, and a file that is not ours is not replaced.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import chain, count, islice
from pathlib import Path

from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import Item
from flowferry.pipelines.storage.files import prepare_folder, writing
from flowferry.pipelines.storage.lock import FolderLock
from flowferry.pipelines.translation.entries import Done, Entry, begun, entries, lines, merged, sha256

MANIFEST, FAILURES, WORK = "manifest.jsonl", "failures.jsonl", ".flowferry"
AT_ONCE = 10_000  # files to look for in the manifest at a time, where their inputs are not listed
NAMED = 3  # files of the user's to name


class Manifest:
    """The manifest as one process sees it. Each keeps journals in `.flowferry/`; the main process merges them all.

    root: the folder of the outputs. header: all that an output depends on besides its input; what was done under
    another header counts as not done. rank: the number of this process.
    """

    def __init__(self, root: Path, header: Entry, *, rank: int = 0) -> None:
        self.root, self.rank = root, rank
        self.header: Entry = json.loads(json.dumps(header))  # as it is read back: a tuple becomes a list
        self.work = root / WORK
        self._lock = FolderLock(root, f"{WORK}/lock")
        self._parts = count()

    # --- the main process, before and after all of them ------------------------------------------------

    def open(self, planned: Iterable[Item] = (), own: Iterable[str] = (), *, overwrite: bool) -> None:
        """Lock the folder for this run and merge what earlier runs did there; to `overwrite`, none of it is done.

        planned: the files to come, in the order of a walk; own: names of files that are made of many inputs. For the
        main process, before the others begin. Raises UserError where another run is writing to the folder, where it
        cannot be written to, and, unless to `overwrite`, where it would replace a file that no run made.
        """
        if self.work.is_symlink():
            raise UserError(f"{self.work}: got a symbolic link, expected a folder, or nothing")
        prepare_folder(self.root, "--output")
        try:
            self._lock.acquire()
        except UserError as error:
            raise UserError(f"--output: {error}") from error
        except OSError as error:
            raise UserError(f"--output: {self.root} cannot be written to ({error.strerror or error})") from error
        claims = [begun("", name) for name in sorted(own)]
        try:
            if not overwrite and os.listdir(self.root) != [WORK]:
                jobs = ((item.name, item.output) for item in planned if not item.problem)
                self._refuse_files_of_others(chain((("", claim["output"]) for claim in claims), jobs))
            earlier = self._existing(self._earlier(overwrite=overwrite))
            self._replace(MANIFEST, merged([earlier, iter(claims)]), heading=[self.header])
        except OSError as error:
            self.abandon()
            raise UserError(f"--output: {self.root} cannot be written to ({error.strerror or error})") from error
        except UserError:
            self.abandon()
            raise
        self._clear()

    def close(self) -> None:
        """Write the manifest and the failures of all processes, and unlock the folder. For the main process, last."""
        done = [*self._journals("done"), self.root / MANIFEST]
        self._replace(MANIFEST, merged(entries(path, self.header) for path in done), heading=[self.header])
        self._replace(FAILURES, merged(lines(path) for path in self._journals("failed")), heading=[])
        self._clear()
        self._lock.release()
        with suppress(OSError):  # where the next run has begun
            self.work.rmdir()

    def abandon(self) -> None:
        """Unlock the folder of a run that broke off. The next one goes on from its journals, as after a kill."""
        self._lock.release()
        with suppress(OSError):  # where there are journals, or the next run has begun
            self.work.rmdir()

    def _clear(self) -> None:
        """Remove the journals and what was left by a kill."""
        for file in self.work.iterdir():
            if file not in (self._lock.path, self._lock.record):
                file.unlink()

    # --- what earlier runs did -------------------------------------------------------------------------

    def _earlier(self, *, overwrite: bool = False) -> Iterator[Entry]:
        """Yield the entries of all that earlier runs made, sorted; done only under this header, if not to overwrite."""
        header = None if overwrite else self.header
        done = [*self._journals("done"), self.root / MANIFEST]
        not_done = self._journals("begun")
        return merged([*(entries(path, header) for path in done), *(entries(path, None) for path in not_done)])

    def _existing(self, found: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries whose output is there."""
        return (entry for entry in found if os.path.lexists(self.root / entry["output"]))

    def _refuse_files_of_others(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Raise UserError if files would be replaced that no run made."""
        found = self._files_of_others(jobs)
        named = list(islice(found, NAMED))
        more = sum(1 for _ in found)
        if named:
            files = ", ".join(named) + (f" and {more:,} more" if more else "")
            raise UserError(
                f"--output: got {self.root} with files that would be replaced and that no translation made: {files} "
                f"({MANIFEST} does not list them); expected another folder, or --overwrite"
            )

    def _files_of_others(self, jobs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Yield the outputs that are there already and that no run made. Memory does not grow with their number."""
        if not self._is_ours():
            yield from (name for name in (FAILURES, MANIFEST) if self._is_file(name))
        made = Done(self._earlier())
        unknown = (output for name, output in jobs if self._is_file(output) and made.find(name, output) is None)
        while some := dict.fromkeys(islice(unknown, AT_ONCE)):  # an input may have another name by now
            for entry in self._earlier():
                some.pop(entry["output"], None)
            yield from some

    def _is_ours(self) -> bool:
        """Return whether a manifest of ours, or a journal, is in the folder."""
        return "flowferry" in next(lines(self.root / MANIFEST), {}) or bool(self._journals("begun"))

    def _is_file(self, name: str) -> bool:
        """Return whether a file, or a link, is there; a folder cannot be replaced by a file."""
        path = self.root / name
        return os.path.lexists(path) and (path.is_symlink() or not path.is_dir())

    def _journals(self, what: str) -> list[Path]:
        return sorted(self.work.glob(f"{what}-*.jsonl"))

    def _replace(self, name: str, body: Iterator[Entry], *, heading: list[Entry]) -> None:
        """Write the JSON-lines file `name` in the folder, or remove it where there is nothing to write."""
        part = self.work / f"{name}.part"
        with writing(self.root / name):
            with part.open("w") as file:
                for entry in chain(heading, body):
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
        self._folder(name.rpartition("/")[0])
        part = f"{self.work}/part-{self.rank}-{next(self._parts)}"  # texts: paths cost as much as the file
        try:
            with open(part, "xb") as file:
                file.write(data)
            os.replace(part, f"{self.root}/{name}")
        except OSError:
            Path(part).unlink(missing_ok=True)
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
        """Append entries to this process's journal, "begun", "done" or "failed". Raises BrokenOff where that fails."""
        path = self.work / f"{what}-{self.rank}.jsonl"
        lines = [self.header] if what != "failed" and not path.exists() else []
        if lines := [*lines, *new]:
            with writing(path), path.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
