"""The verb `edit`: what becomes of files, that a result is a function of its input, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowferry import Pipeline, launch
from flowferry.datasets.image_io import load_image
from flowferry.pipelines import editing
from flowferry.pipelines.flow.edits import VIEWS
from flowferry.pipelines.translation.transforms import noise_rows
from translations import contents, noise, rows, save_tiny, write_images

SMALL = {"widths": (8, 16), "blocks": (1, 1)}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny noise2mnist-cfg, random ones, with which classes make a difference."""
    folder = save_tiny(tmp_path_factory.mktemp("weights") / "digits", "noise2mnist-cfg", SMALL)
    pipeline = Pipeline.from_pretrained(folder, device="cpu")
    torch.manual_seed(0)
    for parameter in pipeline.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def garments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny fashion2mnist, whose network has no classes."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "garments", "fashion2mnist", SMALL)


def edit(name: str, weights: Path, output: Path, *options: object) -> int:
    argv = ["edit", name, "--pipeline", str(weights), "--output", str(output), *map(str, options)]
    return launch.main(argv)


Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """refused(…): the one line with which an edit that cannot start is refused."""

    def told(*given: object) -> str:
        capsys.readouterr()
        assert edit(*given) == 2  # type: ignore[arg-type]
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith("error: "), error
        return error.removeprefix("error: ").rstrip()

    return told


EDITS = {
    "sdedit": ("--start", "0.4", "--labels", "3"),
    "inpaint": ("--mask", "0.5,0,1,1", "--labels", "3", "--resample", "2"),
    "flowedit": ("--labels", "3,8"),
    "denoise": ("--start", "0.4"),
}


@pytest.mark.parametrize("name", EDITS)
def test_neither_neighbors_nor_batches_change_a_bit(name: str, digits: Path, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 40)
    assert edit(name, digits, tmp_path / "all", "--input", source, *EDITS[name]) == 0
    assert edit(name, digits, tmp_path / "few", "--input", source, "--batch-size", 3, *EDITS[name]) == 0
    assert contents(tmp_path / "all") == contents(tmp_path / "few")
    assert edit(name, digits, tmp_path / "alone.png", "--input", source / "1" / "31.png", *EDITS[name]) == 0
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "all" / "1" / "31.png").read_bytes()
    assert edit(name, digits, tmp_path / "other", "--input", source, "--seed", 1, *EDITS[name]) == 0
    first, other = contents(tmp_path / "all"), contents(tmp_path / "other")
    assert first.keys() == other.keys() and all(first[file] != other[file] for file in first)


def test_a_file_is_edited_as_from_python(digits: Path, tmp_path: Path) -> None:
    source, out = write_images(tmp_path / "in", 1) / "0" / "0.png", tmp_path / "out.png"
    assert edit("flowedit", digits, out, "--input", source, "--labels", "3", "8", "--start", "0.2") == 0
    pipeline, image = Pipeline.from_pretrained(digits, device="cpu"), load_image(source, (1, 28, 28))[None]
    three, eight = torch.tensor([3]), torch.tensor([8])
    *_, end = editing.flow_edit(pipeline, image, three, eight, start=0.2, rows=noise_rows(image, [1]))
    torch.testing.assert_close(load_image(out, (1, 28, 28)), end[0].clamp(-1, 1), rtol=0, atol=2 / 255)


def test_known_pixels_are_exact_in_the_files(digits: Path, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 3)
    mask = np.zeros((28, 28), np.uint8)
    mask[3:20, 5:9] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for k, given in enumerate(("0.5,0,1,1", tmp_path / "mask.png")):
        made = np.arange(28) >= 14 if k == 0 else mask > 0
        made = np.broadcast_to(made, (28, 28))
        assert edit("inpaint", digits, tmp_path / str(k), "--input", source, "--mask", given) == 0
        for file in ("0/0.png", "1/1.png", "2/2.png"):
            before, after = (np.asarray(Image.open(folder / file)) for folder in (source, tmp_path / str(k)))
            assert (before == after)[~made].all() and (before != after)[made].mean() > 0.9


def test_several_starts_give_several_results_of_which_1_is_the_image(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_images(tmp_path / "in", 3)
    given = ("--input", source, "--sheet", "--gif", "--html")
    assert edit("sdedit", digits, tmp_path / "out", *given, "--start", "0.2", "0.7", "1") == 0
    assert "9 edited" in caplog.text and "NFE 3" in caplog.text
    names = {f"{k}/{k}.{start}.png" for k in range(3) for start in (1, 2, 3)}
    assert contents(tmp_path / "out").keys() == {*names, "manifest.jsonl", "sheet.png", "path.gif", "index.html"}
    for k in range(3):
        assert (Image.open(source / f"{k}/{k}.png").tobytes()) == Image.open(tmp_path / f"out/{k}/{k}.3.png").tobytes()
    assert edit("sdedit", digits, tmp_path / "one", "--input", source, "--start", "0.7") == 0
    assert (tmp_path / "one/1/1.png").read_bytes() == (tmp_path / "out/1/1.2.png").read_bytes()
    with Image.open(tmp_path / "out" / "path.gif") as gif:
        assert gif.n_frames == 4  # 0.2, 1/3, 2/3 and 1


def test_what_is_done_is_not_done_again_and_other_settings_do_it_again(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_images(tmp_path / "in", 3)
    given = ("--input", source, "--labels", "3")
    (source / "bad.png").write_bytes(b"no image")
    assert edit("sdedit", digits, tmp_path / "out", *given) == 1
    assert "3 edited" in caplog.text
    assert rows(tmp_path / "out" / "failures.jsonl")[0]["input"] == "bad.png"
    (source / "bad.png").unlink()
    for options, told in (("", "3 already there"), ("--start 0.6", "3 edited"), ("--seed 1", "3 edited")):
        caplog.clear()
        assert edit("sdedit", digits, tmp_path / "out", *given, *options.split()) == 0
        assert told in caplog.text, options
    header = json.loads((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()[0])
    assert (header["edit"], header["starts"], header["labels"]) == ("sdedit", [0.5], [3])


def test_anagrams_out_of_noise_are_a_function_of_seed_and_number(digits: Path, tmp_path: Path) -> None:
    given = ("--labels", "6", "9", "--view", "flip", "--sheet", "--gif")
    assert edit("anagram", digits, tmp_path / "five", "--count", 5, *given) == 0
    assert edit("anagram", digits, tmp_path / "two", "--count", 2, *given) == 0
    five, two = contents(tmp_path / "five"), contents(tmp_path / "two")
    assert five.keys() == {*(f"0000{k}.png" for k in range(5)), "sheet.png", "path.gif"}
    assert all(five[name] == two[name] for name in ("00000.png", "00001.png"))
    pipeline = Pipeline.from_pretrained(digits, device="cpu")
    six, nine = torch.full((5,), 6), torch.full((5,), 9)
    *_, end = editing.anagram(pipeline, pipeline.draw_source(5), [six, nine], ["identity", "flip"])
    found = torch.stack([load_image(tmp_path / "five" / f"0000{k}.png", (1, 28, 28)) for k in range(5)])
    torch.testing.assert_close(found, end.clamp(-1, 1), rtol=0, atol=2 / 255)
    *_, turned = editing.anagram(
        pipeline, VIEWS["flip"].see(pipeline.draw_source(5)), [nine, six], ["identity", "flip"]
    )
    torch.testing.assert_close(found, VIEWS["flip"].see(turned).clamp(-1, 1), rtol=0, atol=2 / 255)


def test_a_hybrid_out_of_noise_and_an_anagram_of_images(
    digits: Path, garments: Path, tmp_path: Path, refused: Refused
) -> None:
    assert edit("hybrid", digits, tmp_path / "hybrid", "--labels", "3,8", "--count", 1, "--sheet") == 0
    assert contents(tmp_path / "hybrid").keys() == {"00000.png", "sheet.png"}
    told = refused("hybrid", digits, tmp_path / "hybrid", "--labels", "3,8", "--count", 1)
    assert told.endswith("00000.png, which is there already; expected another folder, or --overwrite")
    source = write_images(tmp_path / "in", 3)
    assert edit("anagram", garments, tmp_path / "turned", "--input", source, "--sheet") == 0
    assert len(rows(tmp_path / "turned" / "manifest.jsonl")) == 5  # its header, three files and the sheet


def test_what_an_edit_or_a_pipeline_does_not_take_is_refused(
    digits: Path, garments: Path, tmp_path: Path, refused: Refused
) -> None:
    source, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    given = ("--input", source)
    noise(0).save(tmp_path / "black.png")
    Image.new("L", (5, 5)).save(tmp_path / "black.png")
    expected = {
        ("sdedit", digits): "--input: got none, expected an image file or a folder of them",
        (
            "sdedit",
            digits,
            *given,
            "--mask",
            "0,0,1,1",
        ): "--mask: got 0,0,1,1, which sdedit does not take, ",
        ("sdedit", digits, *given, "--view", "flip", "skew"): "--view: got flip skew, which sdedit does not take, ",
        ("sdedit", digits, *given, "--labels", "3", "4"): "--labels: got 2 classes, expected 0 or 1 for sdedit",
        ("sdedit", digits, *given, "--labels", "12"): "--labels: got '12', expected numbers from 0 to 9 such as",
        ("sdedit", garments, *given): "sdedit: got fashion2mnist, which starts from fashion-mnist, ",
        ("inpaint", digits, *given): "--mask: got none, expected an image file, or a rectangle such as 0.5,0,1,1",
        ("inpaint", digits, *given, "--mask", "right"): "--mask: got 'right', expected an image file, or LEFT",
        ("inpaint", digits, *given, "--mask", "0,0,2,1"): "--mask: got '0,0,2,1', expected an image file, or LEFT",
        (
            "inpaint",
            digits,
            *given,
            "--mask",
            tmp_path / "black.png",
        ): f"--mask: got {tmp_path / 'black.png'}, wh",
        ("flowedit", digits, *given): "--labels: got 0 classes, expected 1 or 2 for flowedit",
        ("flowedit", digits, *given, "--labels", "3", "--solver", "ancestral"): "flowedit: got the solver ancestral, ",
        ("hybrid", digits): "--labels: got 0 classes, expected 2 for hybrid",
        ("hybrid", digits, "--start", "0.5"): "--start: got 0.5, which hybrid does not take, expected none",
        ("anagram", digits, "--labels", "6"): "--labels: got 1 classes, expected 0 or 2 for anagram",
        ("anagram", digits, "--html"): "--html: got True for noise2mnist-cfg, which starts from noise, expected none",
        ("anagram", digits, *given): f"--input: got {source} for noise2mnist-cfg, which starts from noise, expected no",
        ("anagram", garments): "--input: got none, expected an image file or a folder of them",
        ("anagram", garments, *given, "--count", "3"): "--count: got 3 for fashion2mnist, which starts from images, ",
        ("anagram", garments, *given, "--labels", "1,2"): "--labels: got '1,2', expected none, because fashion2mnist ",
    }
    for (name, weights, *options), told in expected.items():
        assert refused(name, weights, out, *options).startswith(told), (name, options)
    assert not out.exists()
    assert (
        refused("anagram", digits, tmp_path / "a.png")
        == f"--output: got {tmp_path / 'a.png'}, expected a folder for new images"
    )
