"""Walk the image files of a folder at any depth, in a fixed order; memory does not grow with their number."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from flowferry.configs.validation import UserError
from flowferry.datasets.image_formats import ENDINGS
from flowferry.datasets.image_writing import WRITTEN, format_for

FOLDER, IMAGE, LINK = "folder", "image", "link"
MAX_KINDS = 8  # kinds of skipped entries that a line lists


class Item(NamedTuple):
    """An image file of a tree, or a folder that could not be listed."""

    name: str
    """Its path relative to the tree's root, with / between the parts."""
    output: str = ""
    """The path of its output relative to the root of the outputs; empty where there are no outputs."""
    problem: str = ""
    """Why the folder could not be listed; empty for an image file."""
    variant: int = 1
    """Which of the results of this file the output is, from 1."""


@dataclass
class Tree:
    """The image files under `root`, but for hidden ones, and those that links lead to outside of it."""

    root: Path
    leave_out: Path | None = None
    """A folder to skip: the one that the outputs are written to."""
    follow_links: bool = False
    """Whether to follow symbolic links to folders, and to files outside the tree, too."""
    skipped: Counter[str] = field(default_factory=Counter)
    """How many entries the last walk skipped, by kind: an ending such as ".txt", "hidden", "link", "broken link",
    "circular link", "other file"."""

    def walk(self) -> Iterator[Item]:
        """Yield the image files sorted by `order`, and an item with a problem for each folder that cannot be listed."""
        self.skipped.clear()
        yield from self._folder("", (os.path.realpath(self.root),))

    def _folder(self, prefix: str, above: tuple[str, ...]) -> Iterator[Item]:
        """Yield what lies in the folder `prefix`. above: the real paths of it and of the folders that it lies in."""
        try:
            with os.scandir(self.root / prefix) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as error:
            yield Item(prefix.rstrip("/"), problem=f"folder not readable ({error.strerror or error})")
            return
        for entry in entries:
            name, kind = prefix + entry.name, self._kind(entry)
            if kind == IMAGE:
                yield Item(name)
            elif kind != FOLDER:
                self.skipped[kind] += 1
            elif not self._is_left_out(entry):
                inside = os.path.realpath(entry) if self.follow_links else name
                if inside in above:
                    self.skipped["circular link"] += 1
                else:
                    yield from self._folder(f"{name}/", (*above, inside))

    def _kind(self, entry: os.DirEntry[str]) -> str:
        """Return whether an entry is a `FOLDER` to enter or an `IMAGE` to yield; otherwise, as what it is skipped."""
        if is_hidden(entry.name):
            return "hidden"
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # such as a link that leads to itself
            return "broken link"
        if not is_folder and not entry.name.lower().endswith(ENDINGS):
            return ending_of(entry.name)
        if entry.is_symlink() and not (is_folder or is_file):
            return "broken link"
        if entry.is_symlink() and not self.follow_links and (is_folder or not self._leads_inside(entry)):
            return LINK
        return FOLDER if is_folder else IMAGE if is_file else "other file"

    def _is_left_out(self, entry: os.DirEntry[str]) -> bool:
        return self.leave_out is not None and self.leave_out.exists() and os.path.samefile(entry, self.leave_out)

    def _leads_inside(self, entry: os.DirEntry[str]) -> bool:
        return Path(entry).resolve().is_relative_to(self.root.resolve())

    def describe_skipped(self, option: str) -> str:
        """Return what the last walk skipped: "passed over: 12 .txt, 3 hidden"; empty for nothing.

        option: the one that follows links, as it is advised where some were skipped.
        """
        kinds = [f"{n:,} {what}" + "s" * (n > 1 and what[-4:] in ("link", "file")) for what, n in skipped_kinds(self)]
        advice = f"; {option} follows links" if self.skipped[LINK] else ""
        return f"passed over: {', '.join(kinds)}{advice}" if kinds else ""


def skipped_kinds(tree: Tree) -> list[tuple[str, int]]:
    """Return the kinds of what the last walk skipped and their numbers, the most frequent first, rare ones as one."""
    kinds = Counter(tree.skipped)
    rare = [what for what, _ in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])) if what.startswith(".")]
    for what in rare[MAX_KINDS:]:
        kinds["other file"] += kinds.pop(what)
    return sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))


@dataclass
class OutputTree(Tree):
    """The image files under `root` with the names of their outputs, no two of them the same."""

    keep_ending: bool = False
    """Whether the output of a.jpg is a.jpg.png instead of a.png."""
    variants: int = 1
    """Outputs of each file: where more than one, those of a.jpg are a.1.png, a.2.png and so on."""
    format: str | None = None
    """Of all outputs, a key of `image_writing.WRITTEN`; None: each as its input, if that loses nothing, else PNG."""
    reserved: Iterable[str] = ()
    """Names at the top of the outputs that no output of an image may have."""

    def walk(self) -> Iterator[Item]:
        """Yield as `Tree` does, with outputs. Raises UserError where two outputs would have the same name."""
        taken = [dict.fromkeys(self.reserved, "the translation's own files")]  # in the root, and in each open folder
        open_folders: list[str] = []
        for item in super().walk():
            folders = item.name.split("/")
            last = None if item.problem else folders.pop()
            while folders[: len(open_folders)] != open_folders:
                open_folders.pop(), taken.pop()
            for folder in folders[len(open_folders) :]:
                self._claim(taken[-1], folder, "/".join([*open_folders, folder]))
                open_folders.append(folder)
                taken.append({})
            if last is None:
                yield item
                continue
            for output, variant in self.outputs_of(last):
                self._claim(taken[-1], output, item.name)
                yield Item(item.name, "/".join([*folders, output]), variant=variant)

    def outputs_of(self, name: str) -> list[tuple[str, int]]:
        """Return the file names of the outputs for an image with the file name `name`, sorted, and their variants."""
        ending = WRITTEN[format_for(name, self.format)].endings[0]
        stem, variants = name if self.keep_ending else stem_of(name), range(1, self.variants + 1)
        return sorted((numbered(stem + ending, variant, of=self.variants), variant) for variant in variants)

    def _claim(self, outputs: dict[str, str], output: str, name: str) -> None:
        """Record that `name` becomes `output`. Raises UserError where something else already does."""
        if output in outputs:
            raise UserError(
                f"{self.root}: got {outputs[output]} and {name}, which would both become {output} in the same folder, "
                "expected other names, or --suffix, which keeps the ending of each"
            )
        outputs[output] = name


def order(name: str) -> list[str]:
    """Return the key that sorts relative paths in the order of a walk: part by part."""
    return name.split("/")


def stem_of(name: str) -> str:
    """Return the relative path of an image without its ending."""
    return name.rpartition(".")[0]


def numbered(name: str, variant: int, *, of: int) -> str:
    """Return the file name of one of several results: "a.2.png" for "a.png"; as it is where it is the only one."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}.{variant}{dot}{ending}" if of > 1 else name


def is_hidden(name: str) -> bool:
    """Return whether programs keep something of their own under this name: .DS_Store, ._a.jpg, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def ending_of(name: str) -> str:
    """Return the ending of a file name in lower case, where it looks like one; otherwise "other file"."""
    ending = os.path.splitext(name)[1].lower()
    return ending if ending.isascii() and ending[1:].isalnum() and len(ending) <= 8 else "other file"
