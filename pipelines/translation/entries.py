"""The lines of manifests and journals: sorted streams of entries, which are merged and looked up in order.

An entry whose `input_sha256` is empty is a file of ours that is not done: it was made with other settings, it was begun
by a run that was killed, or it is made of many inputs.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flowferry.datasets.file_tree import order

Entry = dict[str, Any]
KEYS = ("input", "output", "input_sha256", "output_sha256")


class Done:
    """A sorted stream of entries, in which inputs and their outputs are looked up in the same order."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._next = next(entries, None)

    def find(self, name: str, output: str) -> Entry | None:
        """Return the entry of an input that became `output`, or None. Inputs have to come in the order of a walk."""
        if self._next is None:
            return None
        sought = order(name), output
        while self._next is not None and place(self._next) < sought:
            self._next = next(self._entries, None)
        return self._next if self._next is not None and place(self._next) == sought else None


def begun(name: str, output: str) -> Entry:
    """Return the entry of a file of ours that is not done."""
    return {"input": name, "output": output, "input_sha256": "", "output_sha256": ""}


def place(entry: Entry) -> tuple[list[str], str]:
    """Return the key that sorts entries: in the order of a walk of their inputs, then by output."""
    return order(entry["input"]), entry.get("output", "")


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


def entries(path: Path, header: Entry | None) -> Iterator[Entry]:
    """Yield the entries of a manifest or journal: as they are where it begins with `header`, else as not done."""
    found = lines(path)
    same = next(found, None) == header
    for entry in found:
        if all(isinstance(entry.get(key), str) for key in KEYS):
            yield entry if same else entry | {"input_sha256": ""}


def merged(sources: Iterable[Iterator[Entry]]) -> Iterator[Entry]:
    """Yield the entries of sorted streams in order; of several for one input and output, the first stream's."""
    last = None
    for entry in heapq.merge(*sources, key=place):
        if (found := place(entry)) != last:
            yield entry
        last = found


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
