"""Folder translation: what becomes of every kind of file, and that nothing else changes a bit of it."""

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import launch
from datasets.imagefiles import load_image
from datasets.pixels import to_pixels
from pipelines import Pipeline

ROOT = Path(__file__).parents[1]
GREY16 = np.linspace(0, 65535, 28 * 28).round().astype(np.uint16).reshape(28, 28)


def noise(seed: int, size: tuple[int, int] = (28, 28), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def bomb() -> bytes:
    """A PNG of 60,000 × 60,000 pixels in a hundred bytes."""
    header = (60_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def rgb16() -> bytes:
    """A PNG with 16 bits in each of three channels, each a ramp, which Pillow cannot write."""
    rows = [b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in GREY16]
    header = (28).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def hostile_tree(root: Path) -> dict[str, str]:
    """A tree with every kind of file, and what must become of each: an output, or "!reason", or "" if passed over."""
    expected: dict[str, str] = {}

    def put(name: str, what: Image.Image | bytes, becomes: str | None = None, **options: object) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, bytes):
            path.write_bytes(what)
        else:
            what.save(path, **options)
        expected[name] = name.rpartition(".")[0] + ".png" if becomes is None else becomes

    put("grey.png", noise(1, mode="L"))
    put("UPPER.PNG", noise(2))
    put("photo.JPG", noise(3, (64, 48)))
    put("deep/er/and/deeper/still.jpeg", noise(4, (200, 10)))
    put("web.webp", noise(5, (31, 57)))
    put("old.bmp", noise(6, (5, 5)))
    put("scan.tif", noise(7, (100, 100)))
    put("scan.deep.tiff", Image.fromarray(GREY16))
    put("still.gif", noise(8))
    put("moving.gif", noise(9), save_all=True, append_images=[noise(10), noise(11)])
    exif = Image.Exif()
    exif[0x0112] = 6
    put("turned.jpg", noise(12, (40, 20)), exif=exif)
    put("palette.png", noise(13).convert("P"))
    put("glass.png", noise(14, mode="RGBA"))
    put("print.jpg", noise(15, mode="CMYK"))
    put("bits.png", noise(16, mode="1"))
    put("grey16.png", Image.fromarray(GREY16))
    put("rgb16.png", rgb16())
    put("one pixel.png", noise(17, (1, 1)))
    put("line.png", noise(18, (3000, 1)))
    for name in ("größe", "日本語", "العربية", "😀", "a&b<c>'\"", "-rf", ".hidden", "two.dots", " space "):
        put(f"names/{name}.png", noise(19))
    put("bad/empty.png", b"", "!empty file")
    put("bad/text.jpg", b"not an image\n" * 50, "!something else")
    put("bad/html.gif", b"<html><script>alert(1)</script></html>", "!something else")
    put("bad/bomb.png", bomb(), "!bomb")
    put("bad/ps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "!something else")
    for ending in ("png", "jpg", "webp", "bmp", "tif", "gif"):
        put(f"bad/half-{ending}.{ending}", noise(20, (90, 90)))
        data = (root / f"bad/half-{ending}.{ending}").read_bytes()
        put(f"bad/half-{ending}.{ending}", data[: len(data) // 2], "!not a readable image")
    put("readme.txt", b"no image", "")
    put("archive.zip", b"PK", "")
    os.symlink("grey.png", root / "inside.png")
    expected["inside.png"] = "inside.png"
    (root.parent / "secret").mkdir()
    noise(21).save(root.parent / "secret" / "secret.png")
    os.symlink("../secret/secret.png", root / "out.png")
    os.symlink("../secret", root / "outside")
    os.symlink(".", root / "loop")
    os.symlink("nowhere.png", root / "dangling.png")
    expected |= {"out.png": "", "outside": "", "loop": "", "dangling.png": ""}
    os.mkfifo(root / "pipe.png")
    (root / "folder.png").mkdir()
    return expected | {"pipe.png": "", "folder.png": ""}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny fashion2mnist."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    return saved(folder, "fashion2mnist-published", {"width": 4})


def saved(folder: Path, name: str, model: dict[str, object]) -> Path:
    from configs.presets import PIPELINES

    config = PIPELINES[name]
    config = replace(config, model=replace(config.model, **model), solver=replace(config.solver, steps=3))
    torch.manual_seed(0)
    Pipeline(config).save_pretrained(folder)
    return folder


def translate(weights: Path, source: Path, output: Path, *options: str) -> int:
    argv = ["translate", "--pipeline", str(weights), "--input", str(source), "--output", str(output), *options]
    return launch.main(argv)


def refused(capsys: pytest.CaptureFixture[str], *given: object) -> str:
    """The one line that a translation which cannot start is refused with."""
    capsys.readouterr()
    assert translate(*given) == 2  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("error: "), told
    return told


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def a_few(folder: Path, count: int = 9) -> Path:
    for index in range(count):
        (folder / str(index % 3)).mkdir(parents=True, exist_ok=True)
        noise(index, mode="L").save(folder / str(index % 3) / f"{index}.png")
    return folder


# --- what becomes of each file --------------------------------------------------------------------------


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
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.size, image.mode, image.format) == ((28, 28), "L", "PNG")
    done = {row["input"]: row["output"] for row in rows(tmp_path / "out" / "manifest.jsonl")[1:]}
    assert done == {name: becomes for name, becomes in expected.items() if becomes in made}
    assert f"{len(made)} translated" in caplog.text and f"{len(reasons)} failed" in caplog.text
    assert "1 held several frames" in caplog.text
    assert "passed over: 1 link, 6 other files" in caplog.text


def test_a_file_that_vanishes_or_may_not_be_read_fails_by_name(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_few(tmp_path / "in")
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
    (a_few(tmp_path / "in") / "1").chmod(0)
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 1
    assert rows(tmp_path / "out" / "failures.jsonl")[0]["input"] == "1"


def test_what_cannot_be_written_fails_by_name(trained: Path, tmp_path: Path) -> None:
    a_few(tmp_path / "in")
    (tmp_path / "out" / "1" / "4.png" / "in the way").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "out" / "2")
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 1
    told = {row["input"]: row["error"] for row in rows(tmp_path / "out" / "failures.jsonl")}
    assert told.keys() == {"1/4.png", "2/2.png", "2/5.png", "2/8.png"}
    assert all("cannot be written" in error for error in told.values())
    assert not list((tmp_path / "elsewhere").iterdir())  # nothing is written outside


def test_an_output_that_is_a_link_is_replaced_not_followed(trained: Path, tmp_path: Path) -> None:
    a_few(tmp_path / "in")
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "out" / "0").mkdir(parents=True)
    os.symlink(tmp_path / "precious", tmp_path / "out" / "0" / "0.png")
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 0
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "out" / "0" / "0.png").is_symlink()


# --- what is refused before anything is written ---------------------------------------------------------


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("b/a.png", "b/a.webp"), ("a.jpg", "a.png/x.png")])
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


def test_names_of_the_translation_s_own_files_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    noise(0).save(tmp_path / "in" / "sheet.jpg")
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 0
    assert "sheet.jpg" in refused(capsys, trained, tmp_path / "in", tmp_path / "out2", "--sheet")
    assert not (tmp_path / "out2").exists()


def test_what_makes_no_sense_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = a_few(tmp_path / "in"), tmp_path / "out"
    assert "holds, the input" in refused(capsys, trained, folder, folder)
    assert "holds, the input" in refused(capsys, trained, folder / "1", folder)
    assert "not there" in refused(capsys, trained, tmp_path / "nowhere", out)
    (tmp_path / "none").mkdir()
    assert "no images" in refused(capsys, trained, tmp_path / "none", out)
    assert "background" in refused(capsys, trained, folder, out, "--background", "blakc")
    assert "batch_size: found 0" in refused(capsys, trained, folder, out, "--batch-size", "0")
    assert "labels" in refused(capsys, trained, folder, out, "--labels", "3")
    assert "input itself" in refused(capsys, trained, folder / "0" / "0.png", folder / "0" / "0.png")
    assert "--gif" in refused(capsys, trained, folder / "0" / "0.png", tmp_path / "x.png", "--gif")
    (tmp_path / "file").write_text("")
    assert "found the file" in refused(capsys, trained, folder, tmp_path / "file")
    assert not out.exists()


def test_a_second_run_at_the_same_time_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.outputs import Outputs

    other = Outputs(tmp_path / "out", {"of": "another"})
    other.open(overwrite=False)
    assert "another translation" in refused(capsys, trained, a_few(tmp_path / "in"), tmp_path / "out")
    other.close()
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 0


# --- what is done is not done again ---------------------------------------------------------------------


def touched(output: Path) -> dict[str, int]:
    return {str(path.relative_to(output)): path.stat().st_mtime_ns for path in output.rglob("*.png")}


def redone(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in after if before.get(name) != after[name]}


def test_only_what_changed_is_done_again(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = a_few(tmp_path / "in"), tmp_path / "out"

    def again(*options: str) -> set[str]:
        before = touched(out)
        assert translate(trained, source, out, *options) == 0
        return redone(before, touched(out))

    everything = again()
    assert len(everything) == 9
    assert again() == set()
    assert "9 already there" in caplog.text
    noise(99, mode="L").save(source / "1" / "4.png")
    assert again() == {"1/4.png"}
    (out / "2" / "5.png").unlink()
    (out / "0" / "3.png").write_bytes(b"damaged")
    assert again() == {"2/5.png", "0/3.png"}
    assert again("--overwrite") == everything
    assert again("--steps", "2") == everything
    assert again("--steps", "2") == set()
    noise(100, mode="L").save(source / "new.png")
    assert again("--steps", "2") == {"new.png"}


def test_other_weights_do_all_of_it_again(tmp_path: Path) -> None:
    source, out = a_few(tmp_path / "in"), tmp_path / "out"
    weights = saved(tmp_path / "weights", "fashion2mnist-published", {"width": 4})
    assert translate(weights, source, out) == 0
    before = contents(out)
    pipeline = Pipeline.from_pretrained(weights)
    with torch.no_grad():
        next(pipeline.model.parameters()).add_(0.1)
    pipeline.save_pretrained(weights)
    assert translate(weights, source, out) == 0
    assert all(before[name] != after for name, after in contents(out).items())


def test_outputs_within_the_inputs_are_not_translated(trained: Path, tmp_path: Path) -> None:
    source = a_few(tmp_path / "in")
    for _ in range(2):
        assert translate(trained, source, source / "out") == 0
        assert len(touched(source / "out")) == 9


def test_what_failed_is_tried_again_and_no_longer_told_when_it_is_mended(trained: Path, tmp_path: Path) -> None:
    source = a_few(tmp_path / "in")
    (source / "0" / "0.png").write_bytes(b"")
    assert translate(trained, source, tmp_path / "out") == 1
    noise(0, mode="L").save(source / "0" / "0.png")
    assert translate(trained, source, tmp_path / "out") == 0
    assert not (tmp_path / "out" / "failures.jsonl").exists()
    assert len(touched(tmp_path / "out")) == 9


# --- nothing else changes a bit -------------------------------------------------------------------------

NETWORKS = {
    "practical-unet": ("fashion2mnist-published", {"width": 32}, ()),
    "course-unet": ("noise2mnist-cfg-published", {"width": 16}, ("--reverse", "--labels", "3", "--guidance", "2")),
    "attention-unet": ("noise2cifar", {"widths": (16, 32), "attention": (True,), "middle": 32}, ("--reverse",)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_batch_size_changes_nothing(network: str, tmp_path: Path) -> None:
    name, model, options = NETWORKS[network]
    weights = saved(tmp_path / "weights", name, model)
    source = a_few(tmp_path / "in", 10)
    made = []
    for size in ("1", "7", "64"):
        assert translate(weights, source, tmp_path / size, "--batch-size", size, "--steps", "1", *options) == 0
        made.append(contents(tmp_path / size))
    assert len(made[0]) == 11
    assert made[0] == made[1] == made[2]


def test_neighbours_change_nothing(trained: Path, tmp_path: Path) -> None:
    source = a_few(tmp_path / "in", 40)
    assert translate(trained, source, tmp_path / "all") == 0
    alone = tmp_path / "alone.png"
    assert translate(trained, source / "1" / "31.png", alone) == 0
    assert alone.read_bytes() == (tmp_path / "all" / "1" / "31.png").read_bytes()


def test_two_processes_give_the_bytes_of_one_each_file_once(trained: Path, tmp_path: Path) -> None:
    hostile_tree(tmp_path / "in")
    a_few(tmp_path / "in" / "more", 40)
    assert translate(trained, tmp_path / "in", tmp_path / "one", "--batch-size", "7") == 1
    argv = ["translate", "--pipeline", trained, "--input", tmp_path / "in", "--output", tmp_path / "two"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, "launch.py", *argv], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    one = contents(tmp_path / "one")
    assert contents(tmp_path / "two") == one
    made = [name for name in one if name.endswith(".png")]
    assert f"{len(made)} translated" in done.stderr, done.stderr


KILLED_AND_AGAIN = """
import os, random, signal, sys, time
from pathlib import Path
import launch, torch, pipelines.translate
torch.set_num_threads(1)
argv, moments = sys.argv[1:], random.Random(0)
output = Path(argv[argv.index("--output") + 1])

def begin():
    child = os.fork()  # nothing has been computed yet, so that there are no threads to lose
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(launch.main(argv))
    return child

def made():
    return sum(1 for _ in output.rglob("*.png"))

for _ in range(10):
    before, more, child = made(), moments.choice([0, 0, 1, 10, 20, 40]), begin()
    while made() < before + more:
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "it ended before it was killed"
    time.sleep(moments.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(made())
print(os.waitstatus_to_exitcode(os.waitpid(begin(), 0)[1]))
"""


def test_a_run_killed_at_ten_random_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    weights = saved(tmp_path / "weights", "fashion2mnist-published", {"width": 32})
    source = a_few(tmp_path / "in", 1000)
    options = ("--batch-size", "16", "--steps", "1")
    assert translate(weights, source, tmp_path / "whole", *options) == 0
    argv = ["translate", "--pipeline", weights, "--input", source, "--output", tmp_path / "killed", *options]
    command = [sys.executable, "-c", KILLED_AND_AGAIN, *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *made, code = map(int, done.stdout.split())
    assert code == 0 and len(made) == 10 and 0 < made[-1] < 1000
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not (tmp_path / "killed" / ".flowferry").exists()


# --- what is asked is what is done ----------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["fit", "fill", "stretch"])
def test_restored_results_have_the_size_of_their_upright_inputs(resize: str, trained: Path, tmp_path: Path) -> None:
    sizes = {"wide.png": (90, 40), "tall.png": (33, 95), "small.png": (7, 5), "line.png": (300, 1), "own.png": (28, 28)}
    (tmp_path / "in").mkdir()
    for name, size in sizes.items():
        noise(0, size).save(tmp_path / "in" / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(1, (60, 20)).save(tmp_path / "in" / "turned.jpg", exif=exif)
    options = ("--resize", resize, "--restore-size")
    assert translate(trained, tmp_path / "in", tmp_path / "out", *options) == 0
    for name, size in {**sizes, "turned.png": (20, 60)}.items():
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == size


def test_resize_none_refuses_other_sizes_by_name(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise(0).save(tmp_path / "in" / "own.png")
    noise(0, (29, 28)).save(tmp_path / "in" / "other.png")
    assert translate(trained, tmp_path / "in", tmp_path / "out", "--resize", "none") == 1
    (told,) = rows(tmp_path / "out" / "failures.jsonl")
    assert told["input"] == "other.png" and "29 × 28 pixels" in told["error"]


def test_images_are_framed_as_those_that_the_pipeline_was_trained_on(tmp_path: Path) -> None:
    from configs.parts import ImageFolderConfig, PracticalUNetConfig
    from configs.presets import PIPELINES

    fill, stretch = ImageFolderConfig(root="a", resize="fill"), ImageFolderConfig(root="b", resize="stretch")
    config = PIPELINES["folders"]
    config = replace(config, source=fill, target=stretch, model=PracticalUNetConfig(width=4), shape=(1, 28, 28))
    weights, source = tmp_path / "weights", tmp_path / "in"
    Pipeline(replace(config, solver=replace(config.solver, steps=1))).save_pretrained(weights)
    source.mkdir()
    noise(0, (60, 28)).save(source / "wide.png")

    def made(name: str, *options: str) -> bytes:
        assert translate(weights, source, tmp_path / name, *options) == 0
        return (tmp_path / name / "wide.png").read_bytes()

    assert made("untold") == made("fill", "--resize", "fill") != made("fit", "--resize", "fit")
    stretched, filled = (made(f"back-{how}", "--reverse", "--resize", how) for how in ("stretch", "fill"))
    assert made("back", "--reverse") == stretched != filled
    assert rows(tmp_path / "untold" / "manifest.jsonl")[0]["resize"] == "fill"


def test_labels_guidance_steps_and_solver_are_the_pipeline_s(tmp_path: Path) -> None:
    weights = saved(tmp_path / "weights", "noise2mnist-cfg-published", {"width": 4})
    pipeline = Pipeline.from_pretrained(weights)
    with torch.no_grad():
        for parameter in pipeline.model.parameters():
            parameter.mul_(1.5)  # untrained, it hardly heeds the class
    pipeline.save_pretrained(weights)
    source = a_few(tmp_path / "in", 3)
    options = ("--reverse", "--labels", "3", "--guidance", "2", "--steps", "4", "--solver", "heun")
    assert translate(weights, source, tmp_path / "out", *options) == 0
    assert translate(weights, source, tmp_path / "plain", *options[:1], *options[3:]) == 0
    for name in ("0/0.png", "1/1.png", "2/2.png"):
        image = load_image(source / name, (1, 28, 28))[None]
        expected = pipeline.invert(image, torch.tensor([3]), guidance=2.0, steps=4, solver="heun")
        found, plain = (np.asarray(Image.open(tmp_path / made / name)).astype(int) for made in ("out", "plain"))
        assert abs(found - to_pixels(expected)[0, 0].numpy()).max() <= 1
        assert (found != plain).any()


def test_what_is_shown_is_what_was_translated(trained: Path, tmp_path: Path) -> None:
    source = a_few(tmp_path / "in", 5)
    noise(7).save(source / "<b>&\"'.png")
    assert translate(trained, source, tmp_path / "out", "--sheet", "--gif", "--html", "--restore-size") == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;&amp;&quot;&#x27;.png" in page
    encoded = re.findall(r'class="after" src="data:image/png;base64,([^"]*)"', page)
    shown = [np.asarray(Image.open(BytesIO(base64.b64decode(one)))) for one in encoded]
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*/*.png"))
    for image, name in zip(shown, [*names, "<b>&\"'.png"], strict=True):
        assert (image == np.asarray(Image.open(tmp_path / "out" / name))).all()
    with Image.open(tmp_path / "out" / "path.gif") as gif:
        assert gif.n_frames == 4  # three steps
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 6 * 28 * 2
