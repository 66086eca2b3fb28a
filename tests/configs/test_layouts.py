"""Patterns of relative paths: configs/layouts.py."""

import re

import pytest

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.layouts import half_in, read_layout
from flowferry.configs.validation import UserError

FOUND = [  # pattern, path without ending -> name and split
    ("{name}", "cat/x", ("cat/x", "")),
    ("{name}_A", "cat/x_A", ("cat/x", "")),
    ("{name}_A", "x_A_A", ("x_A", "")),
    ("{name}_A", "x_B", None),
    ("{name}_A", "_A", None),
    ("{split}A/{name}", "trainA/cat/x", ("cat/x", "train")),
    ("{split}A/{name}", "testA/x", ("x", "test")),
    ("{split}A/{name}", "trainB/x", None),
    ("{split}A/{name}", "otherA/x", None),
    ("A/{split}/{name}", "A/Validation/x", ("x", "val")),
    ("A/{split}/{name}", "A/training/x", ("x", "train")),
    ("A/{split}/{name}", "B/train/x", None),
    ("{split}/{name}[left]", "val/x", ("x", "val")),
    ("a.b+/{name}", "a.b+/x", ("x", "")),
    ("a.b+/{name}", "aXbb/x", None),
    ("größe/{name}", "gro\u0308ße/x", ("x", "")),  # the folder is written in the other form
]


@pytest.mark.parametrize(("pattern", "path", "expected"), FOUND)
def test_a_pattern_finds_the_name_and_the_split(pattern: str, path: str, expected: tuple[str, str] | None) -> None:
    assert read_layout(pattern).find(path) == expected


def test_the_half_is_that_in_brackets() -> None:
    halves = [half_in(layout) for layout in ("{name}[left]", "{split}/{name}[right]", "{name}", "auto", "A", "right")]
    assert halves == ["left", "right", None, None, None, "right"]


@pytest.mark.parametrize("wrong", ["", "x", "{nam}", "{name}{name}", "{split}", "{name}{", "{name}{split}{split}", "C"])
def test_what_is_no_pattern_is_refused_when_it_is_set(wrong: str) -> None:
    with pytest.raises(UserError, match=f"^layout: got {re.escape(repr(wrong))}, expected auto, A, B, left, right, or"):
        ImageFolderConfig(layout=wrong)
