"""How far a run has come, and what is due there: an evaluation, a checkpoint, the end."""

import math
from dataclasses import dataclass
from typing import Any

from flowferry.configs.recipe import TrainConfig


@dataclass
class Progress:
    """The steps and seconds that a run has trained for, and the limits that its configuration sets."""

    train: TrainConfig
    steps_per_epoch: int
    step: int = 0
    """Optimizer steps taken."""
    seconds: float = 0.0
    """Seconds of training itself, without evaluations, pictures and checkpoints."""
    skipped: int = 0
    """Steps skipped because their loss or gradient was not finite."""
    evaluated_at: int = 0
    """The last step that was evaluated."""

    @property
    def total(self) -> int:
        """The steps of the whole run, unless its minutes end it sooner."""
        steps = self.steps_per_epoch * self.train.epochs
        return min(steps, self.train.max_steps or steps)

    @property
    def fraction(self) -> float:
        """The share of training that is done, in [0, 1]: of the steps or of the minutes, whichever is larger."""
        by_time = self.seconds / (60 * self.train.minutes) if self.train.minutes else 0.0
        return min(1.0, max(self.step / self.total, by_time))

    @property
    def expected_total(self) -> int:
        """The step at which the run will end at its speed so far. Needs one step at least."""
        return max(self.step, round(self.step / self.fraction))

    @property
    def is_done(self) -> bool:
        """Whether training has reached its end."""
        return self.fraction >= 1

    @property
    def when(self) -> str:
        """The current epoch and step in words, for captions."""
        return f"epoch {self.step / self.steps_per_epoch:.3g}, step {self.step}"

    def ends_epoch(self, every: int, *, first: bool = False) -> bool:
        """Return whether an epoch has just ended that is a multiple of `every`, or, if `first`, epoch 1. 0: never.

        Where epochs are so short that these would not be `min_steps_apart`, only those count that are.
        """
        epoch, rest = divmod(self.step, self.steps_per_epoch)
        if rest or not every:
            return False
        least = math.ceil(self.train.min_steps_apart / self.steps_per_epoch)  # epochs
        period = every * math.ceil(least / every)
        return epoch % period == 0 or (first and epoch == least and period >= 2 * least)

    def should_save(self) -> bool:
        """Return whether a checkpoint is due, by epoch or by step."""
        every = self.train.checkpoint_steps
        return self.ends_epoch(self.train.checkpoint_epochs) or (every > 0 and self.step % every == 0)

    def should_evaluate(self) -> bool:
        """Return whether an evaluation is due at this step, and has not been done."""
        due = self.is_done or self.ends_epoch(self.train.show_epochs, first=True)
        return due and self.step > self.evaluated_at

    def describe(self) -> str:
        """Return the length of the run in a few words."""
        train = self.train
        length = f"{self.total:,} steps" + (f" or {train.minutes:g} min" if train.minutes else "")
        return f"{length}, {self.steps_per_epoch:,} per epoch, batch {train.batch_size}"

    def state(self) -> dict[str, Any]:
        """Return what resuming needs, as JSON can hold it."""
        return {"step": self.step, "seconds": self.seconds, "skipped": self.skipped}

    def load(self, state: dict[str, Any], *, evaluated_at: int) -> None:
        """Restore what `state` returned. evaluated_at: the last evaluation logged, maybe after that state was saved."""
        self.step, self.seconds, self.skipped = state["step"], state["seconds"], state["skipped"]
        self.evaluated_at = min(evaluated_at, self.step)  # evaluations after it are repeated
