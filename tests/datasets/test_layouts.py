"""How a folder is laid out: datasets/layouts.py."""

from pathlib import Path

import pytest
from PIL import Image

from flowferry.configs.layouts import read_layout
from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import stem_of
from flowferry.datasets.layouts import endings_that_meet, find_sides, own_layout, pattern_of


def in_folders(*folders: str, count: int = 4) -> list[str]:
    return [f"{folder}/{index:02d}.png" for folder in folders for index in range(count)]


def with_endings(*endings: str, count: int = 4, folder: str = "") -> list[str]:
    return [f"{folder}{index:02d}{ending}.png" for index in range(count) for ending in endings]


SIDES = [
    (in_folders("trainA", "trainB", "testA", "testB"), "{split}A/{name}", "{split}B/{name}"),
    (in_folders("trainA", "trainB", "testA", "testB", "extra"), "{split}A/{name}", "{split}B/{name}"),
    (in_folders("train_input", "train_target"), "{split}_input/{name}", "{split}_target/{name}"),
    (in_folders("A_train", "B_train", "A_val", "B_val"), "A_{split}/{name}", "B_{split}/{name}"),
    (in_folders("A/train", "A/test", "B/train", "B/val"), "A/{split}/{name}", "B/{split}/{name}"),
    (in_folders("train/blur", "train/sharp", "test/blur", "test/sharp"), "{split}/blur/{name}", "{split}/sharp/{name}"),
    (in_folders("photos", "drawings"), "drawings/{name}", "photos/{name}"),
    (in_folders("gt", "input"), "input/{name}", "gt/{name}"),
    (in_folders("after", "before"), "before/{name}", "after/{name}"),
    (in_folders("edges/cat", "edges/dog", "shoes/cat"), "edges/{name}", "shoes/{name}"),
    (with_endings("_A", "_B"), "{name}_A", "{name}_B"),
    (with_endings("_target", "_input"), "{name}_input", "{name}_target"),
    (with_endings("-hr", "-lr"), "{name}-lr", "{name}-hr"),
    (
        with_endings("_A", "_B", folder="train/") + with_endings("_A", "_B", folder="test/"),
        "{split}/{name}_A",
        "{split}/{name}_B",
    ),
]


@pytest.mark.parametrize(("paths", "first", "second"), SIDES, ids=[first for _, first, _ in SIDES])
def test_the_two_sides_of_a_folder_are_found(paths: list[str], first: str, second: str) -> None:
    sides = find_sides(Path(), paths)
    assert sides == (first, second)
    found = [{place for path in paths if (place := read_layout(side).find(stem_of(path)))} for side in sides]
    assert found[0] & found[1], "and partners meet"
    taken = [path for path in paths if any(read_layout(side).find(stem_of(path)) for side in sides)]
    assert set(paths) - set(taken) <= set(in_folders("extra")), "and nothing else is left out"


@pytest.mark.parametrize(
    "paths",
    [
        with_endings(""),
        with_endings("_A", "_B", "_C"),
        in_folders("cat", "dog", "fox"),
        [f"{index}_A.png" for index in range(4)] + [f"{index}_B.png" for index in range(4, 8)],
        [*in_folders("a", "b"), "stray.png"],
        in_folders("{a}", "b"),
    ],
)
def test_of_other_folders_no_sides_are_found(paths: list[str], tmp_path: Path) -> None:
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("L", (9, 8)).save(tmp_path / path)
    assert find_sides(tmp_path, paths) is None
    with pytest.raises(UserError, match=rf"^layout: got {tmp_path} \(.*\), expected both sides in it: ") as told:
        pattern_of("A", tmp_path, paths)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("folder", "pattern"), [("", "{name}"), ("train/", "{split}/{name}")])
def test_pictures_twice_as_wide_as_high_are_two_side_by_side(folder: str, pattern: str, tmp_path: Path) -> None:
    paths = with_endings("", folder=folder, count=40)
    (tmp_path / folder).mkdir(exist_ok=True)
    for path in paths:
        Image.new("L", (16, 8)).save(tmp_path / path)
    assert find_sides(tmp_path, paths) == (f"{pattern}[left]", f"{pattern}[right]")
    assert [pattern_of(layout, tmp_path, paths) for layout in ("A", "B", "left", "right", "auto")] == [
        *[f"{pattern}[left]", f"{pattern}[right]"] * 2,
        pattern,
    ]
    Image.new("L", (15, 8)).save(tmp_path / paths[0])
    assert find_sides(tmp_path, paths) is None


def test_folders_are_splits_where_they_are_called_so_and_one_is_for_training() -> None:
    assert own_layout(in_folders("train", "test")) == "{split}/{name}"
    assert own_layout(in_folders("Train", "Validation")) == "{split}/{name}"
    for folders in (["test"], ["test", "val"], ["train", "cat"], ["trainA", "testA"]):
        assert own_layout(in_folders(*folders)) == "{name}"
    assert own_layout([*in_folders("train", "test"), "stray.png"]) == "{name}"


def test_the_endings_are_found_with_which_most_names_meet() -> None:
    a, b = [f"{i}_A" for i in range(9)], [f"{i}" for i in range(3, 12)]
    assert endings_that_meet(a, b) == (("{name}_A", "{name}"), 6)
    assert endings_that_meet(b, [f"{i}-x" for i in range(3)]) is None
    assert endings_that_meet(a, [f"{i} (1)" for i in range(9)]) == (("{name}_A", "{name} (1)"), 9)
    assert endings_that_meet(a, a) is None, "as they are, all meet"
