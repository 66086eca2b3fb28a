"""Steps whose results have not been read yet: they stay on the device, so that the host need not wait for it."""

from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from flowferry.pipelines.training.nonfinite import Metrics
from flowferry.pipelines.training.progress import Clock

RUN_AHEAD = 16  # steps that the host hands to a GPU before it waits for their results


class Taken(NamedTuple):
    """A step that was taken; result: [2] on the device, its loss and the norm of its gradient."""

    number: int
    lr: float
    result: Tensor


class PendingSteps:
    """The steps since the last reading, and the seconds so far on this process: of training itself, and of pauses."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.clock = batch_size, Clock()
        self._steps: list[Taken] = []
        self._since = perf_counter()

    def add(self, number: int, lr: float, result: Tensor) -> None:
        """Remember step `number` (from 1) with its learning rate and its result, [2] on the device."""
        self._steps.append(Taken(number, lr, result))

    @property
    def is_readable(self) -> bool:
        """Whether it is time to read: after each step on a CPU; elsewhere the host runs RUN_AHEAD steps ahead."""
        on_cpu = any(step.result.device.type == "cpu" for step in self._steps)
        return len(self._steps) >= (1 if on_cpu else RUN_AHEAD)

    def pop_metrics(self) -> list[tuple[int, Metrics]]:
        """Return the metrics of the steps since the last call, by their numbers. Waits for the device."""
        if not self._steps:
            return []
        results = torch.stack([step.result for step in self._steps]).tolist()
        now = perf_counter()
        seconds, self._since = now - self._since, now
        self.clock = self.clock._replace(seconds=self.clock.seconds + seconds)
        minutes = self.clock.seconds / 60
        speed = {"perf/images_per_second": self.batch_size * len(results) / seconds, "perf/minutes": minutes}
        rows = [
            (step.number, {"train/loss": loss, "train/lr": step.lr, "train/grad_norm": norm, **speed})
            for step, (loss, norm) in zip(self._steps, results, strict=True)
        ]
        self._steps.clear()
        return rows

    def restart_clock(self) -> None:
        """Start the clock again: the time since the last reading does not count."""
        self._since = perf_counter()

    def pause(self) -> None:
        """Count the time since the last reading as a pause: it was spent on an evaluation, pictures or a checkpoint."""
        now = perf_counter()
        seconds, self._since = now - self._since, now
        _, paused, longest = self.clock
        self.clock = self.clock._replace(paused=paused + seconds, longest_pause=max(longest, seconds))
