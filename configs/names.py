"""The names of files, folders and classes: when two are the same, in which order they come, how they are shown."""

import re
from collections.abc import Callable, Iterable, Sequence
from unicodedata import normalize

MAX_SHOWN = 40  # classes that one line lists


def same_form(name: str) -> str:
    """Return a name in the composed form (NFC): ü can be one code point or two, and a Mac writes other than Linux."""
    return normalize("NFC", name)


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in alphabetical order, but numbers in them by their value: 2 before 10."""
    return tuple(sorted(names, key=lambda name: (number_key(name), name)))


def number_key(name: str) -> list[tuple[int, str]]:
    """Return the key that compares runs of digits by value: pairs of (value or -1, text between)."""
    parts = re.split(r"([0-9]+)", name)  # text and digits in turn, beginning and ending with text
    return [(int(digits), text) for digits, text in zip(["0", *parts[1::2]], parts[::2], strict=True)]


def with_code_points(name: str) -> str:
    """Return a name as it is shown where another may look like it: with its escapes where it is not plain ASCII."""
    plain = name.isascii() and name.isprintable() and name == " ".join(name.split())
    return name if plain else f"{name} = {name!a}"


def one_line(names: Sequence[str], show: Callable[[str], str] = with_code_points) -> str:
    """Return names as a list in one line, the first of many."""
    return ", ".join(map(show, names[:MAX_SHOWN])) + (f", … ({len(names)} in all)" if len(names) > MAX_SHOWN else "")


def numbered(names: Sequence[str]) -> str:
    """Return class names behind their labels in one line: "0 cat, 1 dog"."""
    return one_line([f"{label} {name}" for label, name in enumerate(names)], str)
