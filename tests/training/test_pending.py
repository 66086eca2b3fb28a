"""Results that stay on the device until they are read, so that the host need not wait for each step."""

from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training import pending
from flowferry.pipelines.training.pending import RUN_AHEAD, PendingSteps
from flowferry.pipelines.training.progress import Clock
from tiny_runs import assert_same_tensors, config_of, metrics, trained


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told to go on: clock.append(seconds)."""
    seconds = [100.0]
    monkeypatch.setattr(pending, "perf_counter", lambda: sum(seconds))
    return seconds


def test_each_step_has_its_own_metrics_and_they_share_the_time(clock):
    steps = PendingSteps(batch_size=32)
    clock.append(3.0)
    steps.restart_clock()  # what came before was no training
    for number in (1, 2):
        steps.add(number, 0.1 / number, torch.tensor([1.0 * number, 0.5 * number]))
        clock.append(0.25)
    speed = {"perf/images_per_second": 2 * 32 / 0.5, "perf/minutes": 0.5 / 60}
    assert steps.pop_metrics() == [
        (1, {"train/loss": 1.0, "train/lr": 0.1, "train/grad_norm": 0.5, **speed}),
        (2, {"train/loss": 2.0, "train/lr": 0.05, "train/grad_norm": 1.0, **speed}),
    ]
    steps.add(3, 0.1, torch.tensor([3.0, 1.5]))
    clock.append(1.5)
    ((number, values),) = steps.pop_metrics()
    assert (number, values["train/loss"], values["perf/images_per_second"]) == (3, 3.0, 32 / 1.5)
    assert steps.clock == (2.0, 0.0, 0.0) and values["perf/minutes"] == 2.0 / 60


def test_pauses_count_but_not_for_the_speed(clock):
    steps = PendingSteps(batch_size=8)
    for pause in (3.0, 1.0):
        steps.add(1, 0.1, torch.zeros(2))
        clock.append(0.5)
        ((_, values),) = steps.pop_metrics()
        clock.append(pause)
        steps.pause()
        assert values["perf/images_per_second"] == 16
    assert steps.clock == Clock(seconds=1.0, paused=4.0, longest_pause=3.0)


def test_the_seconds_of_a_resumed_run_go_on(clock):
    steps = PendingSteps(batch_size=1)
    steps.clock = Clock(60.0)
    steps.add(1, 0.1, torch.zeros(2))
    clock.append(30.0)
    ((_, values),) = steps.pop_metrics()
    assert values["perf/minutes"] == 1.5


@pytest.mark.parametrize(("device", "ahead"), [("cpu", 1), ("meta", RUN_AHEAD)])
def test_only_on_a_cpu_each_step_is_read_at_once(device, ahead):
    """The device meta stands for any other than a CPU."""
    steps = PendingSteps(batch_size=1)
    for number in range(ahead):
        assert not steps.is_readable
        steps.add(number + 1, 0.1, torch.zeros(2, device=device))
    assert steps.is_readable and RUN_AHEAD > 1


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: values that are read, and shapes that depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "_unique2", "item", "allclose", "equal")
        if func.name().removeprefix("aten::") in waits:
            self.found.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "name",
    [
        "fashion2mnist-published",
        "fashion2mnist-map",
        "noise2mnist",
        "noise2mnist-cfg",
        "denoise-mnist",
        "ddpm-mnist-cfg",
    ],
)
def test_a_step_does_not_wait_for_the_device(tiny, tmp_path, name, monkeypatch):
    trainer = Trainer(config_of(tiny, 5, name, clip_norm=1.0), tmp_path, data_root=Path("data"))
    trainer.advance()  # the optimizers make their state
    reads = HostReads()
    for way in ("tolist", "numpy", "cpu"):  # not seen by the mode
        read = getattr(torch.Tensor, way)
        monkeypatch.setattr(torch.Tensor, way, lambda x, *a, at=way, to=read: reads.found.append(at) or to(x, *a))
    with reads:
        trainer.advance()
    assert reads.found == []
    with reads:
        trainer.read_steps()
    assert reads.found == ["tolist", "tolist"]


def test_a_run_ahead_of_the_device_logs_and_saves_the_same(tiny, tmp_path, monkeypatch):
    """As on a GPU, where the results of several steps are read together, and before anything is shown or saved."""
    plan = {"epochs": 2, "show_epochs": 1, "checkpoint_steps": 5}
    trained(config_of(tiny, 7, **plan), tmp_path / "each")
    monkeypatch.setattr(PendingSteps, "is_readable", property(lambda self: len(self._steps) >= 3))
    trained(config_of(tiny, 7, **plan), tmp_path / "ahead")
    each, ahead = metrics(tmp_path / "each"), metrics(tmp_path / "ahead")
    assert [row["step"] for row in ahead] == [1, 2, 3, 4, 5, 6, 7]
    for mine, theirs in zip(ahead, each, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[tag] == theirs[tag] for tag in mine if not tag.startswith("perf/"))
    assert_same_tensors(*(tmp_path / name / "model" / "model.safetensors" for name in ("each", "ahead")))
    kept = [sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir()) for name in ("each", "ahead")]
    assert kept[0] == kept[1]
