"""Crops: parts of the pipeline's size, cut out of images of any size, at random places in training."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flowferry.datasets.base import Batch
from flowferry.datasets.framing import Size
from flowferry.datasets.in_memory import indices_of, order_of
from flowferry.datasets.pixels import to_images
from flowferry.datasets.rng import generator


class Place(NamedTuple):
    """Where a crop lies: 0 at the upper or the left end of what is possible, and below 1 at the other end."""

    down: float
    across: float


def places(count: int, seed: int, step: int, *, anywhere: bool) -> Sequence[Place | None]:
    """Draw where the crops of a batch lie, a function of (seed, step); None, in the middle, unless `anywhere`.

    So partners, which share seed and step, are cropped alike.
    """
    if not anywhere:
        return [None] * count
    drawn = torch.rand(count, 2, generator=generator("cpu", seed, "crop", step), dtype=torch.float64)
    return [Place(*place) for place in drawn.tolist()]


def corner(size: Size, frame: Size, place: Place | None) -> tuple[int, int]:
    """Return (left, top) of the crop of size `frame` at a place in an image of `size`; None: in its middle."""
    free = size[0] - frame[0], size[1] - frame[1]
    if place is None:
        return free[0] // 2, free[1] // 2
    return int(place.across * (free[0] + 1)), int(place.down * (free[1] + 1))


def scaled_size(size: Size, frame: Size, shorter_side: int) -> Size:
    """Return the size to which an image is scaled before it is cropped.

    Its shorter side gets `shorter_side` pixels, for 0 as many as it has; but in every direction it gets as many as the
    frame at least.
    """
    scale = shorter_side / min(size) if shorter_side else 1.0
    scale = max(scale, frame[0] / size[0], frame[1] / size[1])
    return max(frame[0], round(size[0] * scale)), max(frame[1], round(size[1] * scale))


def cropped(image: Tensor, frame: Size, place: Place | None) -> Tensor:
    """Return the crop of size `frame` at a place in an image [C, h, w]; None: in its middle."""
    left, top = corner((image.shape[2], image.shape[1]), frame, place)
    return image[:, top : top + frame[1], left : left + frame[0]]


class Crops:
    """Images of any size, held as uint8 [C, h, w] on the CPU, of which crops are drawn in the order of `InMemory`.

    shape: (C, H, W) of a crop; labels: int64 [N], or None; anywhere: crop at random places, not in the middle.
    """

    def __init__(
        self,
        images: Sequence[Tensor],
        shape: tuple[int, int, int],
        labels: Tensor | None,
        *,
        num_classes: int,
        device: torch.device,
        anywhere: bool,
    ) -> None:
        self.images, self.shape, self.labels, self.device, self.anywhere = images, shape, labels, device, anywhere
        self.num_classes, self.size = num_classes, len(images)

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` samples, of the stream that `seed` names."""
        chosen = order_of(self.size, torch.device("cpu"), step * count, (step + 1) * count, seed)
        labels = None if self.labels is None else self.labels[chosen].to(self.device)
        return Batch(self._crops(chosen, seed, step), labels)

    def sample_by_label(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Return a random sample of each of the labels int64 [B]. Raises UserError for a label without samples."""
        chosen = indices_of(labels.cpu(), self.labels, seed, step)
        return Batch(self._crops(chosen, seed, step), labels)

    def _crops(self, chosen: Tensor, seed: int, step: int) -> Tensor:
        _, height, width = self.shape
        wanted = zip(chosen.tolist(), places(len(chosen), seed, step, anywhere=self.anywhere), strict=True)
        crops = [cropped(self.images[index], (width, height), place) for index, place in wanted]
        return to_images(torch.stack(crops).to(self.device))
