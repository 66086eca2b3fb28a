"""Several processes, on one machine and on several: the same numbers, none left behind, none waiting for ever."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import TCPStore

from flowferry.configs.recipe import TrainConfig
from flowferry.configs.validation import UserError
from flowferry.pipelines.training.distributed import precision
from tiny_runs import ROOT, TINY, assert_same_run, losses, metrics, wait_for

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
STEPS = "--train.warmup-steps 1 --train.precision fp32 --train.batch-size 16 --train.max-steps".split()
SIZES = {
    "fashion2mnist": ["--model.widths", "16", "32"],
    "fashion2mnist-map": ["--model.widths", "16", "32"],
    "fashion2mnist-published": ["--model.width", "8"],
    "noise2mnist-published": ["--model.width", "8"],
}
KILLED = "tests/helpers/killed.py"
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "helpers")}


def arguments(folder: Path, steps: int, name: str = "fashion2mnist-published") -> list[str]:
    tiny = " ".join(TINY).replace("--source.count 64 " if name.startswith("noise") else "\0", "").split()
    return ["--pipeline", name, *tiny, *SIZES[name], *STEPS, str(steps), "--output-dir", str(folder)]


def torchrun(processes: int, *script: str) -> list[str]:
    return [*TORCHRUN, "--standalone", "--nproc_per_node", str(processes), *script]


def run(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env={**ENV, **env}, capture_output=True, text=True, timeout=240)


def trained(folder: Path, steps: int, name: str = "fashion2mnist-published", *more: str, processes: int = 1) -> None:
    done = run(torchrun(processes, "launch.py", *arguments(folder, steps, name), *more))
    assert done.returncode == 0, done.stderr
    assert f"{processes} × cpu" in done.stderr, "accelerate may start one process without a word"


# --- the same numbers -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rounding"), [("fashion2mnist-published", 1e-5), ("fashion2mnist", 1e-3), ("fashion2mnist-map", 1e-4)]
)
def test_1_2_and_4_processes_train_alike(tmp_path: Path, name: str, rounding: float) -> None:
    """Muon, of fashion2mnist, makes all directions of a gradient as long, those of rounding included.

    Of a map, a critic judges every eighth sample.
    """
    for processes in (1, 2, 4):
        trained(tmp_path / str(processes), 6, name, "--train.batch-size", "32", processes=processes)
    one, *others = (metrics(tmp_path / str(processes)) for processes in (1, 2, 4))
    for other in others:
        assert [row["train/lr"] for row in other] == [row["train/lr"] for row in one]
        for a, b in zip(one, other, strict=True):
            assert b["train/loss"] == pytest.approx(a["train/loss"], rel=rounding)
        assert other[-1]["eval/loss"] == pytest.approx(one[-1]["eval/loss"], rel=rounding)


@pytest.mark.slow
def test_batchnorm_s_statistics_can_be_those_of_all_processes(tmp_path: Path) -> None:
    plain, sync = [], ["--train.sync-batchnorm"]
    for name, more, processes in (("one", sync, 1), ("apart", plain, 2), ("together", sync, 2), ("four", sync, 4)):
        trained(tmp_path / name, 6, "noise2mnist-published", *more, processes=processes)
    one, apart, together, four = (losses(tmp_path / name) for name in ("one", "apart", "together", "four"))
    for alike in (together, four):
        torch.testing.assert_close(alike, one, rtol=1e-4, atol=0)
    assert max(abs(a / b - 1) for a, b in zip(apart, one, strict=True)) > 1e-3, "else there is nothing to tell apart"
    # Running means are not compared: they follow biases that BatchNorm cancels, whose gradients are rounding alone.
    file = "checkpoints/step-0000006/model.safetensors"
    one, apart, together, four = (load_file(tmp_path / name / file) for name in ("one", "apart", "together", "four"))
    variances = [name for name in one if name.endswith("running_var")]
    for name in variances:
        for alike in (together, four):
            torch.testing.assert_close(alike[name], one[name], rtol=1e-3, atol=1e-5)
    assert max((apart[name] / one[name] - 1).abs().max() for name in variances) > 0.05


@pytest.mark.slow
def test_one_of_two_processes_measures_while_the_other_waits(tmp_path: Path) -> None:
    more = ["--train.eval-samples", "16", "--train.show-epochs", "1", "--train.min-steps-apart", "1"]
    trained(tmp_path / "runs" / "it", 4, "fashion2mnist", *more, processes=2)
    assert "eval/frechet" in metrics(tmp_path / "runs" / "it")[-1]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    trained(tmp_path / "whole", 6)
    for steps, processes in ((2, 2), (4, 4), (6, 1)):
        trained(tmp_path / "changing", steps, processes=processes)
    torch.testing.assert_close(losses(tmp_path / "changing"), losses(tmp_path / "whole"), rtol=1e-5, atol=0)


# --- precision ------------------------------------------------------------------------------------------


def test_fp16_with_muon_is_refused_of_accelerate_launch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scaler would find no gradient in the optimizer. What the configuration says goes first."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    line = "^ACCELERATE_MIXED_PRECISION: got fp16 with the optimizer muon, expected no or bf16$"
    with pytest.raises(UserError, match=line):
        precision(TrainConfig(optimizer="muon"))
    assert precision(TrainConfig(optimizer="adam")) == "fp16"
    assert precision(TrainConfig(optimizer="muon", precision="fp32")) == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert precision(TrainConfig(optimizer="muon")) == "bf16"


# --- stopping together ----------------------------------------------------------------------------------

POISONED = """
import os, sys, torch
from flowferry import launch
from flowferry.pipelines.pipeline import Pipeline
loss, calls = Pipeline.loss, []
def poisoned(self, *args):
    calls.append(1)
    return loss(self, *args) * (torch.nan if os.environ["RANK"] == "1" and len(calls) == 3 else 1)
Pipeline.loss = poisoned
sys.exit(launch.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("then", ["stop", "skip"])
def test_what_is_not_finite_on_one_process_is_refused_on_all(tmp_path: Path, then: str) -> None:
    script = tmp_path / "poisoned.py"
    script.write_text(POISONED)
    more = ["--train.on-nonfinite", then, "--train.checkpoint-steps", "1", "--train.keep-checkpoints", "9"]
    done = run(torchrun(2, str(script), *arguments(tmp_path / "run", 4), *more))
    saved = sorted(int(path.name[-7:]) for path in (tmp_path / "run" / "checkpoints").iterdir())
    if then == "stop":
        assert done.returncode != 0 and "stopped at step 3: loss nan" in done.stderr
        assert "step-0000002" in done.stderr and saved == [1, 2]
    else:
        assert done.returncode == 0 and saved == [1, 2, 3, 4], done.stderr
        assert metrics(tmp_path / "run")[-1]["step"] == 4
        before, after = ((tmp_path / f"run/checkpoints/step-000000{n}/model.safetensors") for n in (2, 3))
        assert before.read_bytes() == after.read_bytes()


def processes_of(folder: Path) -> list[int]:
    """Those that were told of the folder on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(str(folder)) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # gone meanwhile
            continue
    return found


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """torchrun with two processes in the midst of a long run, after its first checkpoint."""
    more = ["--train.epochs", "100000", "--train.checkpoint-steps", "5"]
    log = (tmp_path / "log").open("wb")
    command = torchrun(2, "launch.py", *arguments(tmp_path / "run", 10**6), *more)
    process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=log, stderr=log)
    try:
        wait_for(lambda: list((tmp_path / "run" / "checkpoints").glob("step-*")), "the first checkpoint")
        yield process
    finally:
        for pid in processes_of(tmp_path / "run"):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_torchrun_asked_to_leave_saves_and_leaves_nobody(
    tmp_path: Path, endless: subprocess.Popen[bytes], signum: int
) -> None:
    endless.send_signal(signum)
    assert endless.wait(timeout=60) != 0
    wait_for(lambda: not processes_of(tmp_path / "run"), "the processes' ends", 20)
    newest = max(int(path.name[-7:]) for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert newest == metrics(tmp_path / "run")[-1]["step"]


@pytest.mark.slow
def test_the_death_of_one_process_ends_all(tmp_path: Path, endless: subprocess.Popen[bytes]) -> None:
    victim = next(pid for pid in processes_of(tmp_path / "run") if pid != endless.pid)
    os.kill(victim, signal.SIGKILL)
    assert endless.wait(timeout=60) != 0
    wait_for(lambda: not processes_of(tmp_path / "run"), "the processes' ends", 20)
    assert "another process is gone" in (tmp_path / "log").read_text()


# --- killed ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "number", "rank"),
    [
        ("flowferry.pipelines.pipeline:Pipeline.loss", 5, "0"),
        ("flowferry.pipelines.pipeline:Pipeline.loss", 5, "1"),
        ("flowferry.pipelines.train:Trainer.read_steps", 4, "0"),
        ("flowferry.pipelines.train:Trainer.read_steps", 4, "1"),
        ("flowferry.pipelines.train:Trainer.save", 2, "0"),
        ("flowferry.pipelines.train:Trainer.save", 2, "1"),
        ("flowferry.pipelines.storage.checkpoint:save_file", 5, "0"),  # which the main process alone does, as the next
        ("flowferry.pipelines.training.validation:held_out_loss", 1, "0"),
    ],
)
def test_of_two_processes_one_is_killed_and_the_same_command_ends_as_if_nothing_had_happened(
    tmp_path: Path, where: str, number: int, rank: str
) -> None:
    more = "--train.checkpoint-steps 2 --train.accumulate 2 --train.show-epochs 1 --train.min-steps-apart 1".split()
    whole = run(torchrun(2, "launch.py", *arguments(tmp_path / "whole", 8), *more))
    assert whole.returncode == 0, whole.stderr
    command = torchrun(2, KILLED, where, str(number), *arguments(tmp_path / "killed", 8), *more)
    env = {"KILLED_RANK": rank, "KILLED_ONCE": str(tmp_path / "killed-once")}
    assert run(command, **env).returncode != 0
    done = run(command, **env)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stderr
    assert (tmp_path / "killed-once").exists()
    assert_same_run(tmp_path / "whole", tmp_path / "killed", 8)


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_torchrun_starts_a_killed_process_again_and_ends_as_if_nothing_had_happened(tmp_path: Path, rank: str) -> None:
    more = ["--train.checkpoint-steps", "2"]
    whole = run(torchrun(2, "launch.py", *arguments(tmp_path / "whole", 8), *more))
    assert whole.returncode == 0, whole.stderr
    script = [KILLED, "flowferry.pipelines.train:Trainer.read_steps", "4"]
    command = [*TORCHRUN, "--standalone", "--nproc_per_node", "2", "--max-restarts", "2", *script]
    done = run(
        [*command, *arguments(tmp_path / "killed", 8), *more],
        KILLED_RANK=rank,
        KILLED_ONCE=str(tmp_path / "killed-once"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed-once").exists() and done.stderr.count("resuming from") == 1, done.stderr
    assert_same_run(tmp_path / "whole", tmp_path / "killed", 8)


# --- finding one another -------------------------------------------------------------------------------

ALONE = """
from datetime import timedelta
from flowferry.configs.validation import UserError
from flowferry.pipelines.training.distributed import init_process_group
try:
    init_process_group(timedelta(seconds=1))
except UserError as error:
    print("TOLD", error)
"""


def test_process_0_does_not_wait_for_ever_for_one_that_is_gone(tmp_path: Path) -> None:
    of_the_launcher = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    env = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(of_the_launcher.port)}
    env |= {"TORCHELASTIC_MAX_RESTARTS": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    env |= {"TORCHELASTIC_RESTART_COUNT": "1"}
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, timeout=120)
    assert "TOLD" in done.stdout and "processes: got 1 after waiting for 0:00:01, expected all 2" in done.stdout, (
        done.stderr
    )


# --- two machines ---------------------------------------------------------------------------------------

NODES = {"flowferry-a": "10.83.0.1", "flowferry-b": "10.83.0.2"}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[None]:
    """Two network namespaces joined by one cable: to the processes, two machines."""
    a, b = NODES
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "list"], capture_output=True).returncode:
        pytest.skip("network namespaces need root and iproute2")
    with ExitStack() as undone:
        for name in NODES:
            ip("netns", "add", name)
            undone.callback(ip, "netns", "del", name)
        ip("link", "add", "ferry0", "netns", a, "type", "veth", "peer", "name", "ferry0", "netns", b)
        for name, address in NODES.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "ferry0")
            for device in ("lo", "ferry0"):
                ip("-n", name, "link", "set", device, "up")
        yield


def on_both(command: list[str], *meeting: str, **env: str) -> dict[str, subprocess.Popen[str]]:
    """The same command on both machines, which share a disk."""
    nodes = ["--nnodes", "2", "--nproc_per_node", "1", *(meeting or ("--master-addr", NODES["flowferry-a"]))]
    started = {}
    for rank, (name, address) in enumerate(NODES.items()):
        mine = ["--node-rank", str(rank), "--local-addr", address, "--rdzv-conf", f"is_host={rank == 0}"]
        started[name] = subprocess.Popen(
            ["ip", "netns", "exec", name, *TORCHRUN, *nodes, *mine, *command],
            cwd=ROOT,
            env={**ENV, "GLOO_SOCKET_IFNAME": "ferry0", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    return started


def ends(both: dict[str, subprocess.Popen[str]]) -> dict[str, str]:
    """What the machines have said in the end."""
    return {name: process.communicate(timeout=120)[0] for name, process in both.items()}


@pytest.mark.slow
def test_two_machines_train_as_one_and_one_s_death_ends_the_other(tmp_path: Path, network: None) -> None:
    trained(tmp_path / "one", 6)
    told = ends(on_both(["launch.py", *arguments(tmp_path / "two", 6)]))
    assert all("resuming" not in text for text in told.values()) and any("2 × cpu" in text for text in told.values()), (
        told
    )
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5, atol=0)

    more = ["--train.checkpoint-steps", "1", "--train.epochs", "100000"]
    both = on_both(["launch.py", *arguments(tmp_path / "long", 10**6), *more])
    checkpoints = tmp_path / "long" / "checkpoints"
    try:
        wait_for(lambda: list(checkpoints.glob("step-*")), "the first checkpoint")
        os.killpg(both["flowferry-b"].pid, signal.SIGKILL)
        for pid in map(int, subprocess.check_output(["ip", "netns", "pids", "flowferry-b"], text=True).split()):
            os.kill(pid, signal.SIGKILL)
        told = both["flowferry-a"].communicate(timeout=90)[0]
        assert both["flowferry-a"].returncode != 0
    finally:
        for pid in processes_of(tmp_path / "long"):
            os.kill(pid, signal.SIGKILL)
    assert "another process is gone; last checkpoint: " in told and "Traceback" not in told.split("is gone")[0], told
    newest = max(int(path.name[-7:]) for path in checkpoints.glob("step-*"))
    told = ends(on_both(["launch.py", *arguments(tmp_path / "long", newest + 2), *more]))
    assert any(f"resuming from {checkpoints}/step-{newest:07d}" in text for text in told.values()), told
    assert metrics(tmp_path / "long")[-1]["step"] == newest + 2


@pytest.mark.slow
@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
def test_a_process_killed_on_one_of_two_machines_is_started_again_with_all_others(
    tmp_path: Path, network: None, rendezvous: str
) -> None:
    trained(tmp_path / "one", 8, "fashion2mnist-published", "--train.checkpoint-steps", "2")
    script = [KILLED, "flowferry.pipelines.train:Trainer.read_steps", "4", *arguments(tmp_path / "two", 8)]
    master = NODES["flowferry-a"]
    meeting = ["--master-addr", master]
    if rendezvous == "c10d":
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{master}:29400", "--rdzv-id", "ferry"]
    env = {"KILLED_RANK": "1", "KILLED_ONCE": str(tmp_path / "killed-once")}
    told = ends(on_both([*script, "--train.checkpoint-steps", "2"], *meeting, "--max-restarts", "2", **env))
    assert (tmp_path / "killed-once").exists(), told
    assert sum(text.count("resuming from") for text in told.values()) == 1, told
    assert [row["step"] for row in metrics(tmp_path / "two")] == list(range(1, 9)), told
    torch.testing.assert_close(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5, atol=0)
