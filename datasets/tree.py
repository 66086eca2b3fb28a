"""The image files of a folder and its sub-folders, as a stream in one order: memory does not grow with the tree."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from configs.checks import UserError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class Item(NamedTuple):
    """An image file by its path in the tree, with / between its parts, and the path of its output in the other."""

    name: str
    output: str
    problem: str = ""
    """Of a folder that could not be listed."""


@dataclass
class Tree:
    """The image files of a folder at any depth. Symbolic links to folders, or out of the tree, are not followed."""

    root: Path
    leave_out: Path | None = None
    """A folder that is not looked into: where the outputs go."""
    keep_ending: bool = False
    """a.jpg becomes a.jpg.png instead of a.png."""
    reserved: Iterable[str] = ()
    """Names at the top of the outputs that no image may take."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """What lay there too, by the last walk: "link", "other file"."""

    def walk(self) -> Iterator[Item]:
        """In the order of `order`. Raises UserError where two outputs would have one name."""
        self.passed_over.clear()
        yield from self._folder("", self.reserved)

    def _folder(self, prefix: str, taken: Iterable[str]) -> Iterator[Item]:
        try:
            with os.scandir(self.root / prefix) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as error:
            yield Item(prefix.rstrip("/"), "", f"folder not readable ({error.strerror or error})")
            return
        outputs = dict.fromkeys(taken, "the translation's own files")
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if self._is_left_out(entry):
                    continue
                inside = self._folder(f"{name}/", ())
                if (first := next(inside, None)) is not None:
                    self._claim(outputs, entry.name, name)
                    yield first
                    yield from inside
            elif not entry.name.lower().endswith(IMAGE_ENDINGS):
                self.passed_over["other file"] += 1
            elif entry.is_symlink() and not self._leads_inside(entry):
                self.passed_over["link"] += 1
            elif entry.is_file():
                output = self.output_of(entry.name)
                self._claim(outputs, output, name)
                yield Item(name, prefix + output)
            else:
                self.passed_over["other file"] += 1

    def output_of(self, name: str) -> str:
        return (name if self.keep_ending else name.rpartition(".")[0]) + ".png"

    def _claim(self, outputs: dict[str, str], output: str, name: str) -> None:
        if output in outputs:
            raise UserError(
                f"--input: {outputs[output]} and {name} would both become {output} in the same folder; "
                "accepted: other names, or --suffix, which keeps the ending of each"
            )
        outputs[output] = name

    def _is_left_out(self, entry: os.DirEntry[str]) -> bool:
        return self.leave_out is not None and self.leave_out.exists() and os.path.samefile(entry, self.leave_out)

    def _leads_inside(self, entry: os.DirEntry[str]) -> bool:
        return Path(entry).resolve().is_relative_to(self.root.resolve())


def order(name: str) -> list[str]:
    """The key by which a walk is sorted."""
    return name.split("/")
