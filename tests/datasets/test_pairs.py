"""Partners in the layouts that people have: datasets/pairs.py."""

import re
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.labels import folders_of
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_splits
from flowferry.datasets.image_folder import split_members
from flowferry.datasets.pairs import choose_layouts
from flowferry.datasets.pixels import to_pixels

SHAPE = (3, 8, 8)
CPU = torch.device("cpu")


def put(path: Path, red: int, number: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, number, 0)).save(path)


def of_folders(source: Path, target: Path, layout: str = "auto", **changes: object) -> Config:
    sides = {
        what: ImageFolderConfig(root=str(root), layout=layout)
        for what, root in (("source", source), ("target", target))
    }
    return replace(PIPELINES["paired"], **{**sides, "shape": SHAPE, **changes})  # type: ignore[arg-type]


def drawn(config: Config) -> list[list[tuple[int, int, int, int]]]:
    """Return by split (red, number) of the source and of the target, one pair after the other."""
    splits = build_splits(config, data_root=Path(), splits=("train", "test"), device=CPU)
    told = []
    for source, target in splits:
        assert source.size == target.size and source.size
        sides = [to_pixels(side.draw(source.size, seed=5, step=1).samples)[:, :2, 4, 4] for side in (source, target)]
        told.append([(*one.tolist(), *other.tolist()) for one, other in zip(*sides, strict=True)])
    return told


def side_by_side(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (16, 8), (10, number, 0))
    image.paste((200, number, 0), (8, 0, 16, 8))
    image.save(path)


NAMES = {  # layout -> the paths of both partners, of the split and the number
    "cyclegan": ("{split}A/{number:02d}.png", "{split}B/{number:02d}.bmp"),
    "pix2pix": ("A/{split}/{number:02d}.png", "B/{split}/{number:02d}.png"),
    "splits of folders": ("{split}/input/{number:02d}.png", "{split}/target/{number:02d}.png"),
    "splits of endings": ("{split}/{number:02d}_A.png", "{split}/{number:02d}_B.png"),
    "splits of halves": ("{split}/{number:02d}.png", ""),
    "endings": ("{number:02d}_input.png", "{number:02d}_target.png"),
    "folders": ("A/{number:02d}.png", "B/{number:02d}.png"),
    "halves": ("{number:02d}.png", ""),
}


@pytest.mark.parametrize("direction", ["AtoB", "BtoA"])
@pytest.mark.parametrize("kind", NAMES)
def test_partners_meet_in_every_layout_of_one_folder_and_its_splits_are_kept(
    kind: str, direction: str, tmp_path: Path
) -> None:
    for number in range(30):
        split = ("train", "test", "val")[number // 10 if number >= 20 else 0]
        first, second = (name.format(split=split, number=number) for name in NAMES[kind])
        if second:
            put(tmp_path / first, 10, number), put(tmp_path / second, 200, number)
        else:
            side_by_side(tmp_path / first, number)
    config = of_folders(tmp_path, tmp_path)
    if direction == "BtoA":
        sides = {
            what: replace(side, layout={"source": "B", "target": "A"}[what])
            for what, side in folders_of(config).items()
        }
        config = replace(config, **sides)  # type: ignore[arg-type]
    told: list[str] = []
    config = choose_layouts(config, None, told.append)
    assert Config.from_dict(config.to_dict()) == config, "a run keeps it"
    reds = (10, 200) if direction == "AtoB" else (200, 10)
    train, test = drawn(config)
    for one in train + test:
        assert (one[0], one[2]) == reds and one[1] == one[3]
    numbers = [sorted(one[1] for one in some) for some in (train, test)]
    if "{split}" in NAMES[kind][0]:
        assert numbers == [list(range(20)), list(range(20, 30))]
        assert told[0].endswith("; 20 images to train on, held out: 10 of val") and len(told) == 2 + (
            direction == "AtoB"
        )
    else:
        assert sorted(numbers[0] + numbers[1]) == list(range(30)) and len(numbers[1]) == 3


def test_what_is_held_out_of_pairs_does_not_depend_on_their_layout(tmp_path: Path) -> None:
    for number in range(40):
        (
            put(tmp_path / f"plain/a/{number:02d}.png", 10, number),
            put(tmp_path / f"plain/b/{number:02d}.png", 200, number),
        )
        put(tmp_path / f"one/{number:02d}_A.png", 10, number), put(tmp_path / f"one/{number:02d}_B.png", 200, number)
        side_by_side(tmp_path / f"ab/{number:02d}.png", number)
    plain = of_folders(tmp_path / "plain" / "a", tmp_path / "plain" / "b")
    others = [of_folders(tmp_path / name, tmp_path / name) for name in ("one", "ab", "plain")]
    expected, *found = (drawn(choose_layouts(config, None, lambda line: None)) for config in (plain, *others))
    assert all(one == expected for one in found)


def test_unpaired_sides_have_their_own_splits(tmp_path: Path) -> None:
    for index in range(12):
        put(tmp_path / f"{'train' if index < 9 else 'test'}A/a{index}.png", 10, index)
        put(tmp_path / f"{'train' if index < 7 else 'test'}B/b{index}.png", 200, index)
    config = choose_layouts(of_folders(tmp_path, tmp_path, coupling="independent"), None, lambda line: None)
    sizes = [
        (source.size, target.size)
        for source, target in build_splits(config, data_root=Path(), splits=("train", "test"), device=CPU)
    ]
    assert sizes == [(9, 7), (3, 5)]


def test_splits_are_no_classes_and_classes_lie_inside_of_them(tmp_path: Path) -> None:
    for index in range(12):
        put(tmp_path / f"{('train', 'test')[index % 2]}/{('cat', 'dog')[index % 3 > 0]}/{index}.png", 0, index)
    members, classes = split_members(ImageFolderConfig(root=str(tmp_path)), "test", None, frozenset())
    assert classes == ("cat", "dog")
    assert {one.path for one in members} == {path for path in map(str, paths(tmp_path)) if path.startswith("test")}
    as_before = ImageFolderConfig(root=str(tmp_path), layout="{name}")
    assert split_members(as_before, "test", None, frozenset())[1] == ("test", "train")


def paths(root: Path) -> list[Path]:
    return [path.relative_to(root) for path in root.rglob("*.png")]


# --- two folders ----------------------------------------------------------------------------------------


def endings(tmp_path: Path, one: str, other: str, count: int = 20) -> tuple[Path, Path]:
    for number in range(count):
        put(tmp_path / "a" / f"{number:02d}{one}.png", 10, number)
        put(tmp_path / "b" / f"{number:02d}{other}.png", 200, number)
    return tmp_path / "a", tmp_path / "b"


@pytest.mark.parametrize(("one", "other"), [("_A", "_B"), ("", "-out"), (" in", "")])
def test_endings_of_two_folders_are_taken_off_where_all_names_meet_then(one: str, other: str, tmp_path: Path) -> None:
    config = choose_layouts(of_folders(*endings(tmp_path, one, other)), None, lambda line: None)
    assert [side.layout for side in folders_of(config).values()] == [f"{{name}}{one}", f"{{name}}{other}"]
    assert all(red == 10 and number == partner for red, number, _, partner in chain(*drawn(config)))


def test_where_names_do_not_meet_three_of_each_are_shown_and_what_would_help(tmp_path: Path) -> None:
    a, b = endings(tmp_path, "_A", "", count=8)
    (b / "07.png").rename(b / "other.png")
    config = choose_layouts(of_folders(a, b), None, lambda line: None)
    with pytest.raises(UserError) as error:
        drawn(config)
    assert str(error.value) == (
        f"coupling given: got 0 pairs by relative name; 8 only in {a} (00_A, 01_A, 02_A, …); 8 only in {b} "
        "(00, 01, 02, …), expected a partner for each, or --allow-unmatched, which leaves those without one out; "
        "7 meet with --source.layout '{name}_A' --target.layout '{name}'"
    )
    helped = replace(config, source=replace(config.source, layout="{name}_A"), allow_unmatched=True)
    assert sum(map(len, drawn(helped))) == 7


def test_where_nothing_would_help_nothing_is_advised(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    put(a / "x.png", 0, 0), put(b / "y.png", 0, 0)
    message = f"coupling given: got 0 pairs by relative name; 1 only in {a} (x); 1 only in {b} (y), expected a partner "
    message += "for each, or --allow-unmatched, which leaves those without one out"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        drawn(of_folders(a, b))


def test_a_run_that_goes_on_keeps_the_layout_and_the_background_it_began_with(tmp_path: Path) -> None:
    a, b = endings(tmp_path, "", "")
    began = {**of_folders(a, b).to_dict()}
    for side in ("source", "target"):  # as version 0.3 wrote it
        began[side] = {k: v for k, v in began[side].items() if k not in ("layout", "shorter_side")} | {
            "background": "black"
        }
        began[side]["augment"] = {"mirrored": False, "cutout": 0, "shifted": 0}
    before = Config.from_dict(began)
    assert {side.layout for side in folders_of(before).values()} == {"{name}"}
    asked = of_folders(a, b)
    assert choose_layouts(asked, before, lambda line: None) == before
    new = choose_layouts(asked, None, lambda line: None)
    assert {side.background for side in folders_of(new).values()} == {"auto"}
    other = replace(asked, source=replace(asked.source, background="white", layout="{name}[left]"))
    kept = choose_layouts(other, before, lambda line: None)
    assert (kept.source.background, kept.source.layout) == ("white", "{name}[left]"), "what is asked for is not kept"
