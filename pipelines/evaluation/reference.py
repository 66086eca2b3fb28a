"""The real samples that results are compared with, and the fixed source samples that results are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from flowferry.configs.schema import Config
from flowferry.datasets.base import Batch, Sampler
from flowferry.datasets.rng import derive_seed
from flowferry.models.classifier import extract
from flowferry.pipelines.evaluation import metrics
from flowferry.pipelines.evaluation.classifier import TrainedClassifier, trained_classifier
from flowferry.pipelines.pipeline import Pipeline

MAX_REAL = 10_000  # real samples to compare with, at most

Figures = dict[str, float]
Extracted = tuple[Tensor, Tensor | None]
"""Features [N, D], and class probabilities [N, C] where a classifier gives them."""


class FeatureExtractor(NamedTuple):
    """A function from samples [N, *shape] to their features, and the classifier behind it, if there is one."""

    extract: Callable[[Tensor], Extracted]
    classifier: TrainedClassifier | None


def feature_extractor(config: Config, target: Sampler, *, data_root: Path, folder: Path) -> FeatureExtractor | None:
    """Return what extracts features of target samples: a classifier from `folder`, a shipped one, or one trained now.

    Points in the plane are their own features. None for images of fewer than two classes, on which no classifier can
    be trained. Raises UserError as `trained_classifier` does.
    """
    if not config.is_image:
        return FeatureExtractor(lambda points: (points, None), None)
    if target.num_classes < 2:
        return None
    device = target.draw(1, seed=0, step=0).samples.device
    trained = trained_classifier(
        config.target, config.shape, num_classes=target.num_classes, data_root=data_root, folder=folder, device=device
    )
    return FeatureExtractor(lambda images: extract(trained.classifier, images), trained)


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """`count` source samples of the test split, the same each time, and the class to ask for with each of them."""

    config: Config
    test: tuple[Sampler, Sampler]
    count: int
    seed: int = 0
    batch_size: int | None = None

    def draw(self, sampler: Sampler, count: int, name: str) -> Batch:
        """Draw `count` samples, a function of the seed and of `name`."""
        return sampler.draw(count, seed=derive_seed(self.seed, "evaluate", name), step=0)

    @cached_property
    def source(self) -> Batch:
        """The source samples."""
        return self.draw(self.test[0], self.count, "source")

    @cached_property
    def truth(self) -> Tensor | None:
        """The target images that the source samples are paired with; None without pairs, or where too small."""
        if not (self.config.is_paired and self.config.is_image and min(self.config.shape[1:]) >= metrics.WINDOW):
            return None
        return self.draw(self.test[1], self.count, "source").samples  # the same draw of both sides gives partners

    @cached_property
    def asked(self) -> Tensor | None:
        """The classes in turn, int64 [count]; None for a pipeline whose user cannot ask for classes."""
        classes = self.config.asked_classes
        return torch.arange(self.count) % classes if classes else None

    def generate(self, pipeline: Pipeline) -> Tensor:
        """Return the pipeline's results [count, *shape] on its device."""
        return pipeline.translate(self.source.samples, self.asked, seed=self.seed, batch_size=self.batch_size)

    @cached_property
    def real(self) -> Tensor:
        """The target samples of the test split, [N, *shape], MAX_REAL at most."""
        target = self.test[1]
        return self.draw(target, min(target.size or MAX_REAL, MAX_REAL), "reference").samples


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """Real samples [N, *shape], by whose features others are judged."""

    extract: Callable[[Tensor], Extracted]
    real: Tensor

    @cached_property
    def features(self) -> Tensor:
        """The features [N, D] of the real samples."""
        return self.extract(self.real)[0]

    def frechet(self, samples: Tensor) -> float:
        """Return the Fréchet distance of samples [B, *shape] from the real ones."""
        return metrics.frechet(self.features, self.extract(samples)[0])

    def figures(self, extracted: Extracted) -> Figures:
        """Return figures of how like the real samples others are, by their features and class probabilities."""
        real, (features, probabilities) = self.features, extracted
        figures = {
            "frechet": metrics.frechet(real, features),
            "kernel": metrics.kernel(real, features),
            **metrics.neighborhoods(real, features)._asdict(),
        }
        if probabilities is not None:
            best = probabilities.max(dim=1)
            histogram = torch.bincount(best.indices, minlength=probabilities.shape[1])
            figures |= {
                "class entropy": metrics.entropy(histogram),
                "confidence": best.values.mean().item(),
                **{f"share of class {label}": n / len(features) for label, n in enumerate(histogram.tolist())},
            }
        return figures
