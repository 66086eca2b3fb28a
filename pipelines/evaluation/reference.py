"""The real samples that results are compared with, and the fixed source samples that results are made of."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Batch, Sampler
from flowferry.datasets.pairs import pair_names
from flowferry.datasets.rng import derive_seed
from flowferry.models.classifier import extract
from flowferry.pipelines.evaluation import metrics
from flowferry.pipelines.evaluation.classifier import TrainedClassifier, trained_classifier
from flowferry.pipelines.evaluation.encoder import TrainedEncoder, trained_encoder
from flowferry.pipelines.evaluation.metrics import Maps
from flowferry.pipelines.pipeline import Pipeline

SMALLEST = 16  # pixels, of images that an encoder sees
MAX_REAL = 10_000  # real samples to compare with, at most

Figures = dict[str, float]
Extracted = tuple[Tensor, Tensor | None]
"""Features [N, D], and class probabilities [N, C] where a classifier gives them."""


class FeatureExtractor(NamedTuple):
    """A function from samples [N, *shape] to their features, and the network behind it."""

    extract: Callable[[Tensor], Extracted]
    network: TrainedClassifier | TrainedEncoder | None
    """None for points, which are their own features."""

    @property
    def maps(self) -> Maps | None:
        """The network's activations at several depths; None without one."""
        match self.network:
            case TrainedClassifier():
                return self.network.classifier.maps
            case TrainedEncoder():
                return self.network.encoder.maps
        return None

    @property
    def told(self) -> dict[str, Any]:
        """What `evaluation.json` says about the network."""
        match self.network:
            case TrainedClassifier():
                return {"sha256": self.network.sha256, "accuracy": self.network.accuracy}
            case TrainedEncoder():
                return {"sha256": self.network.sha256, "trained on": "the target's images, without labels"}
        return {}


def feature_extractor(config: Config, target: Sampler, *, data_root: Path, folder: Path) -> FeatureExtractor | None:
    """Return what extracts features of target samples: a network from `folder`, a shipped one, or one trained now.

    target: of the training split. It is a classifier of the target's classes; of images of fewer than two classes, an
    encoder that is trained without labels. Points in the plane are their own features. None for an endless target
    without classes, and for images too small for an encoder. Raises UserError as `trained_classifier` and
    `trained_encoder` do.
    """
    if not config.is_image:
        return FeatureExtractor(lambda points: (points, None), None)
    if not has_features(config, target):
        return None
    if target.num_classes < 2:
        encoder = trained_encoder(config.target, target, folder=folder)
        return FeatureExtractor(lambda images: (encoder.encoder.extract(images), None), encoder)
    device = target.draw(1, seed=0, step=0).samples.device
    trained = trained_classifier(
        config.target, config.shape, num_classes=target.num_classes, data_root=data_root, folder=folder, device=device
    )
    return FeatureExtractor(lambda images: extract(trained.classifier, images), trained)


def has_features(config: Config, target: Sampler) -> bool:
    """Return whether `feature_extractor` has features of target samples."""
    return not config.is_image or target.num_classes >= 2 or bool(target.size and min(config.shape[1:]) >= SMALLEST)


def have_same_names(config: Config) -> bool:
    """Return whether source and target are folders whose images have the same names, which may make them partners."""
    source, target = config.source, config.target
    if isinstance(source, ImageFolderConfig) and isinstance(target, ImageFolderConfig):
        with suppress(UserError):  # two images of one name
            return pair_names(source) == pair_names(target)
    return False


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
    def candidates(self) -> Tensor | None:
        """The held-out target images [N, *shape] among which a result's own is looked for: its truth comes first.

        None where no target image belongs to a source image, by its name at least.
        """
        size = self.test[1].size
        if not (self.config.is_image and size is not None and size == self.test[0].size):
            return None
        if not (self.config.is_paired or have_same_names(self.config)):
            return None
        return self.draw(self.test[1], max(self.count, min(size, MAX_REAL)), "source").samples

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
