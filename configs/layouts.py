"""Which files of a folder are one side's images, and which part of each picture: patterns of relative paths."""

import re
from functools import lru_cache
from typing import NamedTuple

from flowferry.configs.names import same_form
from flowferry.configs.validation import UserError

PLAIN = "{name}"
CHOSEN_LATER = ("auto", "A", "B", "left", "right")
"""Layouts that become a pattern once the folder is listed."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The words that `{split}` stands for, in lower case, and what they mean."""
EXPECTED = "auto, A, B, left, right, or a pattern with {name} such as {name}_A, {split}A/{name} or {name}[left]"


class Place(NamedTuple):
    """What a pattern finds in the relative path of an image."""

    name: str
    """What partners have in common."""
    split: str
    """ "train", "val" or "test"; empty where the pattern has no {split}."""


class Layout(NamedTuple):
    """A pattern, ready to be compared with paths."""

    path: re.Pattern[str]
    half: str | None
    """ "left" or "right", the half of each picture that is used; None: all of it."""
    takes_all: bool
    """Whether every path fits, and is the name itself."""

    def find(self, stem: str) -> Place | None:
        """Return what the pattern finds in the relative path of an image without its ending; None: not its image."""
        if self.takes_all:
            return Place(stem, "")
        found = self.path.fullmatch(same_form(stem))
        if found is None:
            return None
        parts = found.groupdict()
        return Place(parts["name"], SPLITS[parts["split"].lower()] if "split" in parts else "")


@lru_cache(maxsize=8)
def read_layout(pattern: str) -> Layout:
    """Return the layout that a pattern says. Raises UserError for what is no pattern.

    In a pattern, {name} is what partners have in common, {split} is one of the words train, val and test, which says
    what is held out, and [left] or [right] at the end takes that half of each picture. The rest stands for itself.
    """
    whole = re.fullmatch(r"(.*?)(?:\[(left|right)\])?", same_form(pattern), re.DOTALL)
    assert whole is not None, "it matches everything"
    path, half = whole[1], whole[2]
    parts = re.split(r"(\{[^{}]*\})", path)
    if sorted(part for part in parts if "{" in part or "}" in part) not in (["{name}"], ["{name}", "{split}"]):
        raise UserError(f"layout: got {pattern!r}, expected {EXPECTED}")
    known = {"{name}": "(?P<name>.+)", "{split}": f"(?P<split>(?i:{'|'.join(SPLITS)}))"}
    return Layout(re.compile("".join(known.get(part) or re.escape(part) for part in parts)), half, path == PLAIN)


def half_in(layout: str) -> str | None:
    """Return which half of each picture a layout takes, "left" or "right"; None: all of it, or it is chosen later."""
    if layout in CHOSEN_LATER:
        return layout if layout in ("left", "right") else None
    return read_layout(layout).half


def check_layout(layout: str) -> None:
    """Raise UserError for what is neither chosen later nor a pattern."""
    if layout not in CHOSEN_LATER:
        read_layout(layout)
