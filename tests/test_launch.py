"""The command line, verb by verb: what is asked is what is done, and what is wrong is told in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowferry import launch
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config

ROOT = Path(__file__).parents[1]
PUBLISHED = "fashion2mnist-published"
TINY = "--quick --train.max-steps 2 --train.threads 1 --target.count 40 --solver.num-steps 2 --model.width 4".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with two trained runs: runs/fashion2mnist-published and runs/noise2mnist-cfg-published."""
    root = tmp_path_factory.mktemp("trained")
    for name, more in ((PUBLISHED, ["--source.count", "40"]), ("noise2mnist-cfg-published", [])):
        assert launch.main(["--pipeline", name, *TINY, *more, "--output-dir", str(root / "runs" / name)]) == 0
    return root


@pytest.fixture
def here(runs, monkeypatch):
    monkeypatch.chdir(runs)
    return runs


def error_of(capsys, *argv: str) -> str:
    """The one line on standard error of a command that must fail with code 2."""
    assert launch.main(argv) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("error: ")
    return told


def printed_config(capsys, *argv: str) -> Config:
    assert launch.main([*argv, "--print-config"]) == 0
    return Config.from_dict(json.loads(capsys.readouterr().out))


def test_list_names_every_pipeline_and_what_is_trained(here, capsys):
    assert launch.main(["list"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in PIPELINES)
    assert (
        f"(used before shipped weights): {PUBLISHED} (synthetic data), noise2mnist-cfg-published (synthetic data)"
        in told
    )
    assert error_of(capsys, "list", "--all") == "error: unrecognized option --all\n"


def test_a_run_folder_is_a_pipeline(here, capsys):
    config = printed_config(capsys, "--pipeline", "runs/fashion2mnist-published")
    assert config.train.max_steps == 2 and config.source.kind == "synthetic-garments"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (
            ["foo"],
            [
                "unknown verb: got 'foo'",
                "train, distill, sample, translate, edit, evaluate, serve, report, features, embed, export, list",
            ],
        ),
        (
            ["--pipeline", "noise2mnist-cfg-published", "--model", "practical-unet", "--quick"],
            ["takes no classes", "got 10"],
        ),
        (["sample", "--pipeline", "nowhere"], ["got 'nowhere'", *PIPELINES]),
        (
            ["sample", "--pipeline", "noise2mnist"],
            ["no weights in runs/noise2mnist", "launch.py --pipeline noise2mnist"],
        ),
        (["sample", "--pipeline", "noise2mnist-cfg-published", "--labels", "3-12"], ["'3-12'", "0 to 9"]),
        (
            ["sample", "--pipeline", "noise2mnist-cfg-published", "--count", "3", "--per-label", "2"],
            ["--per-label", "--count 3"],
        ),
        (
            ["sample", "--pipeline", PUBLISHED, "--labels", "3"],
            [f"--labels: got '3', expected none, because {PUBLISHED} has no classes"],
        ),
        (
            ["translate", "--pipeline", PUBLISHED, "--input", "no", "--output", "out"],
            ["--input: got no"],
        ),
        (
            [
                "translate",
                "--pipeline",
                "noise2mnist-cfg-published",
                "--input",
                "runs/fashion2mnist-published/samples/path.png",
                "--output",
                "out",
            ],
            ["starts from noise"],
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if value[0] else None,
)
def test_mistakes_are_told_in_one_line(here, capsys, argv, named):
    told = error_of(capsys, *argv)
    assert all(part in told for part in named), told
    assert not (here / "out").exists()


def test_no_data_and_no_network_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    import torchvision

    def offline(self):
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
    monkeypatch.setenv("FLOWFERRY_DATA", str(tmp_path / "nothing"))
    told = error_of(capsys, "--pipeline", PUBLISHED, "--output-dir", str(tmp_path / "run"))
    assert all(part in told for part in (str(tmp_path / "nothing"), "--data-root", "--quick", "no network"))
    assert not (tmp_path / "run").exists()


def test_a_dry_run_takes_a_step_and_writes_nothing(tmp_path, caplog):
    argv = ["--pipeline", PUBLISHED, *TINY, "--dry-run", "--output-dir", str(tmp_path / "run")]
    with caplog.at_level("INFO", logger="flowferry"):
        assert launch.main(argv) == 0
    assert "one step: loss" in caplog.text
    assert not (tmp_path / "run").exists()


def test_sample_writes_the_asked_labels(here, tmp_path):
    argv = [
        "sample",
        "--pipeline",
        "noise2mnist-cfg-published",
        "--labels",
        "3,5-6",
        "--per-label",
        "2",
        "--output",
        str(tmp_path),
    ]
    assert launch.main(argv) == 0
    names = sorted(path.name for path in tmp_path.glob("0*.png"))
    assert names == [f"{i:05d}-{label}.png" for i, label in enumerate((3, 5, 6, 3, 5, 6))]
    assert Image.open(tmp_path / names[0]).size == (28, 28)
    assert (tmp_path / "sheet.png").exists()


def test_fewer_samples_leave_none_of_an_earlier_run_in_the_run_s_own_folder(here, tmp_path, caplog):
    for where in ([], ["--output", str(tmp_path)]):
        for count in ("5", "3"):
            argv = ["sample", "--pipeline", "noise2mnist-cfg-published", "--count", count, "--steps", "1", *where]
            assert launch.main(argv) == 0
    assert len(list((here / "runs/noise2mnist-cfg-published/sampled").glob("0*.png"))) == 3
    assert len(list(tmp_path.glob("0*.png"))) == 5  # which may be anybody's
    assert "2 images of an earlier run are still there" in caplog.text


def test_sample_of_a_translation_draws_its_source(here, tmp_path):
    assert launch.main(["sample", "--pipeline", PUBLISHED, "--count", "5", "--output", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("0*.png"))) == 5


def garment(path: Path, seed: int, size: tuple[int, int] = (28, 28)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)).save(path)


def test_translate_keeps_the_tree_and_names_what_failed(here, tmp_path, caplog):
    for seed, name in enumerate(("a.png", "b/c.JPG", "b/deep/größe 1.webp", "b/d.bmp")):
        garment(tmp_path / "in" / name, seed, (30 + seed, 50))
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / "b" / "broken.png").write_bytes(b"\x89PNG not really")
    argv = ["translate", "--pipeline", PUBLISHED, "--input", str(tmp_path / "in"), "--batch-size", "2"]
    assert launch.main([*argv, "--output", str(tmp_path / "out")]) == 1
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    told = {"manifest.jsonl", "failures.jsonl"}
    assert written == {"a.png", "b/c.png", "b/deep/größe 1.webp", "b/d.png", *told}
    assert "broken.png" in caplog.text
    assert all(Image.open(tmp_path / "out" / name).size == (28, 28) for name in written - told)


def test_translate_of_one_file_is_the_pipeline_s_translation(here, tmp_path):
    from flowferry import Pipeline
    from flowferry.datasets.image_io import load_image
    from flowferry.datasets.pixels import to_pixels

    garment(tmp_path / "x.png", 0)
    argv = ["translate", "--pipeline", PUBLISHED, "--input", str(tmp_path / "x.png")]
    assert launch.main([*argv, "--output", str(tmp_path / "y.png"), "--steps", "3", "--solver", "heun"]) == 0
    image = load_image(tmp_path / "x.png", (1, 28, 28))[None]
    expected = Pipeline.from_pretrained("runs/fashion2mnist-published").translate(image, steps=3, solver="heun")
    written = np.asarray(Image.open(tmp_path / "y.png")).astype(int)
    assert abs(written - to_pixels(expected)[0, 0].numpy()).max() <= 1  # a batch of one rounds in its own way


def test_two_inputs_with_one_output_are_refused_before_anything_is_written(here, tmp_path, capsys):
    garment(tmp_path / "in" / "a.png", 0)
    garment(tmp_path / "in" / "a.bmp", 1)
    argv = ["translate", "--pipeline", PUBLISHED, "--input", str(tmp_path / "in")]
    assert "a.bmp" in error_of(capsys, *argv, "--output", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argv", [["--help"], ["list"], ["train", "--help"], ["--pipeline", PUBLISHED, "--x"]])
def test_answers_that_need_no_torch_do_not_import_it(tmp_path, argv):
    """What keeps them under half a second; the time itself is measured in tests/benchmarks."""
    code = (
        "import sys; from flowferry import launch\n"
        "try: launch.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'accelerate', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code, *argv], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_points_are_sampled_into_a_table_and_not_translated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = "--train.max-steps 2 --train.threads 1 --solver.num-steps 2 --model.width 4".split()
    assert launch.main(["--pipeline", "moons", *tiny]) == 0
    assert launch.main(["sample", "--pipeline", "moons", "--count", "7"]) == 0
    points = np.loadtxt(tmp_path / "runs" / "moons" / "sampled" / "points.csv", delimiter=",")
    assert points.shape == (7, 2) and np.isfinite(points).all()
    capsys.readouterr()
    told = error_of(
        capsys, "translate", "--pipeline", "moons", "--input", str(ROOT / "docs" / "images"), "--output", "out"
    )
    assert "got moons, which carries points in the plane, expected images" in told


def test_color_works_wherever_gray_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = "--quick --train.max-steps 2 --train.threads 1 --target.count 40 --solver.num-steps 2".split()
    small += "--model.widths 16 16 --model.attention False --model.middle 8".split()
    assert launch.main(["--pipeline", "noise2cifar", *small, "--output-dir", "runs/color"]) == 0
    assert launch.main("sample --pipeline runs/color --count 3 --output drawn".split()) == 0
    assert launch.main("translate --pipeline runs/color --input drawn --output noise --reverse".split()) == 0
    assert launch.main("report --pipeline runs/color".split()) == 0
    with Image.open("drawn/00001.png") as image:
        assert (image.mode, image.size) == ("RGB", (32, 32))
        channels = np.asarray(image).reshape(-1, 3).astype(int)
    assert np.ptp(channels, axis=1).max() > 0  # not gray
    made = [{path.name for path in Path(folder).glob("*.png")} for folder in ("noise", "drawn")]
    assert made[0] == made[1]


def test_who_reads_only_the_first_line_gets_no_error(tmp_path):
    for argv in (["list"], ["distill", "--help"], ["train", "--pipeline", "folders", "--print-config"]):
        command = [sys.executable, str(ROOT / "launch.py"), *argv]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 0


ODD_NAMES = {  # of files: on the terminal
    b"\x1b[31mred\x1b[0m.png": r"\x1b[31mred\x1b[0m.png",
    b"two\nlines.png": r"two\nlines.png",
    "turned\u202egnp.png".encode(): r"turned\u202egnp.png",
    b"latin-\xe9.png": r"latin-\udce9.png",
    "größe.png".encode(): "größe.png",
}


def test_names_do_not_command_the_terminal(here, tmp_path):
    folder = os.fsencode(tmp_path / "in\x1b[1m")
    os.makedirs(folder + b"/good")
    for number, name in enumerate(ODD_NAMES):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"\x89PNG not really")
        Image.new("L", (28, 28), number).save(Path(os.fsdecode(folder + b"/good/" + name)), "PNG")
    argv = [b"translate", b"--pipeline", PUBLISHED.encode(), b"--steps", b"1", b"--html", b"--input", folder]
    command = [sys.executable, os.fsencode(ROOT / "launch.py"), *argv, b"--output", os.fsencode(tmp_path / "out\x07")]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    told = done.stderr.decode()
    assert done.returncode == 1, told
    for shown in ODD_NAMES.values():
        assert f"failed: {shown}: not a readable image" in told, told
    assert r"out\x07: 5 translated" in told
    assert not {"\x1b", "\x07", "\u202e"} & set(told)
    page = (tmp_path / "out\x07" / "index.html").read_text("utf-8")
    assert all(f'<figcaption title="good/{shown}">good/{shown}</figcaption>' in page for shown in ODD_NAMES.values())
    done = subprocess.run([*command, b"--resize", b"none\x1b[2J"], capture_output=True)
    assert done.returncode == 2 and b"\x1b" not in done.stderr
    done = subprocess.run([*command, b"--input", folder + b"\n2"], capture_output=True)
    told = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and told.startswith(b"error: ") and rb"in\x1b[1m\n2, which does not" in told
