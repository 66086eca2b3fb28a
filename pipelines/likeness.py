"""How like the real ones a pipeline's results are: seen through features, held against real test samples."""

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
from pipelines.classifier import Judge, trained_classifier
from pipelines.pipeline import Pipeline

MOST = 10_000  # real samples that are compared with

Figures = dict[str, float]
Seen = tuple[Tensor, Tensor | None]
"""Features [N, D], and class probabilities [N, C] where a classifier gives them."""


class Eyes(NamedTuple):
    """What samples are seen with, and the classifier that it is of, if it is."""

    see: Callable[[Tensor], Seen]
    judge: Judge | None


def eyes(config: Config, target: Sampler, *, data_root: Path, folder: Path) -> Eyes | None:
    """The features of a classifier of the target: one from `folder`, one that comes along, or one that is trained now.

    Points in the plane are their own features. Of images without labels nothing is known: None.
    """
    if len(config.shape) == 1:
        return Eyes(lambda points: (points, None), None)
    if not target.classes:
        return None
    device = target.draw(1, seed=0, step=0).samples.device
    judge = trained_classifier(
        config.target, config.shape, classes=target.classes, data_root=data_root, folder=folder, device=device
    )
    return Eyes(lambda images: classifier.seen(judge.classifier, images), judge)


@dataclass(frozen=True, eq=False)
class Questions:
    """The same `count` source samples of the test split each time, and the classes that are asked in turn."""

    config: Config
    test: tuple[Sampler, Sampler]
    count: int
    seed: int = 0
    batch_size: int = 256

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

    def answers(self, pipeline: Pipeline) -> Tensor:
        """[count, *shape]"""
        return pipeline.translate(self.source.samples, self.asked, seed=self.seed, batch_size=self.batch_size)

    @cached_property
    def real(self) -> Tensor:
        """Target samples of the test split, MOST at most."""
        target = self.test[1]
        return self.drawn(target, min(target.size or MOST, MOST), "reference").samples


@dataclass(frozen=True, eq=False)
class Likeness:
    """What real samples look like, for others to be held against."""

    see: Callable[[Tensor], Seen]
    real: Tensor

    @cached_property
    def reference(self) -> Tensor:
        """Features of the real samples."""
        return self.see(self.real)[0]

    def frechet(self, samples: Tensor) -> float:
        return distances.frechet(self.reference, self.see(samples)[0])

    def figures(self, seen: Seen) -> Figures:
        """How like the real ones samples are, by their features and class probabilities."""
        real, (features, probabilities) = self.reference, seen
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
