"""Measure a pipeline while it trains, on samples of the test split."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.rng import derive_seed
from flowferry.pipelines.evaluation.metrics import closeness
from flowferry.pipelines.evaluation.reference import EvaluationSet, Figures, ReferenceSet, feature_extractor
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.training.batches import draw_pairs

PAIRS = 64  # test pairs whose results are compared with the truth, at most
HELD_OUT = 1024  # test samples that the held-out loss is measured on, or a few more to fill the last batch


@torch.no_grad()
def held_out_loss(pipeline: Pipeline, source: Sampler, target: Sampler) -> float:
    """Return the loss on fixed pairs, times and labels of the test split. Puts the network in evaluation mode."""
    config, seed = pipeline.config, derive_seed(pipeline.config.seed, "held out")
    batch = config.train.batch_size
    pipeline.model.eval()
    losses = [
        pipeline.loss(*draw_pairs(config, source, target, batch, seed=seed, step=step))
        for step in range(-(-HELD_OUT // batch))
    ]
    return torch.stack(losses).mean().item()


@dataclass(frozen=True, eq=False)
class Validation:
    """Measures a pipeline during training; what is costly is built at the first call.

    Raises UserError if `train.eval_samples` asks for a distance that cannot be measured.
    """

    config: Config
    target: Sampler
    """The training split of the target, on whose labels a classifier may have to be trained."""
    test: tuple[Sampler, Sampler]
    data_root: Path
    folder: Path
    """The folder of the classifiers that were trained on this machine."""

    def __post_init__(self) -> None:
        count, size = self.config.train.eval_samples, self.test[0].size
        if size is not None and count > size:
            raise UserError(f"--train.eval-samples: got {count}, expected at most the {size} of the test split")
        if count and self.target.num_classes < 2 and self.config.is_image:
            raise UserError(
                f"--train.eval-samples: got {count} and {self.target.num_classes} classes in the target "
                f"{self.config.target.kind}, expected 0, or a target of two classes or more"
            )

    def measure(self, pipeline: Pipeline) -> Figures:
        """Return the measurements by their TensorBoard tags. Puts the network in evaluation mode."""
        figures = {"eval/loss": held_out_loss(pipeline, *self.test)}
        if (truth := self.pairs.truth) is not None:
            results, source = self.pairs.generate(pipeline), self.pairs.source.samples
            figures |= {f"eval/{name}": value for name, value in closeness(results, truth)._asdict().items()}
            figures |= {f"eval/{name}_of_source": value for name, value in closeness(source, truth)._asdict().items()}
        if self.config.train.eval_samples:
            figures["eval/frechet"] = self.reference.frechet(self.evaluation_set.generate(pipeline))
        return figures

    @cached_property
    def pairs(self) -> EvaluationSet:
        """The pairs whose results are compared with the truth at each call."""
        size = self.test[0].size
        return EvaluationSet(self.config, self.test, PAIRS if size is None else min(PAIRS, size))

    @cached_property
    def evaluation_set(self) -> EvaluationSet:
        """The source samples that are translated at each call."""
        return EvaluationSet(self.config, self.test, self.config.train.eval_samples)

    @cached_property
    def reference(self) -> ReferenceSet:
        """The features of the real samples, as `evaluate` takes them."""
        extractor = feature_extractor(self.config, self.target, data_root=self.data_root, folder=self.folder)
        assert extractor is not None, "__post_init__ checked it"
        return ReferenceSet(extractor.extract, self.evaluation_set.real)
