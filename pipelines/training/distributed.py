"""The processes of a run: how they start, agree and shut down, and BatchNorm over their global batch."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any, TypeVar
from uuid import uuid4

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, broadcast_object_list
from torch import Tensor, nn
from torch import distributed as dist

from flowferry.configs.recipe import TrainConfig
from flowferry.configs.validation import UserError
from flowferry.pipelines.hardware import best_device, has_bf16, keep_freed_memory, use_cores
from flowferry.pipelines.storage.files import try_flush
from flowferry.pipelines.storage.lock import FolderLock
from flowferry.pipelines.training.environment import asked_precision, ignored_accumulation, launched
from flowferry.pipelines.training.progress import Clock
from flowferry.pipelines.training.signals import SignalHandler

log = logging.getLogger("flowferry")

T = TypeVar("T")


class Processes:
    """The processes of a run, seen from one of them: which one logs, what they agree on, how they shut down.

    leaving: the signal because of which all have agreed to stop, or 0. Raises UserError if the processes cannot share
    the batch equally.
    """

    def __init__(self, train: TrainConfig) -> None:
        self.signals = SignalHandler()  # first: it remembers the launcher
        self.accelerator = make_accelerator(train)
        self.leaving = 0
        if not self.is_main:
            log.setLevel(logging.ERROR)  # what all processes find is told once
        parts = self.accelerator.num_processes * train.accumulate
        if train.batch_size % parts:
            raise UserError(
                f"--train.batch-size: got {train.batch_size}, expected a multiple of {parts} = "
                f"{self.accelerator.num_processes} processes × {train.accumulate} accumulated parts"
            )

    @property
    def is_main(self) -> bool:
        """Whether this is the process that logs and saves."""
        return self.accelerator.is_main_process

    def log_main(self, message: str, *values: object) -> None:
        """Log `message` % `values`, on the main process alone."""
        if self.is_main:
            log.info(message, *values)

    def main_first(self, load: Callable[[], T]) -> T:
        """Return `load()`, called on the main process first, then on each machine's first: one download per machine."""
        with self.accelerator.main_process_first(), self.accelerator.local_main_process_first():
            return load()

    @contextmanager
    def alone_in(self, folder: Path) -> Iterator[None]:
        """Hold the lock of a run's folder. Raises UserError on all processes if another run does, or for a bad disk."""
        lock = FolderLock(folder)
        try:
            problem = self.on_main(lambda: locking_problem(lock))
            if problem is not None:
                raise UserError(problem)
            yield
        finally:
            lock.release()

    def sync_state(self, clock: Clock) -> Clock:
        """Agree on `leaving`, and return the main process's `clock` on all processes."""
        received, nothing = self.signals.received, Clock()
        mine = [float(received == SIGINT), float(received == SIGTERM), *(clock if self.is_main else nothing)]
        everyone = self.accelerator.reduce(torch.tensor(mine, device=self.accelerator.device), "sum")
        interrupted, terminated, *agreed = everyone.tolist()
        self.leaving = SIGTERM if terminated else SIGINT if interrupted else 0
        return Clock(*agreed)

    def on_main(self, do: Callable[[], T]) -> T:
        """Return on all processes what `do()` returns, called on the main process alone. It must be picklable."""
        (result,) = broadcast_object_list([do() if self.is_main else None])
        return result

    def is_peer_failure(self, error: Exception) -> bool:
        """Return whether `error` is what a collective operation raises after another process has died."""
        backend = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
        return self.accelerator.num_processes > 1 and backend

    def describe(self) -> str:
        """Return the number of processes, their device and their precision in a few words."""
        accelerator = self.accelerator
        return f"{accelerator.num_processes} × {accelerator.device.type}, {accelerator.mixed_precision}"

    def shutdown(self) -> None:
        """Destroy the process group, as torch requires before the processes end."""
        self.accelerator.end_training()


def locking_problem(lock: FolderLock) -> str | None:
    """Lock a folder and try its disk; return why that is not possible, or None."""
    try:
        lock.acquire()
        try_flush(lock.folder)
    except OSError as error:
        return f"--output-dir: {lock.folder} cannot be written to ({error.strerror or error})"
    except UserError as error:
        return f"--output-dir: {error}"
    return None


# --- starting -------------------------------------------------------------------------------------------


def make_accelerator(train: TrainConfig) -> Accelerator:
    """Return an Accelerator on the GPUs if there are any, else on all cores of the CPU."""
    with launched():
        init_process_group()
        accelerator = Accelerator(
            mixed_precision=precision(train),
            cpu=not torch.accelerator.is_available(),
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # `TrainStep` accumulates
        )
    if accelerator.is_main_process and (ignored := ignored_accumulation()):
        log.warning(ignored)
    if accelerator.device.type == "cpu":
        use_cores(train.threads)
        keep_freed_memory()
    return accelerator


def precision(train: TrainConfig) -> str:
    """Return the precision in Accelerate's words: the configuration's, `accelerate launch`'s, or the device's best.

    Raises UserError where `accelerate launch` asks for one that `TrainConfig` refuses.
    """
    if train.precision != "auto":
        return {"fp32": "no"}.get(train.precision, train.precision)
    if (asked := asked_precision()) == "fp16" and train.optimizer == "muon":
        raise UserError("ACCELERATE_MIXED_PRECISION: got fp16 with the optimizer muon, expected no or bf16")
    return asked or ("bf16" if has_bf16(best_device()) else "no")


def init_process_group(timeout: timedelta | None = None) -> None:
    """Create the process group under `torchrun --max-restarts`; elsewhere Accelerate does it.

    There the store in which processes look up one another's addresses outlives them, and a restarted process finds the
    addresses of dead ones (pytorch issue 135712); the launcher's count of restarts is that of its own machine. So
    process 0 gives each group a new name, and sends it to every process that asks, under a key of that process's own
    making. Raises UserError if processes are still missing after `timeout`.
    """
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) == 0 or dist.is_initialized():
        return
    store, rank, size = next(dist.rendezvous("env://"))
    name = uuid4().hex
    if rank == 0:
        patience = timeout or store.timeout
        deadline = time.monotonic() + patience.total_seconds()
        while store.add(f"{name}/met", 0) < size - 1:
            for asking in (f"asking/{other}" for other in range(1, size)):
                if store.check([asking]):
                    store.set(store.get(asking).decode(), name)
            if time.monotonic() > deadline:
                met = 1 + store.add(f"{name}/met", 0)
                raise UserError(f"processes: got {met} after waiting for {patience}, expected all {size}")
            time.sleep(0.05)
    else:
        store.set(f"asking/{rank}", name)
        name = store.get(name).decode()
        store.add(f"{name}/met", 1)
    backend = dist.get_default_backend_for_device(best_device())
    dist.init_process_group(backend, timeout=timeout, store=dist.PrefixStore(name, store), rank=rank, world_size=size)


# --- BatchNorm over the global batch (torch's SyncBatchNorm does the same, but on GPUs only) -------------


class GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of all processes, which hold equal parts of the batch.

    x [B, C, H, W] -> the same shape. Gradients flow through the statistics, to every process.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalized per channel; in training with several processes, over all of them."""
        if not (self.training and dist.is_initialized()):
            return super().forward(x)
        h = x.float()
        mean = global_mean(h.mean(dim=(0, 2, 3), keepdim=True))
        variance = global_mean((h - mean).square().mean(dim=(0, 2, 3), keepdim=True))
        count = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            self.running_mean.lerp_(mean.flatten(), self.momentum)  # type: ignore[union-attr, arg-type]
            unbiased = variance.flatten() * count / (count - 1)
            self.running_var.lerp_(unbiased, self.momentum)  # type: ignore[union-attr, arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        normal = (h - mean) * (variance + self.eps).rsqrt()
        return (normal * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class Sum(torch.autograd.Function):
    """The sum over all processes. Each of them receives it, so the gradient of a part is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        """Return the sum over all processes."""
        total = mine.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the sum over all processes of their gradients."""
        return Sum.forward(ctx, gradients[0])


def global_mean(mean: Tensor) -> Tensor:
    """Return the mean over all processes of their means."""
    return Sum.apply(mean) / dist.get_world_size()


def synchronize_batchnorm(network: nn.Module, kind: str) -> None:
    """Replace each BatchNorm2d by a GlobalBatchNorm with its tensors. Raises UserError if there is none."""
    children = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
    norms = [(parent, name, child) for parent, name, child in children if type(child) is nn.BatchNorm2d]
    if not norms:
        raise UserError(f"--train.sync-batchnorm: got the network {kind}, expected one that has BatchNorm")
    for parent, name, old in norms:
        new = GlobalBatchNorm(old.num_features, eps=old.eps, momentum=old.momentum)
        new.load_state_dict(old.state_dict())
        setattr(parent, name, new.to(old.weight.device))
