"""Measure a pipeline while it trains, on samples of the test split."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.rng import derive_seed
from flowferry.pipelines.evaluation.metrics import Closeness
from flowferry.pipelines.evaluation.pairs import truth_figures
from flowferry.pipelines.evaluation.reference import (
    SMALLEST,
    EvaluationSet,
    FeatureExtractor,
    Figures,
    ReferenceSet,
    feature_extractor,
    has_features,
)
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

    Raises UserError if `train.eval_samples` or `train.best` asks for what cannot be measured.
    """

    config: Config
    target: Sampler
    """The training split of the target, on whose labels a classifier may have to be trained."""
    test: tuple[Sampler, Sampler]
    data_root: Path
    folder: Path
    """The folder of the classifiers that were trained on this machine."""
    held_out: tuple[Sampler, Sampler] | None = None
    """What the held-out loss is measured on; None: the test split."""

    def __post_init__(self) -> None:
        count, size = self.config.train.eval_samples, self.test[0].size
        if size is not None and count > size:
            raise UserError(f"--train.eval-samples: got {count}, expected at most the {size} of the test split")
        if count and not has_features(self.config, self.target):
            raise UserError(
                f"--train.eval-samples: got {count} and images of {self.config.target.kind} without classes that are "
                f"endless or smaller than {SMALLEST} pixels, expected 0, or others"
            )
        if (best := self.config.train.best) is not None and best not in (measured := self.measured):
            raise UserError(f"--train.best: got {best}, expected one of {', '.join(measured)}, which are measured")

    @property
    def measured(self) -> tuple[str, ...]:
        """What is measured of the pipeline: the parts of the tags after eval/."""
        compared = () if self.pairs.truth is None else Closeness._fields
        perceived = ["perceptual"] if compared and has_features(self.config, self.target) else []
        return ("loss", *compared, *perceived, *(["frechet"] if self.config.train.eval_samples else []))

    def prepare(self) -> None:
        """Load or train the network that `measure` needs, if any, so that no evaluation takes the time for it."""
        if self.perceives:
            _ = self.extractor

    def measure(self, pipeline: Pipeline) -> Figures:
        """Return the measurements by their TensorBoard tags. Puts the network in evaluation mode."""
        figures = {"eval/loss": held_out_loss(pipeline, *(self.held_out or self.test))}
        if (truth := self.pairs.truth) is not None:
            results, source = self.pairs.generate(pipeline), self.pairs.source.samples
            maps = self.extractor.maps if self.perceives else None
            figures |= {f"eval/{name}": value for name, value in truth_figures(results, truth, maps).items()}
            figures |= {f"eval/{name}_of_source": value for name, value in truth_figures(source, truth, maps).items()}
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
        return ReferenceSet(self.extractor.extract, self.evaluation_set.real)

    @property
    def perceives(self) -> bool:
        """Whether the perceptual distance of pairs is measured, for which a network may have to be trained first."""
        return self.config.train.best == "perceptual" or self.config.train.eval_samples > 0

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """What extracts features, as for `evaluate`. Made only where it is known that there are any."""
        extractor = feature_extractor(self.config, self.target, data_root=self.data_root, folder=self.folder)
        assert extractor is not None, "__post_init__ checked it"
        return extractor
