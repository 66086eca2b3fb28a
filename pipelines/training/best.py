"""The best weights of a run by a chosen measure, kept beside the last ones."""

import logging
import math
from pathlib import Path
from typing import Any

from flowferry.configs.locations import BEST
from flowferry.pipelines.evaluation.metrics import HIGHER_IS_BETTER
from flowferry.pipelines.evaluation.reference import Figures
from flowferry.pipelines.pipeline import Pipeline

log = logging.getLogger("flowferry")


class BestWeights:
    """The weights with the best `measure` (`train.best`) of all evaluations so far, in `best/` of the run's folder.

    measure: the part of a tag after eval/; None keeps nothing.
    """

    def __init__(self, run: Path, measure: str | None) -> None:
        self.folder, self.measure = run / BEST, measure
        self.value: float | None = None
        self.step = 0

    def is_improved_by(self, value: float) -> bool:
        """Return whether a value is better than all before; one that is not finite never is."""
        if self.value is None or not math.isfinite(value):
            return math.isfinite(value)
        return value > self.value if self.measure in HIGHER_IS_BETTER else value < self.value

    def keep(self, figures: Figures, pipeline: Pipeline, step: int) -> None:
        """Save the weights of `step` if its figures, by their tags, are better than all before."""
        if self.measure is None or not self.is_improved_by(value := figures[f"eval/{self.measure}"]):
            return
        before = "" if self.value is None else f", after {self.value:.4g} at step {self.step}"
        pipeline.save_pretrained(self.folder, step=step)
        self.value, self.step = value, step
        log.info("step %d: best %s so far, %.4g%s; weights in %s", step, self.measure, value, before, self.folder)

    def state(self) -> dict[str, Any]:
        """Return what resuming needs, as JSON can hold it."""
        return {} if self.value is None else {"best": {"measure": self.measure, "value": self.value, "step": self.step}}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned, unless it is of another measure."""
        kept = state.get("best", {})
        if kept.get("measure") == self.measure and self.measure is not None:
            self.value, self.step = kept["value"], kept["step"]
