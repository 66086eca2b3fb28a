"""The manifest of a folder of translations: nothing is done twice, and what is written is whole or not there."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from flowferry import Pipeline
from flowferry.configs.schema import read_config
from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import Item
from flowferry.pipelines.storage.files import write_json
from flowferry.pipelines.storage.weights import CONFIG, WEIGHTS
from flowferry.pipelines.translation import manifest as manifest_module
from flowferry.pipelines.translation import translator
from flowferry.pipelines.translation.manifest import Manifest
from translations import contents, noise, rows, save_tiny, translate, write_images

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny fashion2mnist."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny", "fashion2mnist-published", {"width": 4})


def touched(output: Path) -> dict[str, int]:
    return {str(path.relative_to(output)): path.stat().st_mtime_ns for path in output.rglob("*.png")}


def redone(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in after if before.get(name) != after[name]}


# --- what is done is not done again ---------------------------------------------------------------------


def test_what_was_done_with_a_range_is_not_done_again(trained: Path, tmp_path: Path) -> None:
    """Its numbers are read back as a list."""
    source, out = write_images(tmp_path / "in", 3), tmp_path / "out"
    assert translate(trained, source, out, "--range", "0", "255") == 0
    before = touched(out)
    assert translate(trained, source, out, "--range", "0", "255") == 0
    assert len(before) == 3 and redone(before, touched(out)) == set()


def test_only_what_changed_is_done_again(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out = write_images(tmp_path / "in"), tmp_path / "out"

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


def test_more_variants_do_only_those_that_are_missing(trained: Path, tmp_path: Path) -> None:
    source, out = write_images(tmp_path / "in", 2), tmp_path / "out"

    def again(variants: int) -> set[str]:
        before = touched(out)
        assert translate(trained, source, out, "--source-noise", "0.4", "--variants", str(variants)) == 0
        return redone(before, touched(out))

    assert again(2) == {"0/0.1.png", "0/0.2.png", "1/1.1.png", "1/1.2.png"}
    assert again(10) == {f"{stem}.{k}.png" for stem in ("0/0", "1/1") for k in range(3, 11)}
    (out / "1" / "1.10.png").unlink()
    assert again(10) == {"1/1.10.png"} and again(3) == set()
    listed = {row["output"]: row["input"] for row in rows(out / "manifest.jsonl")[1:]}
    assert listed == {f"{stem}.{k}.png": f"{stem}.png" for stem in ("0/0", "1/1") for k in range(1, 11)}


def test_a_file_that_fails_fails_once_whatever_the_number_of_variants(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_images(tmp_path / "in", 1)
    (source / "bad.png").write_bytes(b"")
    assert translate(trained, source, tmp_path / "out", "--source-noise", "0.4", "--variants", "3") == 1
    assert [row["input"] for row in rows(tmp_path / "out" / "failures.jsonl")] == ["bad.png"]
    assert caplog.text.count("failed: bad.png") == 1 and "3 translated" in caplog.text and "1 failed" in caplog.text


def test_other_weights_do_all_of_it_again(tmp_path: Path) -> None:
    source, out = write_images(tmp_path / "in"), tmp_path / "out"
    weights = save_tiny(tmp_path / "weights", "fashion2mnist-published", {"width": 4})
    assert translate(weights, source, out) == 0
    before = contents(out)
    pipeline = Pipeline.from_pretrained(weights)
    with torch.no_grad():
        next(pipeline.model.parameters()).add_(0.1)
    pipeline.save_pretrained(weights)
    assert translate(weights, source, out) == 0
    assert all(before[name] != after for name, after in contents(out).items())


def test_the_same_weights_saved_again_do_none_of_it_again(trained: Path, tmp_path: Path) -> None:
    source, out, again = write_images(tmp_path / "in"), tmp_path / "out", tmp_path / "again"
    assert translate(trained, source, out) == 0
    before = touched(out)
    again.mkdir()
    save_file(load_file(trained / WEIGHTS), again / WEIGHTS, metadata={"step": "9", "flowferry": "0.1"})
    config = read_config(trained / CONFIG)
    write_json(again / CONFIG, {"config": replace(config, train=replace(config.train, epochs=1)).to_dict()})
    assert translate(again, source, out) == 0
    assert redone(before, touched(out)) == set()


def test_a_folder_of_an_older_version_is_done_again_in_the_formats_of_now(trained: Path, tmp_path: Path) -> None:
    """Its manifest knows no formats; what it lists is ours, and stays or is replaced."""
    source, out = write_images(tmp_path / "in"), tmp_path / "out"
    noise(0).save(source / "scan.tif")
    assert translate(trained, source, out, "--format", "png") == 0
    header, *entries = rows(out / "manifest.jsonl")
    assert header.pop("format") == "png"  # type: ignore[comparison-overlap]
    (out / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [header, *entries]))
    before = touched(out)
    assert translate(trained, source, out) == 0
    assert redone(before, touched(out)) == before.keys() - {"scan.png"}
    assert (out / "scan.tif").is_file() and len(rows(out / "manifest.jsonl")) == 1 + 10 + 1


def test_outputs_within_the_inputs_are_not_translated(trained: Path, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in")
    for _ in range(2):
        assert translate(trained, source, source / "out") == 0
        assert len(touched(source / "out")) == 9


def test_what_failed_is_tried_again_and_no_longer_listed_once_it_is_mended(trained: Path, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in")
    (source / "0" / "0.png").write_bytes(b"")
    assert translate(trained, source, tmp_path / "out") == 1
    noise(0, mode="L").save(source / "0" / "0.png")
    assert translate(trained, source, tmp_path / "out") == 0
    assert not (tmp_path / "out" / "failures.jsonl").exists()
    assert len(touched(tmp_path / "out")) == 9


KILLED_AND_AGAIN = """
import os, random, signal, sys, time
from pathlib import Path
import torch, flowferry.pipelines.translate
from flowferry import launch
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
    weights = save_tiny(tmp_path / "weights", "fashion2mnist-published", {"width": 32})
    source = write_images(tmp_path / "in", 1000)
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


# --- what is written is whole, and in the folder --------------------------------------------------------


def test_what_cannot_be_written_fails_by_name(trained: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in")
    (tmp_path / "out" / "1" / "4.png" / "in the way").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "out" / "2")
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 1
    told = {row["input"]: row["error"] for row in rows(tmp_path / "out" / "failures.jsonl")}
    assert told.keys() == {"1/4.png", "2/2.png", "2/5.png", "2/8.png"}
    assert all("cannot be written" in error for error in told.values())
    assert not list((tmp_path / "elsewhere").iterdir())  # nothing is written outside


def test_an_output_that_is_a_link_is_replaced_not_followed(trained: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "in")
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "out" / "0").mkdir(parents=True)
    os.symlink(tmp_path / "precious", tmp_path / "out" / "0" / "0.png")
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 2
    assert translate(trained, tmp_path / "in", tmp_path / "out", "--overwrite") == 0
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "out" / "0" / "0.png").is_symlink()


# --- what is not ours is not replaced -------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *given: object) -> str:
    capsys.readouterr()
    assert translate(*given) == 2  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "expected another folder, or --overwrite" in told, told
    return told


def test_files_of_the_user_s_own_are_not_replaced(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_images(tmp_path / "in"), tmp_path / "out"
    mine = dict.fromkeys(("0/3.png", "1/1.png", "1/4.png", "2/2.png", "2/5.png", "2/notes.txt"), b"the user's")
    for name, data in mine.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    assert "0/3.png, 1/1.png, 1/4.png and 2 more" in refused(capsys, trained, source, out)
    assert contents(out) == mine and not (out / ".flowferry").exists()  # nothing was written
    assert translate(trained, source, out, "--overwrite") == 0
    assert len(touched(out)) == 9 and (out / "2" / "notes.txt").read_bytes() == b"the user's"
    assert translate(trained, source, out) == 0  # they are ours now
    noise(50).save(source / "new.png")
    (out / "new.png").write_bytes(b"the user's")
    assert " new.png (" in refused(capsys, trained, source, out)
    assert (out / "new.png").read_bytes() == b"the user's"


@pytest.mark.parametrize("name", ["sheet.png", "path.gif", "index.html", "manifest.jsonl", "failures.jsonl"])
def test_the_translation_s_own_files_replace_none_of_the_user_s(
    name: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"input": "a.png", "output": "b.png"}\n')
    options = ("--sheet", "--gif", "--html", "--steps", "1")
    assert f" {name} (" in refused(capsys, trained, source, out, *options)
    assert contents(out) == {name: b'{"input": "a.png", "output": "b.png"}\n'}
    (out / name).unlink()
    for _ in range(2):
        assert translate(trained, source, out, *options) == 0


def test_what_earlier_runs_made_is_replaced_whatever_their_settings(trained: Path, tmp_path: Path) -> None:
    """With other settings, under another name of the input, after it was away or damaged, and after it was --suffix."""
    source, out = write_images(tmp_path / "in"), tmp_path / "out"
    assert translate(trained, source, out) == 0
    assert translate(trained, source, out, "--steps", "1", "--sheet") == 0
    assert translate(trained, source, out, "--steps", "2", "--suffix", "--sheet") == 0
    away = (source / "0" / "0.png").rename(tmp_path / "away.png")
    Image.open(source / "1" / "1.png").save(source / "1" / "1.webp")
    (source / "1" / "1.png").unlink()
    (source / "2" / "2.png").write_bytes(b"damaged")
    assert translate(trained, source, out, "--steps", "1") == 1
    away.rename(source / "0" / "0.png")
    noise(2, mode="L").save(source / "2" / "2.png")
    before = touched(out)
    assert translate(trained, source, out, "--steps", "1") == 0
    assert {"0/0.png", "2/2.png"} <= redone(before, touched(out)) <= {"0/0.png", "2/2.png"}
    assert translate(trained, source, out, "--steps", "2", "--suffix") == 0


def test_a_run_that_is_killed_before_it_notes_what_it_wrote_goes_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it had begun with other settings, or to overwrite."""
    source, out = write_images(tmp_path / "in"), tmp_path / "out"
    assert translate(trained, source, out) == 0
    for options in (("--steps", "1"), ("--overwrite",), ()):
        noise(len(options), mode="L").save(source / "0" / f"new{len(options)}.png")
        with monkeypatch.context() as patched:
            patched.setattr(translator, "journal", killed)
            with pytest.raises(Killed):
                translate(trained, source, out, "--batch-size", "4", *options)
        assert (out / "0" / f"new{len(options)}.png").exists(), "it was written, but not noted"
        assert translate(trained, source, out) == 0
        assert {row["input"] for row in rows(out / "manifest.jsonl")[1:]} >= {"0/0.png", f"0/new{len(options)}.png"}


class Killed(Exception):
    """Stands for SIGKILL."""


def killed(manifest: Manifest, batch: list) -> list:
    manifest.abandon()  # a process that is killed leaves no lock
    raise Killed


def test_the_memory_of_looking_for_files_does_not_grow_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files whose inputs are not listed are looked for a few at a time, and all of them are found."""
    monkeypatch.setattr(manifest_module, "AT_ONCE", 3)
    header = {"flowferry": "1"}
    made = [{"input": f"old{n}.jpg", "output": f"{n}.png", "input_sha256": "a", "output_sha256": "b"} for n in range(8)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [header, *made]))
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(b"")
    manifest = Manifest(tmp_path, header)
    planned = [Item(f"{number}.webp", f"{number}.png") for number in range(10)]
    with pytest.raises(UserError, match=r"no translation made: 8\.png, 9\.png \("):
        manifest.open(planned, overwrite=False)
    manifest.open(planned[:8], overwrite=False)
    manifest.close()
