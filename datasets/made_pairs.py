"""Pairs that a trained pipeline made, kept as numbers: source samples and what became of them."""

from typing import NamedTuple

from torch import Tensor

from flowferry.datasets.base import Batch
from flowferry.datasets.in_memory import order_of
from flowferry.datasets.pixels import to_images, to_pixels


class MadePairs(NamedTuple):
    """N pairs of a source sample, without noise, and what became of it."""

    source: Tensor
    """[N, *shape], as `to_stored` returns them."""
    target: Tensor
    """Likewise."""
    labels: Tensor | None
    """The classes that were asked for, int64 [N] in [0, num_classes], with num_classes for none; None without any."""
    num_classes: int

    @property
    def sides(self) -> "tuple[Side, Side]":
        """The source and the target as samplers whose batches of one seed and step are paired row by row."""
        return Side(self.source, self), Side(self.target, self)


class Side:
    """One side of pairs, held as numbers and read in a new order each epoch; the other side is read in the same."""

    def __init__(self, stored: Tensor, pairs: MadePairs) -> None:
        self.stored, self.labels, self.num_classes = stored, pairs.labels, pairs.num_classes
        self.shape, self.size = tuple(stored.shape[1:]), len(stored)

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` samples, of the stream that `seed` names."""
        rows = order_of(self.size, self.stored.device, step * count, (step + 1) * count, seed)
        return Batch(from_stored(self.stored[rows]), None if self.labels is None else self.labels[rows])


def to_stored(samples: Tensor, *, are_images: bool) -> Tensor:
    """Return samples [B, …] as they are kept: images as uint8, other numbers in half precision."""
    return to_pixels(samples) if are_images else samples.half()


def from_stored(stored: Tensor) -> Tensor:
    """Return samples [B, …] in float32, images in [-1, 1], of what `to_stored` returned."""
    return stored.float() if stored.is_floating_point() else to_images(stored)
