"""What a run measures of itself while it trains, on samples of the test split."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.checks import UserError
from configs.schema import Config
from datasets import Sampler
from pipelines.fidelity import EvaluationSet, Fidelity, Figures, feature_extractor
from pipelines.measures import held_out_loss
from pipelines.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
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
        if count and self.target.classes < 2 and len(self.config.shape) > 1:
            raise UserError(
                f"--train.eval-samples: found {count} and {self.target.classes} classes in the target "
                f"{self.config.target.kind}, accepted is 0, or a target of two classes or more"
            )

    def measured(self, pipeline: Pipeline) -> Figures:
        """Puts the network in evaluation mode."""
        found = {"eval/loss": held_out_loss(pipeline, *self.test)}
        if self.config.train.eval_samples:
            found["eval/frechet"] = self.fidelity.frechet(self.evaluation_set.generate(pipeline))
        return found

    @cached_property
    def evaluation_set(self) -> EvaluationSet:
        return EvaluationSet(self.config, self.test, self.config.train.eval_samples)

    @cached_property
    def fidelity(self) -> Fidelity:
        """As `evaluate` has it."""
        found = feature_extractor(self.config, self.target, data_root=self.data_root, folder=self.folder)
        assert found is not None, "checked when it was made"
        return Fidelity(found.extract, self.evaluation_set.real)
