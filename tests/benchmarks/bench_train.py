"""How fast training is, beside a course notebook's loop and beside the bare network. Asserts nothing.

All three run in one process, in turn (A B C A B C …), so that a machine that speeds up or slows down does so
for all of them; ratios are taken within a round. What each measures: README.md beside this file.
"""

import argparse
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import MNIST, FashionMNIST
from torchvision.transforms import ToTensor

from flowferry.configs.components import NoisyConfig, SamplerConfig
from flowferry.configs.locations import default_data_root
from flowferry.configs.presets import PIPELINES
from flowferry.models import build_model, to_device
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.losses import LOSSES
from flowferry.pipelines.optimizers import OPTIMIZERS
from flowferry.pipelines.train import Trainer

REAL = {"mnist": MNIST, "fashion-mnist": FashionMNIST}
HEADER = ("batch", "A plain loop", "B trainer", "C bare", "B/A", "B/C", "data of A", "data of B", "of peak")
WIDTHS = (5, 18, 18, 18, 19, 19, 9, 9, 7)
SIDE = 4096  # of the matrices whose product is the machine's peak


class Timed:
    """A function that adds up the seconds its calls take."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = self.function(*arguments)
        self.seconds += time.perf_counter() - started
        return result


class Contender(NamedTuple):
    """A training step, and the part of it that fetches the batch."""

    step: Callable[[], object]
    data: Timed


class Synthetic(MNIST):
    """The trainer's synthetic images, read as torchvision reads MNIST: a Pillow image at a time."""

    def __init__(self, sampler: Any) -> None:
        self.data, self.targets = sampler.images[:, 0].cpu(), sampler.labels.cpu()
        self.transform, self.target_transform = ToTensor(), None


def loaded(part: SamplerConfig, sampler: Any, trainer: Trainer, root: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches without end: a DataLoader's images [B, 1, 28, 28] in [-1, 1] and labels [B], or torch.randn."""
    device, size = trainer.processes.accelerator.device, trainer.config.train.batch_size
    while part.is_noise:
        yield torch.randn(size, *sampler.shape, device=device), torch.empty(0)
    dataset = REAL[part.kind](root, transform=ToTensor()) if part.kind in REAL else Synthetic(sampler)
    loader = DataLoader(dataset, batch_size=size, shuffle=True, num_workers=0, drop_last=True)
    while len(loader):  # a batch larger than the data set would be none at all
        for images, labels in loader:
            yield images.to(device) * 2 - 1, labels.to(device)


def plain_loop(trainer: Trainer, root: Path) -> Contender:
    """Return A: what a course notebook does."""
    config, device, inner = trainer.config, trainer.processes.accelerator.device, trainer.train_step
    path, prediction = inner.pipeline.path, inner.pipeline.prediction
    model = build_model(config).to(device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr)
    targets = loaded(config.target, inner.target, trainer, root)
    if isinstance(config.source, NoisyConfig):  # made of the target's images
        data = Timed(lambda: (next(targets),) * 2)
    else:
        data = Timed(zip(loaded(config.source, inner.source, trainer, root), targets, strict=True).__next__)

    def step() -> float:
        (x0, _), (x1, label) = data()
        if isinstance(config.source, NoisyConfig):
            x0 = x1 + 2 * config.source.sigma * torch.randn_like(x1)
        t = inner.pipeline.objective.draw_times(torch.rand(len(x1), device=device), 1.0, 0.0, path)
        dropped = torch.rand(len(x1), device=device) < config.train.label_dropout
        label = torch.where(dropped, config.num_classes, label) if config.num_classes else None
        xt = path.interpolate(x0, x1, t)
        condition = Condition(label, None, config.num_classes)
        loss = F.mse_loss(model(xt, t, condition), prediction.truth(path, x0, x1, t))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return Contender(step, data)


def whole_trainer(trainer: Trainer) -> Contender:
    """Return B: the trainer's step, as in a run."""
    data = Timed(trainer.train_step.global_batch)
    trainer.train_step.global_batch = data  # type: ignore[assignment, method-assign]

    def step() -> None:
        trainer.advance()
        if trainer.pending.is_readable:
            trainer.read_steps()

    return Contender(step, data)


def bare(
    trainer: Trainer,
    *,
    layout: torch.memory_format | None = None,
    bf16: bool | None = None,
    compiled: bool = False,
) -> Contender:
    """Return C: forward, backward and the run's optimizers on one batch; unless told otherwise, as in the trainer."""
    train, device = trainer.config.train, trainer.processes.accelerator.device
    bf16 = trainer.processes.accelerator.mixed_precision == "bf16" if bf16 is None else bf16
    model = to_device(build_model(trainer.config), device, train=True)
    if layout is not None:
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizers = OPTIMIZERS[train.optimizer](model, train.lr)
    predict: Callable[..., Tensor] = torch.compile(model) if compiled else model
    x0, x1, t, condition = trainer.train_step.global_batch(0)
    pipeline = trainer.train_step.pipeline
    xt, wanted = pipeline.path.interpolate(x0, x1, t), pipeline.prediction.truth(pipeline.path, x0, x1, t)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            prediction = predict(xt, t, condition)
        LOSSES[train.loss](prediction.float(), wanted).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return Contender(step, Timed(lambda: None))


def measure(contender: Contender, batch_size: int, seconds: float) -> tuple[float, float]:
    """Return images per second over whole steps until `seconds` have passed, and the data's share of the time."""
    contender.data.seconds, steps, started = 0.0, 0, time.perf_counter()
    while steps == 0 or time.perf_counter() - started < seconds:
        contender.step()
        steps += 1
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    took = time.perf_counter() - started
    return steps * batch_size / took, contender.data.seconds / took


def spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def row(trainer: Trainer, root: Path, rounds: int, seconds: float) -> list[str]:
    """Return the cells of one batch size."""
    size = trainer.config.train.batch_size
    contenders = [plain_loop(trainer, root), whole_trainer(trainer), bare(trainer)]
    for one in contenders:  # warm up
        measure(one, size, seconds / 4)
    turns = [[measure(one, size, seconds) for one in contenders] for _ in range(rounds)]
    (a, a_data), (b, b_data), (c, _) = (zip(*column, strict=True) for column in zip(*turns, strict=True))
    rates = [spread(speeds, ".0f") for speeds in (a, b, c)]
    ratios = [spread([x / y for x, y in zip(b, other, strict=True)], ".3f") for other in (a, c)]
    share = median(b) * operations(trainer) / peak(trainer)
    return [str(size), *rates, *ratios, f"{median(a_data):.2%}", f"{median(b_data):.2%}", f"{share:.1%}"]


def operations(trainer: Trainer) -> float:
    """Return the floating-point operations of forward and backward per image, of convolutions and matrix products."""
    model = to_device(build_model(trainer.config), trainer.processes.accelerator.device, train=True)
    x0, x1, t, condition = trainer.train_step.global_batch(0)
    with FlopCounterMode(display=False) as counter:
        model(trainer.train_step.pipeline.path.interpolate(x0, x1, t), t, condition).sum().backward()
    return counter.get_total_flops() / len(t)


@cache
def peak_of(device: torch.device, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Return the floating-point operations a second of a product of two large matrices, about the hardware's most."""
    a = torch.randn(SIDE, SIDE, device=device, dtype=dtype)
    wait = torch.accelerator.synchronize if torch.accelerator.is_available() else lambda: None
    a @ a
    wait()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        a @ a
        wait()
        count += 1
    return 2 * SIDE**3 * count / (time.perf_counter() - started)


def peak(trainer: Trainer) -> float:
    accelerator = trainer.processes.accelerator
    bf16 = accelerator.mixed_precision == "bf16"
    return peak_of(accelerator.device, torch.bfloat16 if bf16 else torch.float32)


def print_row(cells: Sequence[str]) -> None:
    print(*(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True)), sep="  ", flush=True)


def available(part: SamplerConfig, root: Path) -> Any:
    """Return the data set, or its synthetic stand-in where it is not in `root`."""
    try:
        if part.kind in REAL:
            REAL[part.kind](root)
    except RuntimeError:
        return part.stand_in
    return part


def machine() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text() if info.exists() else "") or [platform.processor()]
    device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    return f"{names[0]}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="fashion2mnist-published", choices=PIPELINES)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per round and contender")
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: all cores")
    options = parser.parse_args()
    config, root = PIPELINES[options.pipeline], options.data_root
    config = replace(config, source=available(config.source, root), target=available(config.target, root))
    print(config.name, "on synthetic data: the data sets are not in" if config.is_synthetic else "on", root)
    print_row(HEADER)
    for size in options.batch_sizes:
        config = replace(config, train=replace(config.train, batch_size=size, threads=options.threads))
        with TemporaryDirectory() as folder:
            print_row(row(Trainer(config, Path(folder), data_root=root), root, options.rounds, options.seconds))
    print(machine())  # last: the trainer sets the number of threads


if __name__ == "__main__":
    main()
