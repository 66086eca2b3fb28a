"""What a run measures of itself while it trains, on samples of the test split."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.checks import UserError
from configs.schema import Config
from datasets import Sampler
from pipelines.likeness import Figures, Likeness, Questions, eyes
from pipelines.measures import held_out_loss
from pipelines.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True, eq=False)
class Watch:
    """`measured(pipeline)` by TensorBoard's tags; what is costly is made at the first call.

    Raises UserError where `train.eval_samples` asks for a distance that cannot be measured.
    """

    config: Config
    target: Sampler
    """Of the training split: whether a classifier can learn its labels."""
    test: tuple[Sampler, Sampler]
    data_root: Path
    folder: Path
    """Of the classifiers that were trained here."""

    def __post_init__(self) -> None:
        count, size = self.config.train.eval_samples, self.test[0].size
        if size is not None and count > size:
            raise UserError(f"--train.eval-samples: found {count}, accepted are at most the {size} of the test split")
        if count and not self.target.classes and len(self.config.shape) > 1:
            kind = self.config.target.kind
            raise UserError(f"--train.eval-samples: found {count} and the target {kind} without labels, accepted is 0")

    def measured(self, pipeline: Pipeline) -> Figures:
        """Puts the network in evaluation mode."""
        found = {"eval/loss": held_out_loss(pipeline, *self.test)}
        if self.config.train.eval_samples:
            found["eval/frechet"] = self.likeness.frechet(self.questions.answers(pipeline))
        return found

    @cached_property
    def questions(self) -> Questions:
        return Questions(self.config, self.test, self.config.train.eval_samples)

    @cached_property
    def likeness(self) -> Likeness:
        """As `evaluate` has it."""
        found = eyes(self.config, self.target, data_root=self.data_root, folder=self.folder)
        assert found is not None, "checked when it was made"
        return Likeness(found.see, self.questions.real)
