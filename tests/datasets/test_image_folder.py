"""Folders of image files as sources and targets: datasets/image_folder.py."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch
from PIL import Image

from flowferry import launch
from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_samplers, build_source
from flowferry.datasets.image_folder import image_folder, split_members
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.pixels import to_pixels
from flowferry.datasets.streaming import Streamed

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)


def put(folder: Path, name: str, color: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(folder / name)


def colored(folder: Path, count: int, ending: str = "png", into: int = 1, red: int = 0) -> Path:
    """Image i is of color (red, i, 0), in one of so many sub-folders."""
    for index in range(count):
        put(folder, (f"class {index % into}/" if into > 1 else "") + f"{index:03d}.{ending}", (red, index, 0))
    return folder


def numbers(samples: torch.Tensor) -> list[int]:
    return to_pixels(samples)[:, 1, 0, 0].tolist()


def folder(root: Path, split: str = "train", cache_mb: int = 2048, **options: object) -> InMemory | Streamed:
    config = ImageFolderConfig(root=str(root), cache_mb=cache_mb)
    return image_folder(config, SHAPE, split, CPU, **options)  # type: ignore[arg-type,return-value]


def both(config: Config, split: str = "train") -> tuple[InMemory, InMemory]:
    return build_samplers(config, data_root=Path(), split=split, device=CPU)  # type: ignore[arg-type,return-value]


def of_folders(a: Path, b: Path, **changes: object) -> Config:
    source, target = (ImageFolderConfig(root=str(root)) for root in (a, b))
    return replace(PIPELINES["folders"], source=source, target=target, shape=SHAPE, **changes)


@pytest.mark.parametrize("count", [2, 9, 10, 57])
def test_each_image_is_in_one_split(count: int, tmp_path: Path) -> None:
    root = colored(tmp_path / "a", count)
    train, test = folder(root), folder(root, "test")
    seen = [numbers(part.draw(part.size, seed=0, step=0).samples) for part in (train, test)]
    assert sorted(seen[0] + seen[1]) == list(range(count))
    assert len(seen[1]) == max(1, count // 10)


def test_the_only_image_of_a_class_is_trained_on(tmp_path: Path) -> None:
    """By the hash of its name alone, the only picture of the class would be held out in two of these folders."""
    for number in (1, 2, 55, 65):
        root = tmp_path / str(number)
        colored(root / "many", 9)
        put(root, f"rare/{number}.png", (0, 99, 0))
        assert set(folder(root).draw(9, seed=0, step=0).labels.tolist()) == {0, 1}
        assert folder(root).size == 9 and folder(root, "test").size == 1


def test_where_each_class_has_one_image_all_are_in_both_splits(tmp_path: Path) -> None:
    root = colored(tmp_path / "a", 3, into=3)
    for split in ("train", "test"):
        assert sorted(numbers(folder(root, split).draw(3, seed=0, step=0).samples)) == [0, 1, 2]


def held_out(root: Path, names: Iterable[str]) -> set[str]:
    """Return which of the images with these names are held out; nothing is read but the names."""
    root.mkdir()
    for name in names:
        (root / name).touch()
    return {one.path for one in split_members(ImageFolderConfig(root=str(root)), "test", None, frozenset())[0]}


def test_images_that_are_added_bring_none_from_training_into_the_test(tmp_path: Path) -> None:
    """Nor does one leave it but to make room: each image's name alone says where it stands."""
    names, added = [f"m{index:02d}.png" for index in range(40)], [f"a{index}.png" for index in range(9)]
    before, after = held_out(tmp_path / "before", names), held_out(tmp_path / "after", names + added)
    assert len(before) == len(after) == 4
    assert after - before <= set(added)


def test_what_is_held_out_is_not_where_it_stands_in_the_order_of_names(tmp_path: Path) -> None:
    """Of 40 in 400 images, the number in the first half is hypergeometric: 20, give or take 3."""
    chosen = held_out(tmp_path / "a", [f"{index:03d}.png" for index in range(400)])
    numbers = sorted(int(name[:3]) for name in chosen)
    assert len(numbers) == 40
    assert abs(sum(number < 200 for number in numbers) - 20) < 5 * math.sqrt(40 / 4 * 360 / 399)
    assert len({number % 10 for number in numbers}) > 1  # nor every tenth


def test_cached_and_streamed_images_are_the_same_stream(tmp_path: Path) -> None:
    root = colored(tmp_path / "a", 40, into=4)
    cached, streamed = folder(root), folder(root, cache_mb=0)
    assert (type(cached), type(streamed)) == (InMemory, Streamed)
    for seed, step in [(0, 0), (0, 1), (0, 2), (0, 3), (0, 7), (0, 8), (1, 9), (0, 4), (0, 5)]:  # in turn, and not
        one, other = (sampler.draw(7, seed=seed, step=step) for sampler in (cached, streamed))
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("count, kept", [(5, InMemory), (6, Streamed)])  # one of which is held out
def test_images_are_kept_in_memory_up_to_so_many_mb(count: int, kept: type, tmp_path: Path) -> None:
    config = ImageFolderConfig(root=str(colored(tmp_path / "a", count)), cache_mb=1, resize="stretch")
    sampler = image_folder(config, (1, 512, 512), "train", CPU)  # a quarter of a MB each
    assert type(sampler) is kept and sampler.size == count - 1


def test_batches_that_follow_each_other_come_from_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = folder(colored(tmp_path / "a", 40), cache_mb=0)
    streamed.draw(7, seed=0, step=0)

    def here(indices: object) -> None:
        raise AssertionError("decoded in this process")

    monkeypatch.setattr(streamed.files, "batch", here)
    for step in range(1, 5):
        streamed.draw(7, seed=0, step=step)
    with pytest.raises(AssertionError, match="in this process"):
        streamed.draw(7, seed=0, step=9)


def test_sub_folders_are_classes_if_every_image_lies_in_one(tmp_path: Path) -> None:
    root = colored(tmp_path / "a", 40, into=4)
    sampler = folder(root)
    batch = sampler.draw(36, seed=0, step=0)
    assert sampler.num_classes == 4
    assert batch.labels.tolist() == [number % 4 for number in numbers(batch.samples)]
    put(root, "stray.png", (0, 99, 0))
    sampler = folder(root)
    assert (sampler.num_classes, sampler.draw(1, seed=0, step=0).labels) == (0, None)


def test_the_class_is_the_first_of_the_folders_however_deep_an_image_lies(tmp_path: Path) -> None:
    for index in range(12):  # "cat" is also the name of a folder inside "dog"
        put(tmp_path, ("cat/a/b", "dog/cat", "dog")[index % 3] + f"/{index}.png", (0, index, 0))
    sampler = folder(tmp_path)
    batch = sampler.draw(11, seed=0, step=0)
    assert sampler.num_classes == 2
    assert batch.labels.tolist() == [int(number % 3 > 0) for number in numbers(batch.samples)]


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 5, 11)])
def test_images_come_to_the_shape_gray_or_in_color(shape: tuple[int, int, int], tmp_path: Path) -> None:
    put(tmp_path, "a.png", (255, 0, 0), (31, 17))
    config = ImageFolderConfig(root=str(tmp_path), resize="stretch")
    sample = image_folder(config, shape, "train", CPU).draw(1, seed=0, step=0).samples
    expected = torch.tensor([255, 0, 0] if shape[0] == 3 else [76])  # ITU-R 601 luma
    assert torch.equal(to_pixels(sample)[0], expected[:, None, None].expand(shape).to(torch.uint8))


def test_given_pairs_are_paired_by_relative_name_whatever_the_ending(tmp_path: Path) -> None:
    a, b = colored(tmp_path / "a", 30, into=3), colored(tmp_path / "b", 30, "bmp", into=3, red=200)
    for split in ("train", "test"):
        source, target = both(of_folders(a, b, coupling="given"), split)
        batches = [sampler.draw(source.size, seed=3, step=1).samples for sampler in (source, target)]
        assert numbers(batches[0]) == numbers(batches[1])
        assert (to_pixels(batches[1])[:, 0] == 200).all()


def test_given_pairs_stay_pairs_where_their_endings_sort_in_another_order(tmp_path: Path) -> None:
    """a.png comes before a.q.png, but a.q.tif before a.tif."""
    for index, stem in enumerate(letter + more for letter in "abcde" for more in ("", ".q")):
        put(tmp_path / "a", f"{stem}.png", (0, index, 0))
        put(tmp_path / "b", f"{stem}.tif", (0, index, 0))
    source, target = both(of_folders(tmp_path / "a", tmp_path / "b", coupling="given"))
    batches = [numbers(sampler.draw(9, seed=3, step=0).samples) for sampler in (source, target)]
    assert batches[0] == batches[1] and len(set(batches[0])) == 9


def test_images_without_a_partner_are_listed_and_refused_unless_allowed(tmp_path: Path) -> None:
    a, b = colored(tmp_path / "a", 30), colored(tmp_path / "b", 30)
    (a / "003.png").unlink()
    (b / "017.png").unlink()
    message = r"got 28 pairs.*1 only in .*a \(017\); 1 only in .*b \(003\), expected .*--allow-unmatched"
    with pytest.raises(UserError, match=message):
        both(of_folders(a, b, coupling="given"))
    assert (
        sum(
            part[0].size
            for part in (both(of_folders(a, b, coupling="given", allow_unmatched=True), s) for s in ("train", "test"))
        )
        == 28
    )
    source, target = both(of_folders(a, b, coupling="given", allow_unmatched=True))
    batches = [numbers(sampler.draw(source.size, seed=0, step=0).samples) for sampler in (source, target)]
    assert batches[0] == batches[1]
    assert not {3, 17} & set(batches[0])
    both(of_folders(a, b))  # unpaired, nobody asks


@pytest.mark.parametrize("endings", [("jpg", "png"), ("png", "jpeg"), ("bmp", "tif")])
def test_images_of_one_stem_are_both_trained_on_unless_they_are_to_be_paired(
    endings: tuple[str, str], tmp_path: Path
) -> None:
    a, b = colored(tmp_path / "a", 20, "bmp"), colored(tmp_path / "b", 20)
    for ending in endings:
        put(a, f"x.{ending}", (0, 200, 0))
    splits = [folder(a, split) for split in ("train", "test")]
    drawn = [numbers(part.draw(part.size, seed=0, step=0).samples) for part in splits]
    assert sorted(some.count(200) for some in drawn) == [0, 2], "the two are kept together"
    with pytest.raises(UserError) as told:
        both(of_folders(a, b, coupling="given", allow_unmatched=True))
    first, second = sorted(f"x.{ending}" for ending in endings)
    message = f"coupling given: got {first} and {second} in {a}, expected one image of each name"
    assert str(told.value) == message


def test_one_stem_alone_is_in_both_splits(tmp_path: Path) -> None:
    put(tmp_path, "x.png", (0, 1, 0))
    put(tmp_path, "x.bmp", (0, 2, 0))
    drawn = [numbers(folder(tmp_path, split).draw(2, seed=0, step=0).samples) for split in ("train", "test")]
    assert [sorted(some) for some in drawn] == [[1, 2], [1, 2]]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_the_stems_alone_decide_what_is_held_out_and_in_which_order(ending: str, tmp_path: Path) -> None:
    """As every run since version 0.1 had it, so that one that goes on sees and holds out the same images."""
    root = colored(tmp_path / "a", 30, ending, into=3)
    train, test = (folder(root, split).draw(27, seed=0, step=0).samples for split in ("train", "test"))
    assert numbers(test)[:3] == [19, 16, 9]
    assert numbers(train)[:12] == [22, 26, 27, 24, 23, 25, 15, 29, 10, 21, 11, 4]


def test_pairs_are_found_whatever_the_encoding_of_their_names(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for index, name in enumerate(["é", "e", "f", "größe", "z", "Åse", "が", *"ghijklmn"]):
        put(a, normalize("NFC", f"{name}.png"), (0, index, 0))
        put(b, normalize("NFD", f"{name}.png"), (200, index, 0))
    for split in ("train", "test"):
        source, target = both(of_folders(a, b, coupling="given"), split)
        batches = [sampler.draw(source.size, seed=3, step=1).samples for sampler in (source, target)]
        assert numbers(batches[0]) == numbers(batches[1])
    put(b, "cafe\u0301.png", (0, 0, 0)), put(b, "caf\u00e9.png", (0, 0, 0))
    with pytest.raises(UserError) as told:
        both(of_folders(a, b, coupling="given"))
    assert r"= 'cafe\u0301.png'" in str(told.value) and r"= 'caf\xe9.png'" in str(told.value)


def test_code_points_are_shown_of_names_that_only_look_alike(tmp_path: Path) -> None:
    a, b = colored(tmp_path / "a", 3), colored(tmp_path / "b", 3)
    put(a, "\u0430bc.png", (0, 0, 0))  # a Cyrillic letter
    put(b, "abc.png", (0, 0, 0))
    with pytest.raises(UserError) as told:
        both(of_folders(a, b, coupling="given"))
    assert "(\u0430bc = " + r"'\u0430bc')" in str(told.value) and "(abc)" in str(told.value)


def test_folders_with_no_pair_at_all_are_refused(tmp_path: Path) -> None:
    a, b = colored(tmp_path / "a", 3), colored(tmp_path / "b", 3, into=2)
    with pytest.raises(UserError, match=r"^coupling given: got 0 pairs by relative name; 3 only in "):
        both(of_folders(a, b, coupling="given", allow_unmatched=True))


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.mkdir(), r"got no images in .*a \(it is empty\)"),
        (
            lambda root: colored(root, 12) / "005.png" and (root / "005.png").write_bytes(b"no"),
            "005.png: not a readable",
        ),
    ],
)
def test_bad_folders_are_refused_in_one_line(prepare: object, message: str, tmp_path: Path) -> None:
    prepare(tmp_path / "a")  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as error:
        folder(tmp_path / "a").draw(1, seed=0, step=0)
    assert "\n" not in str(error.value)


def test_a_bad_file_of_a_stream_is_named_when_it_is_reached(tmp_path: Path) -> None:
    root = colored(tmp_path / "a", 12)
    for file in root.iterdir():
        file.write_bytes(file.read_bytes()[:45])  # damaged behind the header
    streamed = folder(root, cache_mb=0)
    for step in (0, 1):
        with pytest.raises(UserError, match="4 images cannot be read"):
            streamed.draw(4, seed=0, step=step)


def test_the_source_alone_can_be_built(tmp_path: Path) -> None:
    a, b = colored(tmp_path / "a", 30), colored(tmp_path / "b", 20)
    source = build_source(of_folders(a, b), data_root=Path(), split="test", device=CPU)
    assert source.size == 3


def test_two_folders_train_and_translate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    colored(Path("a"), 12, into=2)
    colored(Path("b"), 12, into=2, red=250)
    argv = "--pipeline folders --source.root a --target.root b --coupling given --shape 3 8 8 --output-dir runs/own"
    small = "--model.widths 16 16 --model.attention False --model.middle 8 --solver.steps 2 --train.max-steps 3".split()
    assert launch.main([*argv.split(), *small, "--train.batch-size", "4", "--train.threads", "1"]) == 0
    assert json.loads(Path("runs/own/config.json").read_text())["data"] == "real"
    assert launch.main("translate --pipeline runs/own --input a --output out --sheet --gif --html".split()) == 0
    assert len(list(Path("out").rglob("class*/*.png"))) == 12
    assert np.asarray(Image.open("out/class 0/000.png")).shape == (8, 8, 3)
    with Image.open("out/path.gif") as gif:
        assert gif.n_frames >= 2
    page = Path("out/index.html").read_text()
    assert page.count("<figcaption ") == 12 and page.count("data:image/png;base64,") == 24
    assert "http" not in page and 'src="/' not in page
    assert launch.main("report --pipeline runs/own".split()) == 0


def test_quick_folders_need_no_files_and_named_ones_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sources(*argv: str) -> tuple[str, str]:
        assert launch.main(["--pipeline", "folders", "--quick", "--print-config", *argv]) == 0
        config = json.loads(capsys.readouterr().out)
        return config["source"]["kind"], config["target"]["kind"]

    assert sources() == ("synthetic-colors", "synthetic-colors")
    assert sources("--source.root", "a", "--target.root=b") == ("image-folder", "image-folder")
    assert launch.main(["--pipeline", "folders", "--output-dir", str(tmp_path / "none")]) == 2
    assert "--source.root" in capsys.readouterr().err


@pytest.mark.parametrize("cache_mb", [0, 2048], ids=["streamed", "cached"])
def test_what_is_worth_telling_of_images_is_told_once_for_each_kind(
    cache_mb: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = colored(tmp_path / "a", 4)
    for name in ("clear", "blank"):
        Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(root / f"{name}.png")
    Image.fromarray(np.arange(784, dtype=np.uint16).reshape(28, 28)).save(root / "deep.png")
    sampler = folder(root, cache_mb=cache_mb)
    for step in range(4):
        sampler.draw(6, seed=0, step=step)
    told = [record.getMessage() for record in caplog.records]
    assert sum("a single color after loading" in line for line in told) == 1
    assert sum("less than a tenth of the range" in line and "deep.png" in line for line in told) == 1
