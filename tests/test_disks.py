"""Disks that are full or read-only: one line, nothing that is half there, and exit code 2 or 3."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disks import fill, make_read_only, small_disk
from PIL import Image

from flowferry import Pipeline, launch
from flowferry.configs.schema import Config
from flowferry.pipelines import inspect_pairs
from flowferry.pipelines.evaluation import classifier
from flowferry.pipelines.storage import weights
from translations import contents, save_tiny, translate, write_images

ROOT = Path(__file__).parents[1]
TINY = "--quick --train.max-steps 2 --train.threads 1 --target.count 40 --model.width 4 --solver.num-steps 2".split()
RUNS = {"tiny": ["fashion2mnist-published", "--source.count", "40"], "noise": ["noise2mnist-published"]}


@pytest.fixture(scope="module")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained runs runs/tiny, which translates, and runs/noise."""
    root = tmp_path_factory.mktemp("disks")
    for name, options in RUNS.items():
        argv = ["--pipeline", *options, *TINY, "--train.batch-size", "16", "--output-dir", str(root / "runs" / name)]
        assert launch.main(argv) == 0
    write_images(root / "in", 60)
    return root


@pytest.fixture(autouse=True)
def here(trained_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained_runs)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    with small_disk(tmp_path / "disk", 1024) as mounted:
        yield mounted


def one_line(told: str) -> str:
    """Return the last line on standard error, which nothing but log lines and progress bars may precede."""
    assert "Traceback" not in told and "Exception" not in told, told
    return told.splitlines()[-1]


COMMANDS = {
    "sample": "sample --pipeline runs/tiny --count 300",
    "evaluate": "evaluate --pipeline runs/tiny --count 16 --skip-cost",
    "report": "report --pipeline runs/tiny",
    "export": "export --pipeline runs/tiny",
    "export for diffusers": "export --pipeline runs/noise --format diffusers",
    "export as ONNX": "export --pipeline runs/tiny --format onnx",
    "translate": "translate --pipeline runs/tiny --input in",
}


# --- nothing can start ----------------------------------------------------------------------------------


def not_yet(*args: object, **options: object) -> None:
    raise AssertionError("this is the work that was not to begin")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes time must not be reached."""
    monkeypatch.setattr(Pipeline, "trajectory", not_yet)
    monkeypatch.setattr(classifier, "train_classifier", not_yet)
    monkeypatch.setattr(inspect_pairs, "couple", not_yet)
    monkeypatch.setattr(weights, "save_tensors", not_yet)


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_where_nothing_can_be_written_no_work_begins(
    state: str, disk: Path, no_work: None, capsys: pytest.CaptureFixture[str]
) -> None:
    if state == "full":
        fill(disk)
    else:
        make_read_only(disk)
    reason = {"full": "No space left on device", "read-only": "Read-only file system"}[state]
    commands = [f"{command} --output {disk}/out" for command in COMMANDS.values()]
    commands += [f"features --pipeline runs/tiny --output {disk}/out/digits.safetensors"]
    commands += [f"translate --pipeline runs/tiny --input in/0/0.png --output {disk}/out/0.png"]
    commands += [f"--pipeline runs/tiny --inspect --output-dir {disk}/out"]
    for command in commands:
        capsys.readouterr()
        assert launch.main(command.split()) == 2, command
        told = one_line(capsys.readouterr().err)
        assert told.startswith("error: --output") and f"{disk}/out" in told and reason in told, (command, told)
    assert {path.name for path in disk.rglob("*") if path.is_file()} <= {"filler"}


def test_a_file_in_the_place_of_the_folder_is_named(
    tmp_path: Path, no_work: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("the user's")
    for command in COMMANDS.values():
        assert launch.main([*command.split(), "--output", str(tmp_path / "file")]) == 2, command
        assert f"--output: got the file {tmp_path / 'file'}, expected a folder" in capsys.readouterr().err
        assert launch.main([*command.split(), "--output", str(tmp_path / "file" / "deeper")]) == 2, command
        assert "cannot be written to (Not a directory)" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "the user's"


def test_read_only_weights_are_told_of_before_a_solver_is_sought_for_them(
    disk: Path, tmp_path: Path, no_work: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model/model.safetensors", "model/config.json", "config.json"):
        (disk / "run" / name).parent.mkdir(exist_ok=True, parents=True)
        (disk / "run" / name).write_bytes(Path("runs/tiny", name).read_bytes())
    make_read_only(disk)
    argv = ["evaluate", "--pipeline", str(disk / "run"), "--count", "16", "--output", str(tmp_path / "out")]
    assert launch.main(argv) == 2
    assert "unless --skip-cost" in (told := capsys.readouterr().err) and "Read-only file system" in told


# --- broken off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kilobytes"),
    [
        ("sample", 80),
        ("report", 24),
        ("report", 200),
        ("export", 16),
        ("export for diffusers", 16),
        ("translate", 28),
    ],
)
def test_a_disk_that_becomes_full_breaks_the_work_off(
    name: str, kilobytes: int, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(disk, leave=kilobytes)
    assert launch.main([*COMMANDS[name].split(), "--output", str(disk / "out")]) == 3
    told = one_line(capfd.readouterr().err)
    assert told.startswith(f"broke off: {disk}/out/") and told.endswith("cannot be written (No space left on device)")
    assert not list(disk.rglob("*.part"))
    for file in disk.rglob("*.png"):
        with Image.open(file) as image:
            image.load()
    assert not list(disk.rglob("*.safetensors"))


@pytest.mark.parametrize("kilobytes", [4, 8])
def test_what_was_measured_is_shown_even_where_it_cannot_be_saved(
    kilobytes: int, disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(disk, leave=kilobytes)
    assert launch.main([*COMMANDS["evaluate"].split(), "--output", str(disk / "out")]) == 3
    told = capfd.readouterr()
    line = one_line(told.err)
    assert line.startswith(f"broke off: {disk}/out/") and line.endswith("cannot be written (No space left on device)")
    assert "fashion2mnist-published: 16 samples" in told.out
    assert not list(disk.rglob("*.part"))


def test_a_pipeline_in_the_plane_leaves_no_half_table(
    tiny: Callable[..., Config], disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Pipeline(tiny("moons")).save_pretrained(tmp_path / "moons")
    fill(disk, leave=12)
    argv = ["sample", "--pipeline", str(tmp_path / "moons"), "--count", "2000", "--steps", "1"]
    assert launch.main([*argv, "--output", str(disk / "out")]) == 3
    told = one_line(capfd.readouterr().err)
    assert told == f"broke off: {disk}/out/points.csv cannot be written (No space left on device)"
    assert not list((disk / "out").iterdir())


def test_a_full_disk_ends_the_translation_of_a_folder_and_the_same_command_goes_on(
    disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    trained = save_tiny(tmp_path / "tiny", "fashion2mnist-published", {"width": 4})
    source = write_images(tmp_path / "in", 120)
    assert translate(trained, source, tmp_path / "whole", "--batch-size", "8") == 0
    filler = fill(disk, leave=200)
    capfd.readouterr()
    caplog.clear()
    assert translate(trained, source, disk / "out", "--batch-size", "8") == 3
    told = one_line(capfd.readouterr().err)
    assert told.startswith(f"broke off: {disk}/out/") and "No space left on device" in told
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING], "the disk fails, not a file"
    made = list((disk / "out").rglob("*.png"))
    assert 8 <= len(made) < 120
    written = {path: os.stat(path).st_mtime_ns for path in made}
    filler.unlink()
    assert translate(trained, source, disk / "out", "--batch-size", "8") == 0
    assert contents(disk / "out") == contents(tmp_path / "whole")
    kept = [path for path in made if os.stat(path).st_mtime_ns == written[path]]
    assert len(kept) >= 8, "what was noted before the disk was full is not done again"
