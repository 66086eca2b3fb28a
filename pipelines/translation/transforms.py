"""What is done with images on their way from file to file: they are carried to the target, or edited."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowferry.datasets.pixels import to_pixels
from flowferry.datasets.rng import derive_seed
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.translation.entries import sha256


@dataclass(frozen=True, kw_only=True)
class Transform(ABC):
    """What a pipeline does with images. Each result is a function of its own image, the settings and the variant."""

    verb: ClassVar[str]
    done: ClassVar[str]
    """What it does, and has done, in a word."""
    pipeline: Pipeline
    seed: int = 0
    """Of the noise, which for each image is a function of the seed, the image and, where it says so, the variant."""
    variants: int = 1
    """Results of each image."""

    @property
    def is_random(self) -> bool:
        """Whether noise decides results, beside their inputs."""
        return True

    def batch_of(self, variant: int) -> int:
        """Return which variants go through the network in one batch with this one: those of the same number."""
        return 1

    def name_of(self, variant: int) -> str:
        """Return what a variant is called where several are shown."""
        return str(variant)

    def grid(self, variant: int = 1) -> Tensor:
        """Return the times of a variant's `trajectory`, from the first to the last."""
        return self.pipeline.grid()

    @property
    def nfe(self) -> int:
        """Forward evaluations of the network for an image, or for the variant that takes most."""
        return self.pipeline.nfe

    @property
    def told(self) -> str:
        """What is done, in a few words."""
        return self.pipeline.sampling

    @abstractmethod
    def results(self, images: Tensor, variants: Sequence[int]) -> Tensor:
        """Return these variants, of one batch, of the results of images [B, C, H, W]: images in [-1, 1], or noise."""

    @abstractmethod
    def trajectory(self, images: Tensor, variants: Sequence[int]) -> Iterator[Tensor]:
        """Yield the same on their way, [B, C, H, W] at each time of the grid."""


@dataclass(frozen=True, kw_only=True)
class Translation(Transform):
    """Carry images from source to target, or back."""

    verb: ClassVar[str] = "translate"
    done: ClassVar[str] = "translated"
    label: int | None = None
    """The class to ask for; None: none, or the one that the pipeline infers."""
    reverse: bool = False
    """Carry images from target back to source."""
    tile: int | None = None
    overlap: int | None = None
    """As for `Pipeline.translate`."""

    @property
    def is_random(self) -> bool:
        """Whether noise decides results, beside their inputs."""
        solver = self.pipeline.config.solver
        return solver.adds_noise or (solver.source_noise > 0 and not self.reverse)

    def grid(self, variant: int = 1) -> Tensor:
        """Return the times of a `trajectory`, from the first to the last."""
        return self.pipeline.grid(reverse=self.reverse)

    def results(self, images: Tensor, variants: Sequence[int]) -> Tensor:
        """Return the translations of images [B, C, H, W]."""
        return self.pipeline.translate(images, self.labels(len(images)), **self.which(images, variants))

    def trajectory(self, images: Tensor, variants: Sequence[int]) -> Iterator[Tensor]:
        """Yield images at every time of the solver's grid: [B, C, H, W]."""
        return self.pipeline.trajectory(images, self.labels(len(images)), **self.which(images, variants))

    def which(self, images: Tensor, variants: Sequence[int]) -> dict[str, Any]:
        """Return the direction, the noise and the tiles of images [B, C, H, W], as `Pipeline.translate` takes them."""
        rows = noise_rows(images, variants) if self.is_random else None
        tiles = {"tile": self.tile, "overlap": self.overlap}
        return {"reverse": self.reverse, "seed": self.seed, "rows": rows, **tiles}

    def labels(self, count: int) -> Tensor | None:
        """Return the class to ask for, int64 [count]; None where none is asked for."""
        return None if self.label is None else torch.full((count,), self.label)


def noise_rows(images: Iterable[Tensor], variants: Sequence[int]) -> list[int]:
    """Return the number of the noise for each of B images [C, H, W] in [-1, 1], by its contents and its variant."""
    digests = (sha256(to_pixels(image).numpy().tobytes()) for image in images)
    return [derive_seed(*((digest,) if k == 1 else (digest, k))) for digest, k in zip(digests, variants, strict=True)]
