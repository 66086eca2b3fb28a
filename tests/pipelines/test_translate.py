"""The verb `translate`: what becomes of every kind of file, what is refused, and that what is asked is what is done."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowferry import Pipeline, launch
from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.networks import PracticalUNetConfig
from flowferry.configs.presets import PIPELINES
from flowferry.datasets.image_io import load_image
from flowferry.datasets.pixels import to_pixels
from flowferry.pipelines.translation.manifest import Manifest
from translations import contents, hostile_tree, noise, rows, save_tiny, translate, write_images

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny fashion2mnist."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny", "fashion2mnist-published", {"width": 4})


def refused(capsys: pytest.CaptureFixture[str], *given: object) -> str:
    """Return the one line with which a translation that cannot start is refused."""
    capsys.readouterr()
    assert translate(*given) == 2  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("error: "), told
    return told


# --- what becomes of each file --------------------------------------------------------------------------


FOUND = {  # what becomes of files that do not become gray PNG files of 8 bits: format and mode
    "web.webp": ("WEBP", "RGB"),
    "scan.tif": ("TIFF", "L"),
    "scan.deep.tif": ("TIFF", "I;16"),
    "gray16.png": ("PNG", "I;16"),
    "rgb16.png": ("PNG", "I;16"),
    "glass.png": ("PNG", "LA"),
}


def test_every_kind_of_file(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = hostile_tree(tmp_path / "in")
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 1
    made = contents(tmp_path / "out").keys() - {"manifest.jsonl", "failures.jsonl"}
    assert made == {becomes for becomes in expected.values() if becomes and not becomes.startswith("!")}
    reasons = {row["input"]: row["error"] for row in rows(tmp_path / "out" / "failures.jsonl")}
    assert reasons.keys() == {name for name, becomes in expected.items() if becomes.startswith("!")}
    for name, reason in reasons.items():
        assert expected[name][1:] in reason, (name, reason)
        assert "0x" not in reason and "\n" not in reason
    for name in made:
        kind, mode = FOUND.get(name, ("PNG", "L"))
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.size, image.mode, image.format) == ((28, 28), mode, kind), name
    done = {row["input"]: row["output"] for row in rows(tmp_path / "out" / "manifest.jsonl")[1:]}
    assert done == {name: becomes for name, becomes in expected.items() if becomes in made}
    assert f"{len(made)} translated" in caplog.text and f"{len(reasons)} failed" in caplog.text
    assert "1 had several frames" in caplog.text
    told = "passed over: 4 hidden, 3 links, 2 other files, 1 .txt, 1 .zip, 1 broken link; --follow-links follows links"
    assert told in caplog.text


def test_a_file_that_vanishes_or_may_not_be_read_fails_by_name(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in")
    refusing, read_bytes = tmp_path / "in/1/4.png", Path.read_bytes

    def read(path: Path) -> bytes:
        if path == refusing:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 1
    told = rows(tmp_path / "out" / "failures.jsonl")
    assert told == [{"input": "1/4.png", "error": "not a readable image (Permission denied)"}]
    assert len(contents(tmp_path / "out")) == 8 + 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_listed_fails_by_name(trained: Path, tmp_path: Path) -> None:
    (write_images(tmp_path / "in") / "1").chmod(0)
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 1
    assert rows(tmp_path / "out" / "failures.jsonl")[0]["input"] == "1"


def test_two_processes_give_the_bytes_of_one_each_file_once(trained: Path, tmp_path: Path) -> None:
    hostile_tree(tmp_path / "in")
    write_images(tmp_path / "in" / "more", 40)
    assert translate(trained, tmp_path / "in", tmp_path / "one", "--batch-size", "7") == 1
    argv = ["translate", "--pipeline", trained, "--input", tmp_path / "in", "--output", tmp_path / "two"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, "launch.py", *argv], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    one = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == one
    made = [name for name in one if not name.endswith(".jsonl")]
    assert f"{len(made)} translated" in done.stderr, done.stderr


def test_links_are_followed_where_that_is_asked_for(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a folder of DVC's, of git-annex or of the hub's cache, which hold nothing but links."""
    write_images(tmp_path / "cache", 6)
    (tmp_path / "in" / "more").mkdir(parents=True)
    for file in (tmp_path / "cache" / "0").iterdir():
        (tmp_path / "in" / file.name).symlink_to(file)
    (tmp_path / "in" / "more" / "folder").symlink_to(tmp_path / "cache" / "1")
    told = refused(capsys, trained, tmp_path / "in", tmp_path / "out")
    assert "no images" in told and "passed over: 3 links; --follow-links follows links" in told
    assert translate(trained, tmp_path / "in", tmp_path / "out", "--follow-links") == 0
    made = {"0.png", "3.png", "more/folder/1.png", "more/folder/4.png"}
    assert contents(tmp_path / "out").keys() == {*made, "manifest.jsonl"}
    assert not (tmp_path / "out" / "more" / "folder").is_symlink()


# --- what is refused before anything is written ---------------------------------------------------------


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("b/a.png", "b/a.bmp"), ("a.jpg", "a.png/x.png")])
def test_collisions_are_refused_and_suffix_is_the_way_out(
    names: tuple[str, str], trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        noise(0).save(tmp_path / "in" / name)
    told = refused(capsys, trained, tmp_path / "in", tmp_path / "out")
    assert "--suffix" in told and "a.png" in told
    assert not (tmp_path / "out").exists()
    assert translate(trained, tmp_path / "in", tmp_path / "out", "--suffix") == 0
    assert contents(tmp_path / "out").keys() == {*(f"{name}.png" for name in names), "manifest.jsonl"}


def test_names_of_the_translations_own_files_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    noise(0).save(tmp_path / "in" / "sheet.jpg")
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 0
    assert "sheet.jpg" in refused(capsys, trained, tmp_path / "in", tmp_path / "out2", "--sheet")
    assert not (tmp_path / "out2").exists()


def test_what_makes_no_sense_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write_images(tmp_path / "in"), tmp_path / "out"
    assert "holds, the input" in refused(capsys, trained, folder, folder)
    assert "holds, the input" in refused(capsys, trained, folder / "1", folder)
    assert "nowhere, which does not exist, expected" in refused(capsys, trained, tmp_path / "nowhere", out)
    (tmp_path / "none").mkdir()
    assert "no images" in refused(capsys, trained, tmp_path / "none", out)
    assert "background: got 'blakc', expected" in refused(capsys, trained, folder, out, "--background", "blakc")
    assert "batch_size: got 0, expected a number ≥ 1" in refused(capsys, trained, folder, out, "--batch-size", "0")
    assert "labels" in refused(capsys, trained, folder, out, "--labels", "3")
    assert "all be the same without noise; expected 1, or" in refused(capsys, trained, folder, out, "--variants", "3")
    back = ("--variants", "3", "--source-noise", "0.4", "--reverse")  # where none is added
    assert "all be the same without noise; expected 1\n" in refused(capsys, trained, folder, out, *back)
    assert "input itself" in refused(capsys, trained, folder / "0" / "0.png", folder / "0" / "0.png")
    assert "--gif" in refused(capsys, trained, folder / "0" / "0.png", tmp_path / "x.png", "--gif")
    (tmp_path / "file").write_text("")
    assert "--output: got the file" in refused(capsys, trained, folder, tmp_path / "file")
    assert not out.exists()


def test_a_second_run_at_the_same_time_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Manifest(tmp_path / "out", {"flowferry": "another"})
    other.open(overwrite=False)
    told = refused(capsys, trained, write_images(tmp_path / "in"), tmp_path / "out")
    assert f"out: another run is writing there: process {os.getpid()} on host {socket.gethostname()}; " in told
    other.close()
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 0


# --- what is asked is what is done ----------------------------------------------------------------------


def test_resize_none_refuses_other_sizes_by_name(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise(0).save(tmp_path / "in" / "own.png")
    noise(0, (29, 28)).save(tmp_path / "in" / "other.png")
    assert translate(trained, tmp_path / "in", tmp_path / "out", "--resize", "none") == 1
    (told,) = rows(tmp_path / "out" / "failures.jsonl")
    assert told["input"] == "other.png" and "29 × 28 pixels" in told["error"]


def test_images_are_framed_as_those_that_the_pipeline_was_trained_on(tmp_path: Path) -> None:
    fill, stretch = ImageFolderConfig(root="a", resize="fill"), ImageFolderConfig(root="b", resize="stretch")
    config = PIPELINES["folders"]
    config = replace(config, source=fill, target=stretch, model=PracticalUNetConfig(width=4), shape=(1, 28, 28))
    weights, source = tmp_path / "weights", tmp_path / "in"
    Pipeline(replace(config, solver=replace(config.solver, num_steps=1))).save_pretrained(weights)
    source.mkdir()
    noise(0, (60, 28)).save(source / "wide.png")

    def made(name: str, *options: str) -> bytes:
        assert translate(weights, source, tmp_path / name, *options) == 0
        return (tmp_path / name / "wide.png").read_bytes()

    assert made("untold") == made("fill", "--resize", "fill") != made("fit", "--resize", "fit")
    stretched, filled = (made(f"back-{how}", "--reverse", "--resize", how) for how in ("stretch", "fill"))
    assert made("back", "--reverse") == stretched != filled
    assert rows(tmp_path / "untold" / "manifest.jsonl")[0]["resize"] == "fill"


def test_labels_guidance_steps_and_solver_are_the_pipelines(tmp_path: Path) -> None:
    weights = save_tiny(tmp_path / "weights", "noise2mnist-cfg-published", {"width": 4})
    pipeline = Pipeline.from_pretrained(weights)
    with torch.no_grad():
        for parameter in pipeline.model.parameters():
            parameter.mul_(1.5)  # untrained, it hardly heeds the class
    pipeline.save_pretrained(weights)
    source = write_images(tmp_path / "in", 3)
    options = ("--reverse", "--labels", "3", "--guidance", "2", "--steps", "4", "--solver", "heun")
    assert translate(weights, source, tmp_path / "out", *options) == 0
    assert translate(weights, source, tmp_path / "plain", *options[:1], *options[3:]) == 0
    for name in ("0/0.png", "1/1.png", "2/2.png"):
        image = load_image(source / name, (1, 28, 28))[None]
        expected = pipeline.invert(image, torch.tensor([3]), guidance=2.0, steps=4, solver="heun")
        found, plain = (np.asarray(Image.open(tmp_path / made / name)).astype(int) for made in ("out", "plain"))
        assert abs(found - to_pixels(expected)[0, 0].numpy()).max() <= 1
        assert (found != plain).any()


# --- where one file goes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("new/", "new/a.v1.png"),
        ("deep/er/", "deep/er/a.v1.png"),
        ("new.png/", "new.png/a.v1.png"),
        ("there", "there/a.v1.png"),
        ("name", "name.png"),
        ("name.png", "name.png"),
        ("name.PNG", "name.PNG"),
        ("result.v1.2", "result.v1.2.png"),
        ("deep/result.v1", "deep/result.v1.png"),
    ],
)
def test_one_file_goes_where_the_name_says(
    typed: str, expected: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    noise(0).save("a.v1.jpg", "JPEG")
    before = contents(tmp_path).keys()
    argv = ["translate", "--pipeline", str(trained), "--input", "a.v1.jpg", "--output", typed]
    assert launch.main(argv) == 0
    assert contents(tmp_path).keys() - before == {expected}
    with Image.open(expected) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(
    ("name", "format"),
    [("digit.jpg", "JPEG"), ("digit.JPEG", "JPEG"), ("digit.webp", "WEBP"), ("digit.tif", "TIFF"), ("x.tiff", "TIFF")],
)
def test_the_name_of_one_file_says_its_format(name: str, format: str, trained: Path, tmp_path: Path) -> None:
    noise(0).save(tmp_path / "a.png")
    assert translate(trained, tmp_path / "a.png", tmp_path / name) == 0
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.size) == (format, (28, 28))


@pytest.mark.parametrize("name", ["digit.gif", "digit.BMP", "digit.pdf"])
def test_a_name_of_another_format_is_refused(
    name: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(0).save(tmp_path / "a.png")
    told = refused(capsys, trained, tmp_path / "a.png", tmp_path / name)
    assert f"got {tmp_path / name}, expected a name that ends in .png, .jpg, .webp, .tif, .npy" in told
    assert contents(tmp_path).keys() == {"a.png"}


def test_a_name_and_a_format_that_contradict_each_other_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(0).save(tmp_path / "a.png")
    told = refused(capsys, trained, tmp_path / "a.png", tmp_path / "x.png", "--format", "jpeg")
    assert "x.png beside --format jpeg, expected a name that ends in .jpg" in told
    assert translate(trained, tmp_path / "a.png", tmp_path / "x", "--format", "jpeg") == 0
    assert translate(trained, tmp_path / "a.png", f"{tmp_path}/new/", "--format", "npy") == 0  # type: ignore[arg-type]
    assert contents(tmp_path).keys() == {"a.png", "x.jpg", "new/a.npy"}


def test_a_file_in_the_folder_that_was_named_is_not_replaced_but_one_that_was_named_itself_is(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(0).save(tmp_path / "a.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"the user's")
    assert f"got {tmp_path / 'out' / 'a.png'}, which is there" in refused(
        capsys, trained, tmp_path / "a.jpg", tmp_path / "out"
    )
    assert (tmp_path / "out" / "a.png").read_bytes() == b"the user's"
    assert translate(trained, tmp_path / "a.jpg", tmp_path / "out", "--overwrite") == 0
    first = (tmp_path / "out" / "a.png").read_bytes()
    assert translate(trained, tmp_path / "a.jpg", tmp_path / "out" / "a.png", "--steps", "1") == 0
    assert (tmp_path / "out" / "a.png").read_bytes() != first


def test_variants_of_one_file_are_numbered_and_replace_nothing(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(0).save(tmp_path / "a.jpg")
    noise(0).save(tmp_path / "a.1.png")
    options = ("--source-noise", "0.4", "--variants", "2")
    assert translate(trained, tmp_path / "a.jpg", tmp_path / "b.png", *options) == 0
    assert translate(trained, tmp_path / "a.jpg", tmp_path / "out" / "x", *options, "--variants", "1") == 0
    made = contents(tmp_path)
    assert made.keys() == {"a.jpg", "a.1.png", "b.1.png", "b.2.png", "out/x.png"}
    assert made["b.1.png"] == made["out/x.png"] != made["b.2.png"]
    there = refused(capsys, trained, tmp_path / "a.jpg", tmp_path / "a.png", *options)
    assert "a.1.png, which is there already; expected another name, or --overwrite" in there
    assert "input itself" in refused(capsys, trained, tmp_path / "a.1.png", tmp_path / "a.png", *options)
    assert contents(tmp_path) == made
