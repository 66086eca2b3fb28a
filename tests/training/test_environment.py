"""What launchers leave in environment variables: pipelines/training/environment.py."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowferry import launch
from flowferry.configs.validation import UserError
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training import environment
from flowferry.pipelines.training.environment import MEETING, PROCESS, launched
from tiny_runs import TINY, config_of

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
TRAIN = ["--pipeline", "fashion2mnist-published", *TINY, "--model.width", "4", "--dry-run", "--output-dir", "run"]


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROCESS, *MEETING):
        monkeypatch.delenv(name, raising=False)


def told(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Return the error of starting with these variables."""
    with monkeypatch.context() as changed, pytest.raises(UserError) as error:
        for name, value in variables.items():
            changed.setenv(name, value)
        with launched():
            pytest.fail("to be refused before anything starts")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("missing", [[name] for name in WHOLE] + [[*MEETING], ["RANK", *MEETING], [*PROCESS[1:]]])
def test_what_is_left_of_another_job_is_named_with_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, missing: list[str]
) -> None:
    left = {name: value for name, value in WHOLE.items() if name not in missing}
    got = ", ".join(f"{name}={value}" for name, value in left.items())
    line = told(monkeypatch, **left)
    assert line.startswith(f"environment variables: got {got}, expected {' and '.join(missing)} as well, or none of")


@pytest.mark.parametrize("wrong", [{"RANK": "2"}, {"RANK": "-1"}, {"WORLD_SIZE": "two"}, {"MASTER_PORT": ""}])
def test_impossible_numbers_are_refused(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    assert "expected numbers, RANK below WORLD_SIZE" in told(monkeypatch, **(WHOLE | wrong))


@pytest.mark.parametrize("left", [{}, {"MASTER_ADDR": "a"}, {"RANK": "0", "WORLD_SIZE": "1"}, WHOLE])
def test_nothing_a_job_of_one_and_a_launcher_are_accepted(
    monkeypatch: pytest.MonkeyPatch, left: dict[str, str]
) -> None:
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    with launched():
        pass


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_a_network_in_pieces_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    line = told(monkeypatch, **{f"ACCELERATE_USE_{kind}": "True"})
    assert line.startswith(f"ACCELERATE_USE_{kind}: got True, expected false")


def test_who_waits_for_others_says_for_whom_and_where(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(environment, "PATIENCE", 0.0)
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    with launched():
        for _ in range(100):
            if caplog.records:
                break
            environment.Timer(0.05, lambda: None).run()
    (record,) = caplog.records
    assert record.getMessage().startswith("process 1 is waiting for all 2 processes at localhost:29500, ")


def test_what_cannot_start_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^the processes cannot start: RuntimeError: nobody answers$"), launched():
        raise RuntimeError("nobody answers\nraised from torch/csrc/…")


@pytest.mark.usefixtures("another_precision")
@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("ACCELERATE_MIXED_PRECISION", "fp8", "got fp8, expected one of no, fp16, bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp64", "got fp64, expected one of no, fp16, bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "foo", "the processes cannot start: ValueError: 'FOO' is not a valid"),
        ("ACCELERATE_USE_CPU", "maybe", "the processes cannot start: ValueError: invalid truth value maybe"),
        ("LOCAL_RANK", "0", "expected RANK and WORLD_SIZE and MASTER_ADDR and MASTER_PORT as well"),
    ],
)
def test_a_run_refuses_it_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    assert launch.main(TRAIN) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and line in said


def test_accumulation_of_accelerate_changes_no_gradient_and_is_told(
    tiny: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def first_step() -> tuple[float, list[list[float]]]:
        trainer = Trainer(config_of(tiny, 1, accumulate=2), tmp_path, data_root=Path("data"))
        trainer.advance()
        ((_, values),) = trainer.pending.pop_metrics()
        return values["train/grad_norm"], [p.flatten().tolist() for p in trainer.train_step.raw_model.parameters()]

    plain = first_step()
    assert not caplog.records
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert first_step() == plain
    (record,) = caplog.records
    assert record.getMessage().startswith("ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4 is ignored: --train.accumulate")


# --- Unicode ----------------------------------------------------------------------------------------------

VERBS = """
import contextlib, os, sys
from flowferry import launch
tiny = "--train.max-steps 2 --train.threads 1 --solver.num-steps 2 --model.width 4".split()
quick = "--quick --target.count 64 --source.count 64".split()
gray = ["--pipeline", "fashion2mnist-published", *tiny, *quick, "--output-dir", "gray"]
points = ["--pipeline", "moons", *tiny, "--output-dir", "points"]
commands = [["--help"], ["list"], gray, [*gray, "--inspect"], points]
commands += [["sample", "--pipeline", "gray", "--count", "3", "--output", "drawn"]]
commands += [["translate", "--pipeline", "gray", "--input", "drawn", "--output", os.fsdecode("größe".encode())]]
commands += [["evaluate", "--pipeline", "points", "--count", "100"], ["report", "--pipeline", "points"]]
codes = [launch.main(command) for command in commands]
codes.append(launch.main(["sample", "--pipeline", os.fsdecode("→".encode())]))
with contextlib.suppress(SystemExit):
    launch.main(["train", "--pipeline", "fashion2mnist", "--help"])
print(codes)
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},  # Python makes UTF-8 of C alone
    ],
    ids=["ascii streams", "ascii locale"],
)
def test_every_verb_speaks_to_a_terminal_without_unicode(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "verbs.py").write_text("# coding: utf-8\n" + VERBS, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "LC_ALL", "LANG")}
    command = [sys.executable, str(tmp_path / "verbs.py")]
    env |= variables
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=600)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.stdout.rstrip().endswith(b"[0, 0, 0, 0, 0, 0, 0, 0, 0, 2]"), done.stderr.decode()
    assert done.stdout.isascii() and rb"\u2192" in done.stdout
    assert "→" in (tmp_path / "points" / "report" / "index.md").read_text(encoding="utf-8")
    assert (tmp_path / "größe" / "00000.png").is_file()
