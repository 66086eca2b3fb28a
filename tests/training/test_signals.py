"""Asked to leave, or killed, at any moment: the same command ends as if nothing had happened."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.pipelines import train
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training.validation import Validation
from flowferry.pipelines.visualization.select import visuals
from tiny_runs import ROOT, TINY, assert_same_run, config_of, story, trained


@contextmanager
def kept_handlers() -> Iterator[None]:
    """A run leaves its signal handlers behind."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    with kept_handlers():
        yield


def shown_twice(tiny: Callable[..., Config]) -> Config:
    return config_of(tiny, 8, epochs=2, show_epochs=1)


@pytest.fixture(scope="module")
def whole(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `shown_twice` that nobody stops."""
    folder = tmp_path_factory.mktemp("whole")
    with kept_handlers():
        trained(shown_twice(tiny), folder)
    return folder


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [4, 8], ids=["midway", "at the end"])
@pytest.mark.parametrize("what", ["measure", "pictures", "frames"])
def test_asked_to_leave_while_it_draws_it_breaks_off_and_the_next_run_draws(
    tiny: Callable, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int, step: int, what: str
) -> None:
    if what == "frames" and step == 4:
        pytest.skip("drawn at the end only")
    config = shown_twice(tiny)
    trainer = Trainer(config, tmp_path / "stopped", data_root=Path("data"))
    drawn_on = []

    def asked(*args: object) -> object:
        if trainer.progress.step == step:
            os.kill(os.getpid(), signum)
            drawn_on.append("after the signal")
        return real(*args)

    drawing = visuals(config)
    real = getattr(Validation if what == "measure" else drawing, what)
    if what == "measure":
        monkeypatch.setattr(Validation, "measure", lambda *args: asked(*args))
    else:
        monkeypatch.setattr(train, "visuals", lambda config: drawing._replace(**{what: asked}))
    assert trainer.run() == 128 + signum
    assert not drawn_on, "the signal was to end the drawing there and then"
    assert story(tmp_path / "stopped")[-1]["step"] == step
    monkeypatch.undo()
    trained(config, tmp_path / "stopped")
    assert_same_run(whole, tmp_path / "stopped", 8)
    assert Trainer(config, tmp_path / "stopped", data_root=Path("data")).run() == 0


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_leaves_at_once(
    tiny: Callable, tmp_path: Path, first: int, second: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of a step, which after the first alone would have been finished and saved."""
    trainer = Trainer(config_of(tiny, 4), tmp_path / "run", data_root=Path("data"))
    advance = trainer.advance

    def impatient() -> None:
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), second)
        advance()

    monkeypatch.setattr(trainer, "advance", impatient)
    pid = os.fork()
    if not pid:
        os._exit(trainer.run())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + second
    assert not (tmp_path / "run" / "checkpoints").exists()


# --- nowhere to write -----------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_what_was_saved(
    tiny: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full from step 4 on: no file may grow beyond 4 kB, whatever library writes it."""
    config = config_of(tiny, 6, checkpoint_steps=2)
    trained(config, tmp_path / "whole")
    trainer = Trainer(config, tmp_path / "full", data_root=Path("data"))
    advance, limits = trainer.advance, resource.getrlimit(resource.RLIMIT_FSIZE)

    def stepped() -> None:
        advance()
        if trainer.progress.step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    trainer.advance = stepped  # type: ignore[method-assign]
    try:
        with caplog.at_level("INFO", logger="flowferry"):
            assert trainer.run() == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (told,) = [record.getMessage() for record in caplog.records if "stopped" in record.getMessage()]
    assert "stopped at step 4" in told and "step-0000002" in told and "\n" not in told
    assert [path.name for path in (tmp_path / "full" / "checkpoints").iterdir()] == ["step-0000002"]
    trained(config, tmp_path / "full")
    assert_same_run(tmp_path / "whole", tmp_path / "full", 6)


def test_a_folder_that_cannot_be_written_to_is_refused(tiny: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(UserError, match=r"^--output-dir: .*run cannot be written to") as told:
            Trainer(config_of(tiny, 2), folder, data_root=Path("data")).run()
        assert "\n" not in str(told.value)
    assert (tmp_path / "file").read_text() == "in the way"


# --- killed ---------------------------------------------------------------------------------------------

LAST = 8  # steps, four an epoch, in two parts each; a checkpoint every three
COMMAND = [*"--pipeline fashion2mnist --model.widths 16 32 --train.max-steps 8 --train.epochs 2".split(), *TINY]
COMMAND += [*"--train.batch-size 16 --train.accumulate 2 --train.checkpoint-steps 3".split()]
COMMAND += [*"--train.show-epochs 1 --train.min-steps-apart 1".split()]
PUBLISHING = "before a checkpoint is published"
MOMENTS = {
    "within an accumulated batch": ("flowferry.pipelines.pipeline:Pipeline.loss", 8),
    "before a step in the middle of an epoch": ("flowferry.pipelines.train:Trainer.advance", 6),
    "after the last step of an epoch": ("flowferry.pipelines.train:Trainer.evaluate", 1),
    "while it measures": ("flowferry.pipelines.training.validation:held_out_loss", 2),
    "while it draws": ("flowferry.pipelines.visualization.grids:sheet", 3),
    "before it writes a checkpoint": ("flowferry.pipelines.train:Trainer.save", 2),
    "within a checkpoint's tensors": ("flowferry.pipelines.storage.checkpoint:save_file", 6),
    PUBLISHING: ("os:replace", 14),
    "before an old checkpoint is taken away": ("shutil:rmtree", 1),
    "while it exports the weights": ("flowferry.pipelines.pipeline:Pipeline.save_pretrained", 2),
    "at the very end": ("flowferry.pipelines.training.logger:RunLogger.close", 1),
}
ASKED = ("flowferry.pipelines.visualization.grids:sheet", 3, signal.SIGTERM)  # to leave, while it draws
TWICE = {
    "asked, then killed while it draws": [ASKED, ("flowferry.pipelines.visualization.grids:sheet", 1)],
    "asked, then killed while it writes pictures": [
        ASKED,
        ("flowferry.pipelines.training.logger:RunLogger.log_picture", 2),
    ],
    "asked, then killed before it writes figures": [ASKED, ("flowferry.pipelines.training.logger:write_metrics", 2)],
}

FORKED = """
import os, sys, json
from flowferry import launch
import torch, flowferry.pipelines.train, scipy.optimize, matplotlib.pyplot, torch.utils.tensorboard
from flowferry.pipelines.training import validation
from killed import killed_at
torch.set_num_threads(1)
validation.HELD_OUT = 64  # in a tenth of the time
argv, root, moments = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])

def child(folder, *moment):
    pid = os.fork()  # nothing has been computed yet, so that there are no threads to lose
    if not pid:
        if moment:
            killed_at(*moment)
        os._exit(launch.main([*argv, "--output-dir", os.path.join(root, folder)]))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

codes, left = {"whole": [child("whole")]}, {}
for name, parts in moments.items():
    codes[name] = [child(name, *moment) for moment in parts]
    left[name] = sorted(os.listdir(os.path.join(root, name, "checkpoints")))
    codes[name].append(child(name))
print("CODES" + json.dumps([codes, left]))
"""


FEW = [
    "within an accumulated batch",
    "while it draws",
    PUBLISHING,
    "while it exports the weights",
]


@pytest.mark.parametrize(
    "moments",
    [
        {name: [MOMENTS[name]] for name in FEW} | TWICE,
        pytest.param({name: [moment] for name, moment in MOMENTS.items()}, marks=pytest.mark.slow),
    ],
    ids=["few", "all"],
)
def test_killed_at_any_moment_the_same_command_ends_as_if_nothing_had_happened(
    tmp_path: Path, moments: dict[str, list]
) -> None:
    command = [sys.executable, "-c", FORKED, json.dumps(COMMAND), str(tmp_path), json.dumps(moments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "helpers")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    codes, left = json.loads(done.stdout.split("CODES")[1])
    assert codes.pop("whole") == [0]
    assert left[PUBLISHING] == [".step-0000006.part", "step-0000003"]
    for name, parts in moments.items():
        assert codes[name] == [143 if part == ASKED else -signal.SIGKILL for part in parts] + [0], name
        assert_same_run(tmp_path / "whole", tmp_path / name, LAST)
