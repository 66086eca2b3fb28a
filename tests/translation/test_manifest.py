"""The manifest of a folder of translations: nothing is done twice, and what is written is whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowferry import Pipeline
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
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 0
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "out" / "0" / "0.png").is_symlink()
