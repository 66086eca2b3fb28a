"""Pairs that a trained pipeline made, kept as numbers: source samples and what became of them."""

from typing import NamedTuple

from torch import Tensor

from flowferry.datasets.base import Batch
from flowferry.datasets.in_memory import order_of
from flowferry.datasets.pixels import to_images, to_pixels
from flowferry.datasets.rng import normal_rows


class MadePairs(NamedTuple):
    """N pairs; the source is kept without its noise, which is drawn again."""

    source: Tensor
    """[N, *shape], as `to_stored` returns them."""
    target: Tensor
    """Likewise."""
    labels: Tensor | None
    """The classes that were asked for, int64 [N] in [0, num_classes], with num_classes for none; None without any."""
    num_classes: int
    noise: float
    """Standard deviation of the noise on each source sample, which belongs to its pair."""
    seed: int
    """Of that noise."""

    @property
    def sides(self) -> "tuple[Side, Side]":
        """The source and the target as samplers whose batches of one seed and step are paired row by row."""
        return Side(self, is_source=True), Side(self, is_source=False)


class Side:
    """One side of pairs, held as numbers and read in a new order each epoch; the other side is read in the same."""

    def __init__(self, pairs: MadePairs, *, is_source: bool) -> None:
        self.pairs, self.is_source = pairs, is_source
        self.stored = pairs.source if is_source else pairs.target
        self.shape, self.num_classes, self.size = tuple(self.stored.shape[1:]), pairs.num_classes, len(self.stored)

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` samples, of the stream that `seed` names."""
        rows = order_of(self.size, self.stored.device, step * count, (step + 1) * count, seed)
        samples = from_stored(self.stored[rows])
        if self.is_source:
            samples = with_noise(samples, self.pairs.noise, self.pairs.seed, rows.tolist())
        return Batch(samples, None if self.pairs.labels is None else self.pairs.labels[rows])


def to_stored(samples: Tensor, *, are_images: bool) -> Tensor:
    """Return samples [B, …] as they are kept: images as uint8, other numbers in half precision."""
    return to_pixels(samples) if are_images else samples.half()


def from_stored(stored: Tensor) -> Tensor:
    """Return samples [B, …] in float32, images in [-1, 1], of what `to_stored` returned."""
    return stored.float() if stored.is_floating_point() else to_images(stored)


def with_noise(samples: Tensor, std: float, seed: int, rows: list[int]) -> Tensor:
    """Return samples [B, …] plus noise of standard deviation `std`, a function of (seed, rows[i]) for sample i."""
    return samples + std * normal_rows(seed, rows)(samples) if std else samples
