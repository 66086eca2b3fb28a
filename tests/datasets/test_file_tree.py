"""Trees of image files: datasets/file_tree.py, and the formats and endings of datasets/image_formats.py."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, features

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import Item, OutputTree, Tree, ending_of, order
from flowferry.datasets.image_formats import ENDINGS, FORMATS
from flowferry.datasets.image_io import decode
from translations import bomb, noise


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(0, (8, 8)).save(path, format="PNG")
    return path


def names(tree: Tree) -> list[str]:
    found = [item.name for item in tree.walk()]
    assert found == sorted(found, key=order)
    return found


# --- which files ----------------------------------------------------------------------------------------


def test_the_endings_are_those_that_pillow_knows_for_the_trusted_formats() -> None:
    assert {".png", ".apng", ".jpg", ".jpeg", ".jfif", ".jpe", ".mpo", ".webp", ".gif", ".bmp"} <= set(ENDINGS)
    assert {".tif", ".tiff", ".ppm", ".pgm", ".tga", ".ico"} <= set(ENDINGS)
    assert (".avif" in ENDINGS) == (features.check("avif") is True)
    assert not {".eps", ".ps", ".pdf", ".wmf", ".emf", ".mpg", ".h5", ".psd"} & set(ENDINGS)
    assert not {"EPS", "WMF", "PDF", "MPEG", "HDF5", "GRIB", "BUFR"} & set(FORMATS)


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending != ".npy"])
def test_a_file_of_each_ending_is_found_and_read(ending: str, tmp_path: Path) -> None:
    known = Image.registered_extensions()[ending]
    if known not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {known}")
    more = {"save_all": True, "append_images": [noise(1, (16, 16))]} if known == "MPO" else {}
    noise(0, (16, 16)).save(tmp_path / f"A{ending.upper()}", format=known, **more)  # type: ignore[arg-type]
    assert names(Tree(tmp_path)) == [f"A{ending.upper()}"]
    assert decode((tmp_path / f"A{ending.upper()}").read_bytes(), 3, ReadConfig()).size == (16, 16)


def test_an_icon_that_holds_a_bomb_is_refused() -> None:
    """The directory of an icon says 1 × 1, whatever the picture in it says."""
    entry = bytes([1, 1, 0, 0, 1, 0, 32, 0]) + len(bomb()).to_bytes(4, "little") + (22).to_bytes(4, "little")
    with pytest.raises(UserError, match=r"not a readable image .*got more pixels"):
        decode(bytes([0, 0, 1, 0, 1, 0]) + entry + bomb(), 3, ReadConfig())


def test_what_is_passed_over_is_counted_by_ending(tmp_path: Path) -> None:
    for name in ("a.png", "b.txt", "c.TXT", "sub/d.txt", "e.json", "f", "Thumbs.db", "g.a b", "h.\x1b[31m"):
        put(tmp_path / name)
    tree = Tree(tmp_path)
    assert names(tree) == names(tree) == ["a.png"]  # the second walk counts anew
    assert tree.skipped == {".txt": 3, ".json": 1, ".db": 1, "other file": 3}
    assert tree.describe_skipped("--links") == "passed over: 3 .txt, 3 other files, 1 .db, 1 .json"
    for number in range(1000):
        put(tmp_path / "many" / f"x.{number:03d}")
    assert names(tree) == ["a.png"]
    told = tree.describe_skipped("--links")
    assert told.startswith("passed over: 998 other files, 3 .txt, 1 .000") and len(told) < 150
    shutil.rmtree(tmp_path / "many")
    os.remove(tmp_path / "a.png")
    assert Tree(put(tmp_path / "plain" / "a.png").parent).describe_skipped("--links") == ""


@pytest.mark.parametrize("name", ["._a.png", ".a.png", "__MACOSX/a.png", ".ipynb_checkpoints/a.png", "sub/.x/y/a.png"])
@pytest.mark.parametrize("follow_links", [False, True])
def test_what_is_hidden_is_passed_over_and_counted(name: str, follow_links: bool, tmp_path: Path) -> None:
    root = tmp_path / ".cache" / "images"  # the root itself may be hidden
    put(root / name), put(root / "a.png")
    tree = Tree(root, follow_links=follow_links)
    assert names(tree) == ["a.png"] and tree.skipped == {"hidden": 1}


def test_an_ending_is_what_looks_like_one() -> None:
    assert (ending_of("a.TXT"), ending_of("a.tar.gz")) == (".txt", ".gz")
    for name in (".x", "a", "a.", "a.é", "a.two words", "a.\x1b[31m", "a.averylongending"):
        assert ending_of(name) == "other file"


# --- links ----------------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with links of every kind, beside what they lead to."""
    root = put(tmp_path / "in" / "a.png").parent
    put(tmp_path / "out" / "b.png"), put(tmp_path / "out" / "deep" / "c.png")
    os.symlink("a.png", root / "inside.png")
    os.symlink("../out/b.png", root / "file.png")
    os.symlink("../out", root / "folder")
    os.symlink("../out/readme.txt", root / "readme.txt")
    os.symlink("nowhere.png", root / "broken.png")
    os.symlink("self.png", root / "self.png")
    return root


def test_links_that_lead_outside_are_counted_and_their_option_is_advised(linked: Path) -> None:
    tree = Tree(linked)
    assert names(tree) == ["a.png", "inside.png"]
    assert tree.skipped == {"link": 2, ".txt": 1, "broken link": 2}
    told = "passed over: 2 broken links, 2 links, 1 .txt; --follow-links follows links"
    assert tree.describe_skipped("--follow-links") == told


def test_links_are_followed_where_that_is_asked_for(linked: Path) -> None:
    tree = Tree(linked, follow_links=True)
    assert names(tree) == ["a.png", "file.png", "folder/b.png", "folder/deep/c.png", "inside.png"]
    assert tree.describe_skipped("--follow-links") == "passed over: 2 broken links, 1 .txt"


def test_links_in_a_circle_end(linked: Path) -> None:
    os.symlink("../../in", linked.parent / "out" / "deep" / "back")
    (linked.parent / "out" / "deep" / "deeper").mkdir()
    os.symlink("../../../out", linked.parent / "out" / "deep" / "deeper" / "up")
    os.symlink(".", linked / "here")
    os.symlink("../out/deep", linked / "twice")  # the same folder on another branch is no circle
    tree = Tree(linked, follow_links=True)
    outside = [name for name in names(tree) if "/" in name]
    assert outside == ["folder/b.png", "folder/deep/c.png", "twice/c.png", "twice/deeper/up/b.png"]
    assert tree.skipped["circular link"] == 5


def test_the_folder_of_the_outputs_is_left_out_behind_a_link_too(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png"), put(tmp_path / "out" / "b.png")
    os.symlink("../out", tmp_path / "in" / "results")
    assert names(Tree(tmp_path / "in", tmp_path / "out", follow_links=True)) == ["a.png"]


# --- outputs --------------------------------------------------------------------------------------------


def test_outputs_keep_the_relative_paths(tmp_path: Path) -> None:
    for name in ("a.jpg", "b/c.d.png", "b/e/f.tif", "b/g.png", "g.png", "h/a.png"):
        put(tmp_path / name)
    assert list(OutputTree(tmp_path).walk()) == [
        Item("a.jpg", "a.png"),
        Item("b/c.d.png", "b/c.d.png"),
        Item("b/e/f.tif", "b/e/f.tif"),
        Item("b/g.png", "b/g.png"),
        Item("g.png", "g.png"),
        Item("h/a.png", "h/a.png"),
    ]
    assert [item.output for item in OutputTree(tmp_path, keep_ending=True).walk()][:2] == ["a.jpg.png", "b/c.d.png.png"]
    of_one_format = [item.output for item in OutputTree(tmp_path, format="jpeg").walk()]
    assert of_one_format == ["a.jpg", "b/c.d.jpg", "b/e/f.jpg", "b/g.jpg", "g.jpg", "h/a.jpg"]


@pytest.mark.parametrize(
    "files", [("a.jpg", "a.png"), ("b/a.jpg", "b/a.png"), ("a.jpg", "a.png/x.png"), ("c/a.jpg", "c/a.png/x/y.png")]
)
def test_outputs_of_one_name_are_refused_with_advice(files: tuple[str, str], tmp_path: Path) -> None:
    for name in (*files, "b/z.png", "c/z.png"):
        put(tmp_path / name)
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png, which would both become a\.png .*--suffix"):
        list(OutputTree(tmp_path).walk())
    assert len(names(Tree(tmp_path))) == 4  # nobody asks where nothing is written
