"""Takes the steps of training. The only file that knows `Accelerator`: devices, processes, precision."""

import copy
import logging
import os
import time
from contextlib import nullcontext
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from configs.changes import refuse_changes
from configs.checks import UserError
from configs.places import classifiers_of
from configs.schema import Config, TrainConfig, read_config
from datasets import Sampler, build_samplers
from datasets.keyed import key
from datasets.samplers import Split
from models import build_model, placed
from pipelines import checkpoint, weights
from pipelines.batches import Pairs, draw_pairs, steps_per_epoch
from pipelines.batchnorm import synchronize
from pipelines.ema import update_average
from pipelines.machine import best_device, has_bf16, keep_freed_memory, use_cores
from pipelines.optimizers import OPTIMIZERS
from pipelines.pipeline import Pipeline
from pipelines.record import Record, last_measured
from pipelines.rendezvous import rendezvous
from pipelines.schedules import learning_rate
from pipelines.stop import StopSignal
from pipelines.validation import Validation

log = logging.getLogger("flowferry")

RUN_AHEAD = 16  # steps that the host hands to a GPU before it waits for their results


class Step(NamedTuple):
    """A step that was taken and not read yet; result: [2] on the device, the loss and the gradient's norm."""

    number: int
    lr: float
    result: Tensor


class Trainer:
    """What `training.run` runs in one folder: the network, its data and optimisers, and how far they are.

    Raises UserError where the configuration, the data and the machine do not fit together.
    """

    def __init__(self, config: Config, folder: Path, *, data_root: Path) -> None:
        self.stop = StopSignal()  # first: it remembers the launcher
        self.config, self.train, self.folder = config, config.train, folder
        self.accelerator = make_accelerator(config.train)
        self.source, self.target = self._samplers("train", data_root)
        self.test_source, self.test_target = self._samplers("test", data_root)
        self._check_batch()
        torch.manual_seed(key(config.seed, "weights"))
        model = placed(build_model(config), config, self.accelerator.device, train=True)
        if config.train.sync_batchnorm:
            synchronize(model, config.model.kind)
        self.average = copy.deepcopy(model).eval() if config.train.ema else None
        self.bare = model
        self.optimizers = OPTIMIZERS[config.train.optimizer](model, config.train.lr)
        self.model, *self.prepared_optimizers = self.accelerator.prepare(model, *self.optimizers)
        self.data_root = data_root
        self.pipeline = Pipeline(config, self.model)
        self.shown = Pipeline(config, self.bare if self.average is None else self.average)
        test, classifiers = (self.test_source, self.test_target), classifiers_of(folder)
        self.validation = Validation(
            config=config, target=self.target, test=test, data_root=data_root, folder=classifiers
        )
        self.steps_per_epoch = steps_per_epoch(config.train, self.target)
        self.total = self.steps_per_epoch * config.train.epochs
        if config.train.max_steps:
            self.total = min(self.total, config.train.max_steps)
        self.step, self.seconds, self.skipped, self.leaving = 0, 0.0, 0, 0
        self.shown_at = 0  # the last step that was measured and drawn
        self._unread: list[Step] = []
        self._halted = torch.zeros((), dtype=torch.bool, device=self.accelerator.device)
        self._since = time.perf_counter()
        self._clock = 0.0  # this process's own seconds of training; `seconds` is the main process's, as last agreed

    # --- one step ------------------------------------------------------------------------------------

    def global_batch(self, step: int) -> Pairs:
        return draw_pairs(
            self.config, self.source, self.target, self.train.batch_size, seed=self.config.seed, step=step
        )

    def train_step(self) -> None:
        """One optimiser step on the global batch; none if the loss or the gradient is not finite on some process.

        Nothing waits for the device here: what the step gave stays there until it is `read`.
        """
        lr = learning_rate(self.train, self.step, self.progress)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = lr
        mine = self.global_batch(self.step).part(self.accelerator.process_index, self.accelerator.num_processes)
        torch.manual_seed(key(self.config.seed, "network", self.step, self.accelerator.process_index))
        statistics = [buffer.clone() for buffer in self.bare.buffers()]
        loss = torch.zeros((), device=self.accelerator.device)
        for index in range(self.train.accumulate):
            last = index == self.train.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                part = self.pipeline.loss(*mine.part(index, self.train.accumulate)) / self.train.accumulate
                self.accelerator.backward(part)
            loss += part.detach()
        norm = self._clip_gradients()
        loss = self.accelerator.reduce(loss, "mean")
        refused = ~(loss + norm).isfinite()
        if self.train.on_nonfinite == "stop" and not self.scales_loss:
            refused = self._halted = refused | self._halted  # nor is anything touched before the host reads of it
        if not self.scales_loss:  # whose scaler sees to the optimisers by itself
            for optimizer in self.optimizers:
                optimizer.found_inf = refused.float()  # type: ignore[attr-defined]
        for buffer, old in zip(self.bare.buffers(), statistics, strict=True):
            buffer.copy_(torch.where(refused, old, buffer))
        for optimizer in self.prepared_optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.average is not None and self.train.ema:
            goes_on = self.train.on_nonfinite == "skip" or self.scales_loss
            update_average(
                self.average, self.bare, self.train.ema, updates=self.step, unless=refused if goes_on else None
            )
        self.step += 1
        self._unread.append(Step(self.step, lr, torch.stack([loss, norm])))

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """What the steps since the last reading gave, by their numbers. Waits for the device, and agrees."""
        results = torch.stack([step.result for step in self._unread]).tolist()
        now = time.perf_counter()
        took, self._since = now - self._since, now
        self._clock += took
        speed = {"images_per_second": self.train.batch_size * len(results) / took, "minutes": self._clock / 60}
        rows = [
            (step.number, {"train/loss": loss, "train/lr": step.lr, "train/grad_norm": norm})
            for step, (loss, norm) in zip(self._unread, results, strict=True)
        ]
        self._unread.clear()
        self.agree()
        return [(number, values | {f"perf/{name}": value for name, value in speed.items()}) for number, values in rows]

    def agree(self) -> None:
        """Between the processes: on whether one was asked to leave, and on how long it has been."""
        asked = self.stop.received
        mine = [float(asked == SIGINT), float(asked == SIGTERM), self._clock if self.main else 0.0]
        told = self.accelerator.reduce(torch.tensor(mine, device=self.accelerator.device), "sum")
        interrupted, terminated, self.seconds = told.tolist()
        self.leaving = SIGTERM if terminated else SIGINT if interrupted else 0

    def start_clock(self) -> None:
        """From now on it is training whose time is taken, until the next reading."""
        self._since = time.perf_counter()

    @property
    def scales_loss(self) -> bool:
        """As fp16 needs it."""
        return self.accelerator.scaler is not None

    @property
    def readable(self) -> bool:
        """Whether it is time to read: on a CPU after each step, elsewhere the host runs ahead of the device."""
        return len(self._unread) >= (1 if self.accelerator.device.type == "cpu" else RUN_AHEAD)

    def _clip_gradients(self) -> Tensor:
        """The norm of the whole gradient, before it is shortened to `clip_norm`."""
        self.accelerator.unscale_gradients()
        gradients = [p.grad for p in self.bare.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.train.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.bare.parameters(), self.train.clip_norm, norm)
        return norm

    @property
    def progress(self) -> float:
        """In [0, 1]: of the steps, or of the minutes if those are further on."""
        time_spent = self.seconds / (60 * self.train.minutes) if self.train.minutes else 0.0
        return min(1.0, max(self.step / self.total, time_spent))

    def left_alone(self, error: RuntimeError) -> bool:
        """Whether that is what an operation of all processes raises where one of them is gone."""
        backend = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        return self.accelerator.num_processes > 1 and backend

    def tell(self, message: str, *values: object) -> None:
        if self.main:
            log.info(message, *values)

    def part(self) -> None:
        """Takes down what joins the processes, as torch asks for before they end."""
        self.accelerator.end_training()

    @property
    def main(self) -> bool:
        return self.accelerator.is_main_process

    # --- saving and resuming -------------------------------------------------------------------------

    def save(self, record: Record | None) -> None:
        """Publishes the weights and the resume state, which comes last: it vouches for all that comes before."""
        if record is not None:
            record.flush()
            self.shown.save_pretrained(self.folder / "model", step=self.step)
            tensors = {
                "model": self.bare.state_dict(),
                **{f"optimizer{i}": checkpoint.optimizer_tensors(o) for i, o in enumerate(self.optimizers)},
            }
            if self.average is not None:
                tensors["ema"] = self.average.state_dict()
            state: dict[str, Any] = {"step": self.step, "seconds": self.seconds, "skipped": self.skipped}
            if self.accelerator.scaler is not None:
                state["scaler"] = self.accelerator.scaler.state_dict()
            folder = self.folder / "checkpoints"
            checkpoint.save(folder, self.step, tensors, state, keep=self.train.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Goes on from the newest whole checkpoint, the same one on every process."""
        found: list[Any] = [None, 0]
        if self.main:
            path, broken = checkpoint.newest(self.folder / "checkpoints")
            for problem in broken:
                log.warning("checkpoint passed over: %s", problem)
            found = [path, last_measured(self.folder / "metrics.jsonl")]
        path, shown_at = broadcast_object_list(found)
        if path is None:
            return
        refuse_changes(read_config(self.folder / "config.json"), self.config, self.folder)
        tensors, state = checkpoint.load(path)
        weights.load_strictly(self.bare, tensors["model"], what=str(path))
        if self.average is not None:
            weights.load_strictly(self.average, tensors["ema"], what=str(path))
        for i, optimizer in enumerate(self.optimizers):
            checkpoint.load_optimizer(optimizer, tensors[f"optimizer{i}"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds, self._clock = state["step"], state["seconds"], state["seconds"]
        self.skipped = state["skipped"]
        self.shown_at = min(shown_at, self.step)  # what was drawn after the checkpoint is drawn again
        self.tell("resuming from %s", path)

    # --- setting up ----------------------------------------------------------------------------------

    def _samplers(self, split: Split, data_root: Path) -> tuple[Sampler, Sampler]:
        """Source and target. A download happens once: on the main process, then where machines share no disk."""
        config, device = self.config, self.accelerator.device
        with self.accelerator.main_process_first(), self.accelerator.local_main_process_first():
            return build_samplers(config, data_root=data_root, split=split, device=device)

    def _check_batch(self) -> None:
        parts = self.accelerator.num_processes * self.train.accumulate
        if self.train.batch_size % parts:
            raise UserError(
                f"--train.batch-size {self.train.batch_size} is not a multiple of {parts} = "
                f"{self.accelerator.num_processes} processes × {self.train.accumulate} accumulated parts"
            )

    def describe(self) -> str:
        """What is about to be trained, in one line."""
        parameters = sum(p.numel() for p in self.bare.parameters())
        sizes = " → ".join(
            f"{part.kind}" + (f" ({sampler.size:,})" if sampler.size else "")
            for part, sampler in ((self.config.source, self.source), (self.config.target, self.target))
        )
        accelerator = self.accelerator
        length = f"{self.total:,} steps" + (f" or {self.train.minutes:g} min" if self.train.minutes else "")
        return (
            f"{self.config.name}: {sizes}; {self.config.model.kind}, {parameters:,} parameters; "
            f"{length}, {self.steps_per_epoch:,} an epoch, batch {self.train.batch_size}; "
            f"{accelerator.num_processes} × {accelerator.device.type}, {accelerator.mixed_precision}"
        )


def make_accelerator(train: TrainConfig) -> Accelerator:
    """Accelerate on the GPUs there are, else on the CPU with all of its cores."""
    rendezvous()
    accelerator = Accelerator(mixed_precision=precision(train), cpu=not torch.accelerator.is_available())
    if accelerator.device.type == "cpu":
        use_cores(train.threads)
        keep_freed_memory()
    return accelerator


def precision(train: TrainConfig) -> str | None:
    """In Accelerate's words; None leaves it to `accelerate launch`."""
    if train.precision != "auto":
        return {"fp32": "no"}.get(train.precision, train.precision)
    if os.environ.get("ACCELERATE_MIXED_PRECISION", "no") != "no":
        return None
    return "bf16" if has_bf16(best_device()) else "no"
