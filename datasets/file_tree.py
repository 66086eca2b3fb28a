"""Walk the image files of a folder at any depth, in a fixed order; memory does not grow with their number."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from flowferry.configs.validation import UserError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class Item(NamedTuple):
    """An image file of a tree, or a folder that could not be listed."""

    name: str
    """Its path relative to the tree's root, with / between the parts."""
    output: str
    """The path of its output, a PNG file, relative to the root of the outputs; empty for a folder."""
    problem: str = ""
    """Why the folder could not be listed; empty for an image file."""


@dataclass
class Tree:
    """The image files under `root`. Symbolic links to folders, and to files outside the tree, are not followed."""

    root: Path
    leave_out: Path | None = None
    """A folder to skip: the one that the outputs are written to."""
    keep_ending: bool = False
    """Whether the output of a.jpg is a.jpg.png instead of a.png."""
    reserved: Iterable[str] = ()
    """Names at the top of the outputs that no output of an image may have."""
    skipped: Counter[str] = field(default_factory=Counter)
    """How many entries the last walk skipped, by kind: "link", "other file"."""

    def walk(self) -> Iterator[Item]:
        """Yield the image files sorted by `order`, and an item with a problem for each folder that cannot be listed.

        Raises UserError where two outputs would have the same name.
        """
        self.skipped.clear()
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
                self.skipped["other file"] += 1
            elif entry.is_symlink() and not self._leads_inside(entry):
                self.skipped["link"] += 1
            elif entry.is_file():
                output = self.output_of(entry.name)
                self._claim(outputs, output, name)
                yield Item(name, prefix + output)
            else:
                self.skipped["other file"] += 1

    def output_of(self, name: str) -> str:
        """Return the file name of the output for an image with the file name `name`."""
        return (name if self.keep_ending else name.rpartition(".")[0]) + ".png"

    def _claim(self, outputs: dict[str, str], output: str, name: str) -> None:
        """Record that `name` becomes `output`. Raises UserError where something else already does."""
        if output in outputs:
            raise UserError(
                f"{self.root}: got {outputs[output]} and {name}, which would both become {output} in the same folder, "
                "expected other names (to translate, also --suffix, which keeps the ending of each)"
            )
        outputs[output] = name

    def _is_left_out(self, entry: os.DirEntry[str]) -> bool:
        return self.leave_out is not None and self.leave_out.exists() and os.path.samefile(entry, self.leave_out)

    def _leads_inside(self, entry: os.DirEntry[str]) -> bool:
        return Path(entry).resolve().is_relative_to(self.root.resolve())


def order(name: str) -> list[str]:
    """Return the key that sorts relative paths in the order of a walk: part by part."""
    return name.split("/")
