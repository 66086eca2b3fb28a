"""The trainer: the same numbers whatever the processes, parts and interruptions; and leaving cleanly."""

import json
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowferry import Pipeline, launch
from flowferry.configs.presets import PIPELINES
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_sampler
from flowferry.models import build_model
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training import validation
from flowferry.pipelines.training.validation import HELD_OUT
from tiny_runs import ROOT, TINY, assert_same_tensors, config_of, losses, metrics, points, trained, wait_for

# --- the same numbers --------------------------------------------------------------------------------


def test_the_same_command_trains_the_same_weights(tiny, tmp_path):
    for name in ("a", "b"):
        torch.manual_seed(hash(name))  # the caller's generator does not matter
        trained(config_of(tiny, 3), tmp_path / name)
    assert_same_tensors(*(tmp_path / name / "model" / "model.safetensors" for name in ("a", "b")))


@pytest.mark.parametrize("name", ["fashion2mnist", "fashion2mnist-published", "noise2mnist-cfg"])
def test_a_resumed_run_ends_bit_for_bit_like_one_never_stopped(tiny, tmp_path, name):
    schedule = {"schedule": "linear", "warmup_steps": 2, "epochs": 2}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    trained(config_of(tiny, 7, name, **schedule), whole)

    trainer = Trainer(config_of(tiny, 7, name, **schedule), stopped, data_root=Path("data"))
    advance = trainer.advance
    trainer.advance = lambda: interrupt_after(trainer, advance, 3)
    assert trainer.run() == 128 + signal.SIGTERM
    assert metrics(stopped)[-1]["step"] == 3
    trained(config_of(tiny, 7, name, **schedule), stopped)

    files = sorted(path.name for path in (whole / "checkpoints/step-0000007").glob("*.safetensors"))
    assert {"model.safetensors", "ema.safetensors", "optimizer0.safetensors"} <= set(files)
    for file in files:
        assert_same_tensors(*(run / "checkpoints/step-0000007" / file for run in (whole, stopped)))
    for key in ("train/loss", "train/lr", "train/grad_norm"):
        assert [row[key] for row in metrics(whole)] == [row[key] for row in metrics(stopped)]
    assert points(whole, "train/loss") == points(stopped, "train/loss")
    assert [step for step, _ in points(stopped, "train/loss")] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("share, step", [(0.5, 2), (1.0, 4)])
def test_the_weaker_network_is_kept_after_its_share_of_the_training_and_resumed(tiny, tmp_path, share, step):
    def config(steps: int, **changes):
        return config_of(tiny, steps, "fashion2mnist", schedule="constant", warmup_steps=0, **changes)

    trained(config(4, weaker_share=share), tmp_path / "whole")
    weaker, last = Pipeline.from_pretrained(tmp_path / "whole").weaker, "checkpoints/step-0000004/weaker.safetensors"
    trained(config(step, weaker_share=0.0), tmp_path / "until then")
    then = load_file(tmp_path / "until then" / "model" / "model.safetensors")
    assert weaker is not None
    assert all(torch.equal(tensor, then[name].half().float()) for name, tensor in weaker.state_dict().items())

    trainer = Trainer(config(4, weaker_share=share), tmp_path / "stopped", data_root=Path("data"))
    advance = trainer.advance
    trainer.advance = lambda: interrupt_after(trainer, advance, 3)
    assert trainer.run() == 128 + signal.SIGTERM
    trained(config(4, weaker_share=share), tmp_path / "stopped")
    assert_same_tensors(*(tmp_path / run / last for run in ("whole", "stopped")))
    assert not Pipeline.from_pretrained(tmp_path / "until then").weaker


def interrupt_after(trainer: Trainer, advance, last: int) -> None:
    if trainer.progress.step == last - 1:
        os.kill(os.getpid(), signal.SIGTERM)
    advance()


def test_accumulated_parts_train_like_the_whole_batch(tiny, tmp_path):
    for parts in (1, 4):
        trained(config_of(tiny, 4, accumulate=parts), tmp_path / str(parts))
    torch.testing.assert_close(losses(tmp_path / "1"), losses(tmp_path / "4"), rtol=1e-5, atol=0)


@pytest.fixture
def other_datasets(tmp_path):
    """A folder to import from, with something that looks like Hugging Face's `datasets`."""
    other = tmp_path / "site"
    (other / "datasets").mkdir(parents=True)
    (other / "datasets" / "__init__.py").write_text("class Dataset: ...\nclass IterableDataset: ...\n")
    (other / "datasets-4.0.0.dist-info").mkdir()
    (other / "datasets-4.0.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: datasets\nVersion: 4.0.0\n"
    )
    return other


def test_pipelines_are_imported_anywhere_beside_the_other_datasets_library(other_datasets, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(other_datasets)}
    command = [sys.executable, "-c", "from flowferry import Pipeline; print(Pipeline)"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    command[-1] = "import datasets; datasets.Dataset; " + command[-1] + "; import datasets; datasets.Dataset"
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("another_precision")
@pytest.mark.parametrize("name", ["fashion2mnist-published", "fashion2mnist"])
def test_two_processes_train_like_one_beside_the_other_datasets_library(other_datasets, tmp_path, monkeypatch, name):
    """Hugging Face `datasets` shares our folder's name: accelerate must not get ours when it wants theirs."""
    env = {**os.environ, "PYTHONPATH": str(other_datasets), "PYTHONUTF8": "1"}
    size = ["--model.width", "8"] if name == "fashion2mnist-published" else ["--model.widths", "16", "32"]
    args = ["--pipeline", name, *TINY, *size, "--train.precision", "fp32", "--train.max-steps", "6"]
    monkeypatch.setattr(validation, "HELD_OUT", HELD_OUT)  # as in the two processes, which `brief` does not reach
    assert launch.main([*args, "--output-dir", str(tmp_path / "one")]) == 0
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "launch.py", *args]
    two += ["--output-dir", str(tmp_path / "two"), "--train.accumulate", "2"]
    result = subprocess.run(two, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    assert "2 × cpu" in result.stderr, "accelerate may start one process without a word"
    torch.testing.assert_close(
        losses(tmp_path / "one"), losses(tmp_path / "two"), rtol=1e-5 if "published" in name else 3e-4, atol=0
    )
    one_row, two_row = (metrics(tmp_path / run)[-1] for run in ("one", "two"))
    assert one_row["train/grad_norm"] == pytest.approx(two_row["train/grad_norm"], rel=1e-3)
    assert one_row["eval/loss"] == pytest.approx(two_row["eval/loss"], rel=1e-5)


def test_training_sees_the_training_split_only(tiny, tmp_path):
    trainer = Trainer(config_of(tiny, 1), tmp_path, data_root=Path("data"))
    step = trainer.train_step
    for sampler, part in ((step.source, trainer.config.source), (step.target, trainer.config.target)):
        place = {"data_root": Path("data"), "device": torch.device("cpu")}
        splits = {s: build_sampler(part, (1, 28, 28), split=s, **place).images for s in ("train", "test")}
        assert torch.equal(sampler.images, splits["train"])
        assert not torch.equal(sampler.images, splits["test"])


# --- what a step does --------------------------------------------------------------------------------


def test_clipping_shortens_the_gradient_and_logs_its_length_before(tiny, tmp_path):
    trainer = Trainer(config_of(tiny, 1, clip_norm=1e-3), tmp_path, data_root=Path("data"))
    seen = []
    trainer.train_step.optimizers[0].register_step_pre_hook(
        lambda optimizer, args, kwargs: seen.append(
            torch.nn.utils.get_total_norm([p.grad for g in optimizer.param_groups for p in g["params"]]).item()
        )
    )
    trainer.advance()
    ((step, values),) = trainer.pending.pop_metrics()
    assert step == 1 and values["train/grad_norm"] > 1e-2
    assert seen == [pytest.approx(1e-3, rel=1e-2)]


@pytest.mark.usefixtures("another_precision")
@pytest.mark.parametrize("name", ["fashion2mnist", "noise2mnist-cfg", "noise2mnist-cfg-published"])
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("bf16", 2e-2)])
@pytest.mark.parametrize("compiler", ["no", "aot_eager"])  # the latter needs no C compiler
def test_the_trainer_s_losses_are_those_of_plain_float32(
    tiny, tmp_path, monkeypatch, name, precision, tolerance, compiler
):
    """Its memory layout, autocast and compilation change the loss by no more than the precision rounds."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", compiler)  # as `accelerate launch --dynamo_backend` does
    trainer = Trainer(config_of(tiny, 4, name, precision=precision, accumulate=1), tmp_path, data_root=Path("data"))
    assert (trainer.train_step.model is trainer.train_step.raw_model) == (compiler == "no")
    for step in range(4):
        plain = build_model(trainer.config).to(memory_format=torch.contiguous_format)  # no copy: it would autocast too
        plain.load_state_dict(trainer.train_step.raw_model.state_dict())
        expected = Pipeline(trainer.config, plain).loss(*trainer.train_step.global_batch(step)).item()
        trainer.advance()
        ((_, values),) = trainer.pending.pop_metrics()
        assert values["train/loss"] == pytest.approx(expected, rel=tolerance)


def test_a_batch_that_the_parts_do_not_divide_is_refused(tiny, tmp_path):
    message = r"^--train\.batch-size: got 16, expected a multiple of 3 = 1 processes × 3 accumulated parts$"
    with pytest.raises(UserError, match=message):
        Trainer(config_of(tiny, 1, accumulate=3), tmp_path, data_root=Path("data"))


# --- what a run leaves -------------------------------------------------------------------------------


def test_a_run_leaves_what_it_promises_and_says_that_the_data_is_synthetic(tiny, tmp_path):
    trained(config_of(tiny, 8, epochs=2, show_epochs=1, checkpoint_steps=3), tmp_path)
    tags = {"step", "train/loss", "train/lr", "train/grad_norm", "perf/images_per_second"}
    assert [row.keys() >= tags for row in metrics(tmp_path)] == [True] * 8
    assert [row["step"] for row in metrics(tmp_path) if "eval/loss" in row] == [4, 8]  # the epochs' ends
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-0000006", "step-0000008"]
    pictures = {path.name for path in (tmp_path / "samples").iterdir()}
    assert pictures >= {"samples.png", "path.png", "loss.png", "path.gif", "samples-0000004.png", "samples-0000008.png"}
    assert "synthetic" in json.loads((tmp_path / "config.json").read_text())["data"]
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"samples/samples", "samples/path", "samples/loss"}
    assert [image.step for image in events.Images("samples/samples")] == [4, 8]
    assert tags - {"step"} <= set(events.Tags()["scalars"])
    assert not list(tmp_path.rglob("*.part"))
    Pipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", PIPELINES)
def test_every_named_pipeline_trains_shows_itself_and_resumes(tiny, tmp_path, name):
    config = config_of(tiny, 2, name, epochs=2, epoch_size=64, show_epochs=1)
    config = replace(config, solver=replace(config.solver, num_steps=min(2, PIPELINES[name].solver.num_steps)))
    for steps in (2, 4):
        trained(replace(config, train=replace(config.train, max_steps=steps)), tmp_path)
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3, 4]
    assert all(math.isfinite(row["train/loss"]) for row in metrics(tmp_path))
    assert (tmp_path / "samples" / "path.gif").is_file()
    Pipeline.from_pretrained(tmp_path)


def test_the_exported_weights_are_the_average(tiny, tmp_path):
    trainer = trained(config_of(tiny, 3), tmp_path)
    exported = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(exported[name], p) for name, p in trainer.train_step.ema_model.state_dict().items())
    assert any(not torch.equal(exported[name], p) for name, p in trainer.train_step.raw_model.state_dict().items())


def test_a_finished_run_is_left_alone(tiny, tmp_path):
    trained(config_of(tiny, 2), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert Trainer(config_of(tiny, 2), tmp_path, data_root=Path("data")).run() == 0
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_another_training_in_the_same_folder_is_refused(tiny, tmp_path):
    trained(config_of(tiny, 2), tmp_path)
    with pytest.raises(UserError, match=r"train\.lr \(got 0\.5, started with 0\.001\)"):
        Trainer(config_of(tiny, 4, lr=0.5), tmp_path, data_root=Path("data")).run()
    config = config_of(tiny, 4)
    other = replace(config, target=replace(config.target, count=63))
    with pytest.raises(UserError, match=r"another run: target\.count \(got 63, started with 64\); expected"):
        Trainer(other, tmp_path, data_root=Path("data")).run()


def test_a_broken_newest_checkpoint_is_named_and_the_older_one_resumed(tiny, tmp_path, caplog):
    trained(config_of(tiny, 4, checkpoint_steps=2), tmp_path)
    newest = tmp_path / "checkpoints" / "step-0000004" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    with caplog.at_level("INFO", logger="flowferry"):
        trained(config_of(tiny, 6), tmp_path)
    assert "step-0000004: model.safetensors changed or truncated" in caplog.text
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]


# --- leaving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launcher", "signum", "code"),
    [
        ([sys.executable], signal.SIGINT, 130),
        ([sys.executable], signal.SIGTERM, 143),
        ([sys.executable, "-m", "accelerate.commands.launch"], signal.SIGINT, -signal.SIGINT),
        # The launcher dies of it without passing it on; the trainer must notice.
        ([sys.executable, "-m", "accelerate.commands.launch"], signal.SIGTERM, -signal.SIGTERM),
    ],
    ids=["ctrl-c", "terminated", "ctrl-c under the launcher", "launcher terminated"],
)
def test_a_signal_saves_and_leaves(tmp_path, launcher, signum, code):
    command = [*launcher, "launch.py", "--pipeline", "fashion2mnist-published", *TINY, "--model.width", "8"]
    command += ["--train.epochs", "100000", "--train.checkpoint-steps", "5", "--output-dir", str(tmp_path)]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: list((tmp_path / "checkpoints").glob("step-*")), "the first checkpoint", 120)
        if signum == signal.SIGINT:  # which a terminal sends to all that it started
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        assert process.wait(timeout=60) == code
    except BaseException:  # a failure leaves nothing running
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    wait_for(lambda: "stopped by a signal" in (tmp_path / "log").read_text(), "the farewell")
    newest = max((tmp_path / "checkpoints").glob("step-*")).name
    assert int(newest.removeprefix("step-")) == metrics(tmp_path)[-1]["step"]
    Pipeline.from_pretrained(tmp_path)
