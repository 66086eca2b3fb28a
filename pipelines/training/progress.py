"""How far a run has come, and what is due there: an evaluation, a checkpoint, the end."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flowferry.configs.recipe import TrainConfig

SHARE = 0.05  # of the time, for evaluations where minutes end the run


class Clock(NamedTuple):
    """What a run has taken so far, in seconds."""

    seconds: float = 0.0
    """Training itself."""
    paused: float = 0.0
    """Evaluations, pictures and checkpoints between its steps."""
    longest_pause: float = 0.0
    """The longest of these."""


@dataclass
class Progress:
    """The steps and the time that a run has taken, and the limits that its configuration sets."""

    train: TrainConfig
    steps_per_epoch: int
    step: int = 0
    """Optimizer steps taken."""
    clock: Clock = field(default_factory=Clock)
    """The time that they and the pauses between them took."""
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
        return min(1.0, max(self.step / self.total, self._share_of_minutes()))

    def _share_of_minutes(self, *, pauses_to_come: int = 1) -> float:
        """Return the share of the time for training that is over; 0 without a limit.

        The minutes are those that the user waits: the pauses so far, and that at the end, are not for training. Each
        to come is taken for as long as the longest. Half of the minutes are for training in any case.
        """
        if not self.train.minutes:
            return 0.0
        limit, pauses = 60 * self.train.minutes, self.clock.paused + pauses_to_come * self.clock.longest_pause
        return self.clock.seconds / (limit - min(pauses, limit / 2))

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
        by_epoch = self.ends_epoch(self.train.show_epochs, first=True) and self._has_time_to_evaluate()
        return (self.is_done or by_epoch or self._is_time_for_the_first()) and self.step > self.evaluated_at

    def _is_time_for_the_first(self) -> bool:
        """Return whether SHARE of the minutes is over without a picture, however many steps that were."""
        return self.train.show_epochs > 0 and not self.evaluated_at and self._share_of_minutes() >= SHARE

    def _has_time_to_evaluate(self) -> bool:
        """Return whether minutes, where they end the run, leave time for one more evaluation beside the last.

        SHARE of the time so far is for pauses, at first of a fifth of the minutes.
        """
        if not self.train.minutes:
            return True
        so_far = max(self.clock.seconds + self.clock.paused, 60 * self.train.minutes / 5)
        return self.clock.paused <= SHARE * so_far and self._share_of_minutes(pauses_to_come=2) < 1

    def describe(self) -> str:
        """Return the length of the run in a few words."""
        train = self.train
        length = f"{self.total:,} steps" + (f" or {train.minutes:g} min" if train.minutes else "")
        return f"{length}, {self.steps_per_epoch:,} per epoch, batch {train.batch_size}"

    def state(self) -> dict[str, Any]:
        """Return what resuming needs, as JSON can hold it."""
        return {"step": self.step, "skipped": self.skipped, **self.clock._asdict()}

    def load(self, state: dict[str, Any], *, evaluated_at: int) -> None:
        """Restore what `state` returned. evaluated_at: the last evaluation logged, maybe after that state was saved."""
        self.step, self.skipped = state["step"], state["skipped"]
        self.clock = Clock(**{name: state.get(name, 0.0) for name in Clock._fields})  # before 0.4 without pauses
        self.evaluated_at = min(evaluated_at, self.step)  # evaluations after it are repeated
