"""How like the real ones a pipeline's results are: their features, held against those of real test samples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from configs.schema import Config
from datasets import Batch, Sampler
from datasets.keyed import key
from pipelines import classifier, distances
from pipelines.classifier import TrainedClassifier, trained_classifier
from pipelines.pipeline import Pipeline

MOST = 10_000  # real samples that are compared with

Figures = dict[str, float]
Extracted = tuple[Tensor, Tensor | None]
"""Features [N, D], and class probabilities [N, C] where a classifier gives them."""


class FeatureExtractor(NamedTuple):
    """What gives the features of samples, and the classifier that it is of, if it is."""

    extract: Callable[[Tensor], Extracted]
    classifier: TrainedClassifier | None


def feature_extractor(config: Config, target: Sampler, *, data_root: Path, folder: Path) -> FeatureExtractor | None:
    """The features of a classifier of the target: one from `folder`, one that comes along, or one that is trained now.

    Points in the plane are their own features. Of images without at least two classes nothing is known: None.
    """
    if len(config.shape) == 1:
        return FeatureExtractor(lambda points: (points, None), None)
    if target.classes < 2:
        return None
    device = target.draw(1, seed=0, step=0).samples.device
    trained = trained_classifier(
        config.target, config.shape, classes=target.classes, data_root=data_root, folder=folder, device=device
    )
    return FeatureExtractor(lambda images: classifier.extract(trained.classifier, images), trained)


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The same `count` source samples of the test split each time, and the classes that are asked in turn."""

    config: Config
    test: tuple[Sampler, Sampler]
    count: int
    seed: int = 0
    batch_size: int | None = None

    def drawn(self, sampler: Sampler, count: int, name: str) -> Batch:
        return sampler.draw(count, seed=key(self.seed, "evaluate", name), step=0)

    @cached_property
    def source(self) -> Batch:
        return self.drawn(self.test[0], self.count, "source")

    @cached_property
    def asked(self) -> Tensor | None:
        """The classes in turn, of a pipeline that is to be told them."""
        classes = self.config.asked_classes
        return torch.arange(self.count) % classes if classes else None

    def generate(self, pipeline: Pipeline) -> Tensor:
        """[count, *shape]"""
        return pipeline.translate(self.source.samples, self.asked, seed=self.seed, batch_size=self.batch_size)

    @cached_property
    def real(self) -> Tensor:
        """Target samples of the test split, MOST at most."""
        target = self.test[1]
        return self.drawn(target, min(target.size or MOST, MOST), "reference").samples


@dataclass(frozen=True, eq=False)
class Fidelity:
    """What real samples look like, for others to be held against."""

    extract: Callable[[Tensor], Extracted]
    real: Tensor

    @cached_property
    def reference(self) -> Tensor:
        """Features of the real samples."""
        return self.extract(self.real)[0]

    def frechet(self, samples: Tensor) -> float:
        return distances.frechet(self.reference, self.extract(samples)[0])

    def figures(self, extracted: Extracted) -> Figures:
        """How like the real ones samples are, by their features and class probabilities."""
        real, (features, probabilities) = self.reference, extracted
        figures = {
            "frechet": distances.frechet(real, features),
            "kernel": distances.kernel(real, features),
            **distances.neighbourhoods(real, features)._asdict(),
        }
        if probabilities is not None:
            best = probabilities.max(dim=1)
            histogram = torch.bincount(best.indices, minlength=probabilities.shape[1])
            figures |= {
                "class entropy": distances.entropy(histogram),
                "confidence": best.values.mean().item(),
                **{f"share of class {label}": n / len(features) for label, n in enumerate(histogram.tolist())},
            }
        return figures
