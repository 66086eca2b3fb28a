"""Find out how a folder is laid out: which of its files belong to which side, and what its splits are called."""

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from PIL import Image

from flowferry.configs.layouts import PLAIN, SPLITS
from flowferry.configs.names import same_form, with_code_points
from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import stem_of
from flowferry.datasets.image_formats import FORMATS

SHOWN = 3  # examples in a message
LOOKED_AT = 16  # pictures whose shape is looked at
SECOND = {"b", "y", "target", "targets", "gt", "truth", "output", "out", "after", "hr", "high", "clean", "sharp"}
"""Words for the second of two sides; otherwise the alphabetical order decides."""
WORD = "|".join(sorted(SPLITS, key=len, reverse=True))
SPLIT = re.compile(rf"(?i:({WORD}))")
BEFORE = re.compile(rf"(?i:{WORD})([abAB]|[_. -]?[^a-z{{}}][^{{}}]*|[_. -][^{{}}]+)")
AFTER = re.compile(rf"([^{{}}]+[_. -])(?i:{WORD})")
TAIL = re.compile(r".*?([_. -][^_. /{}-]+)", re.DOTALL)
"""A name that ends in a separator and a last word."""

Sides = tuple[str, str]
"""The patterns of the first and the second side."""


def pattern_of(layout: str, root: Path, paths: Sequence[str]) -> str:
    """Return the pattern of one side of a folder whose layout is chosen now: "auto", "A", "B", "left" or "right".

    paths: all image files in it, relative. "auto" is for a folder that holds one side alone. Raises UserError where the
    two sides are not found.
    """
    if layout in ("left", "right"):
        return f"{own_layout(paths)}[{layout}]"
    if layout == "auto":
        return own_layout(paths)
    sides = find_sides(root, paths)
    if sides is None:
        raise UserError(
            f"layout: got {root} ({shown(paths)}), expected both sides in it: trainA and trainB, A/train and B/train, "
            "two folders, names that end in _A and _B, or two pictures side by side; others: --source.layout and "
            "--target.layout, such as {name}_A"
        )
    return sides["AB".index(layout)]


def own_layout(paths: Sequence[str]) -> str:
    """Return the pattern of a folder that holds one side: with {split} where its sub-folders are train and others."""
    first = {folder_pattern(path.split("/")[0]) if "/" in path else "" for path in paths}
    splits = {path.split("/")[0].lower() for path in paths}
    has_training = any(SPLITS.get(split) == "train" for split in splits)
    return f"{{split}}/{PLAIN}" if first == {"{split}"} and has_training else PLAIN


def find_sides(root: Path, paths: Sequence[str]) -> Sides | None:
    """Return the patterns of the two sides of one folder; None where they are not found.

    The sides are in two folders, each maybe with splits inside or as a part of its name; or else told apart by the last
    word of a name; or else the halves of each picture.
    """
    own = own_layout(paths)
    inside = [path.partition("/")[2] if own != PLAIN else path for path in paths]
    if (sides := by_folder(inside) or by_ending([stem_of(path) for path in inside])) is not None:
        prefix = own.removesuffix(PLAIN)
        return prefix + sides[0], prefix + sides[1]
    return (f"{own}[left]", f"{own}[right]") if are_side_by_side(root, paths) else None


def by_folder(paths: Sequence[str]) -> Sides | None:
    """Return the patterns of two sides that are told apart by the first folder in each path; None for others."""
    folders = {path.split("/")[0] if "/" in path else "" for path in paths}
    patterns = {folder_pattern(folder) for folder in folders if folder}
    with_split = {pattern for pattern in patterns if "{split}" in pattern and pattern != "{split}"}
    chosen = with_split if len(with_split) == 2 else patterns if "" not in folders else set()
    if len(chosen) != 2 or any(re.search("[{}]", folder.replace("{split}", "")) for folder in chosen):
        return None
    first, second = in_order(chosen)
    return with_inner_splits(first, paths), with_inner_splits(second, paths)


def with_inner_splits(folder: str, paths: Sequence[str]) -> str:
    """Return the pattern of a side whose folder is `folder`, with {split} as `own_layout` has it."""
    inside = [path.partition("/")[2] for path in paths if path.split("/")[0] == folder]
    return f"{folder}/{own_layout(inside) if inside else PLAIN}"


def folder_pattern(folder: str) -> str:
    """Return the name of a folder with {split} in the place of a word such as train: "{split}A" for "trainA"."""
    if SPLIT.fullmatch(folder):
        return "{split}"
    if found := BEFORE.fullmatch(folder):
        return "{split}" + found[1]
    return f"{found[1]}{{split}}" if (found := AFTER.fullmatch(folder)) else folder


def by_ending(stems: Sequence[str]) -> Sides | None:
    """Return the patterns of two sides whose names end in two different words, such as _A and _B; None for others."""
    tails = {found[1] if (found := TAIL.fullmatch(stem)) else "" for stem in stems}
    if len(tails) != 2 or "" in tails:
        return None
    first, second = in_order(tails)
    names = [{stem.removesuffix(tail) for stem in stems if stem.endswith(tail)} for tail in (first, second)]
    return (PLAIN + first, PLAIN + second) if names[0] & names[1] else None


def are_side_by_side(root: Path, paths: Sequence[str]) -> bool:
    """Return whether all of a few of the pictures, spread evenly, are twice as wide as high."""
    try:
        for path in paths[:: -(-len(paths) // LOOKED_AT)]:
            with Image.open(root / path, formats=FORMATS) as image:
                if image.width != 2 * image.height:
                    return False
    except Exception:  # Pillow's plugins raise all sorts of errors on broken files, which are told later
        return False
    return True


def in_order(two: set[str]) -> Sides:
    """Return two folders or endings with that of the second side last: by its word, else in alphabetical order."""
    first, second = sorted(two, key=lambda text: (re.sub(r"[\W_]|\{split\}", "", text).lower() in SECOND, text))
    return first, second


# --- two folders ----------------------------------------------------------------------------------------


def endings_that_meet(source: Sequence[str], target: Sequence[str]) -> tuple[Sides, int] | None:
    """Return the patterns with which the most names of two folders meet, and how many do; None where none does.

    source, target: relative paths without endings. A pattern takes off the last word, such as _A, that all names of a
    folder end in.
    """
    ends = [["", *common_tail(names)] for names in (source, target)]
    found = []
    for one, other in product(*ends):
        names = {same_form(name.removesuffix(one)) for name in source}
        both = names & {same_form(name.removesuffix(other)) for name in target}
        found.append((len(both), (PLAIN + one, PLAIN + other)))
    count, sides = max(found, key=lambda some: some[0])
    return (sides, count) if count and sides != (PLAIN, PLAIN) else None


def common_tail(names: Sequence[str]) -> list[str]:
    """Return the separator and the word that all names end in; nothing where they do not."""
    tails = {found[1] if (found := TAIL.fullmatch(name)) else "" for name in names}
    return list(tails) if len(tails) == 1 and "" not in tails else []


def shown(names: Sequence[str]) -> str:
    """Return the first few names as text."""
    return ", ".join(map(with_code_points, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")
