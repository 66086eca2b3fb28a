"""The contract of every source and target."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from configs.checks import UserError
from configs.parts import AugmentConfig
from datasets.augment import augmented
from datasets.keyed import generator, permutation
from datasets.pixels import to_images


class Batch(NamedTuple):
    """Samples [B, *shape], images in [-1, 1]; their labels int64 [B], or None where there are none."""

    samples: Tensor
    labels: Tensor | None

    def at(self, rows: Tensor | slice) -> "Batch":
        """The chosen rows, labels with their samples."""
        return Batch(self.samples[rows], None if self.labels is None else self.labels[rows])


class Sampler(Protocol):
    """An endless stream of batches that can be entered at any step."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        ...

    @property
    def classes(self) -> int:
        """How many labels there are; 0: unlabelled."""
        ...

    @property
    def size(self) -> int | None:
        """Samples in one epoch; None: endless."""
        ...

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Batch number `step`, of `count` samples, of the stream that `seed` names."""
        ...


@runtime_checkable
class Labelled(Sampler, Protocol):
    """A sampler that can be asked for labels."""

    def of_labels(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Batch number `step` of the stream that `seed` names: a random sample of each of the labels int64 [B].

        Of no label twice the same sample, as far as there are enough. Raises UserError for a label without samples.
        """
        ...


class InMemory:
    """Images held as uint8 on the device, gathered there. Each epoch is a permutation: every image once.

    Batch `step` is samples step·count … (step+1)·count of one sequence, whatever the count.
    images: uint8 [N, C, H, W]; labels: int64 [N], or None.
    """

    def __init__(self, images: Tensor, labels: Tensor | None, *, classes: int, device: torch.device) -> None:
        self.images, self.labels = images.to(device), None if labels is None else labels.to(device)
        self.shape, self.classes, self.size = tuple(images.shape[1:]), classes, len(images)

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        chosen = order_of(self.size, self.images.device, step * count, (step + 1) * count, seed)
        return Batch(to_images(self.images[chosen]), None if self.labels is None else self.labels[chosen])

    def of_labels(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        chosen = indices_of(labels, self.labels, seed, step)
        return Batch(to_images(self.images[chosen]), labels)


def indices_of(wanted: Tensor, labels: Tensor | None, seed: int, step: int) -> Tensor:
    """Which samples to give for the labels `wanted` [B], out of those whose labels are `labels` [N]: int64 [B]."""
    if labels is None:
        raise UserError("samples of given labels were asked of data without labels")
    chosen = torch.empty_like(wanted)
    for label in wanted.unique().tolist():
        rows, members = (wanted == label).nonzero()[:, 0], (labels == label).nonzero()[:, 0]
        if not len(members):
            raise UserError(f"samples of label {label} were asked, found are those of {labels.unique().tolist()}")
        order = torch.randperm(len(members), generator=generator("cpu", seed, "label", label, step))
        chosen[rows] = members[order.to(members.device)[torch.arange(len(rows), device=members.device) % len(members)]]
    return chosen


def order_of(size: int, device: torch.device, start: int, stop: int, seed: int) -> Tensor:
    """Samples start … stop of the stream over `size` items: int64 indices. Epoch e is e·size … (e+1)·size."""
    parts = []
    for epoch in range(start // size, (stop - 1) // size + 1):
        order = permutation(size, device, seed, "epoch", epoch)
        first = epoch * size
        parts.append(order[max(start - first, 0) : stop - first])
    return torch.cat(parts)


class Noisy:
    """z = x + σ·ε: another sampler's images, in the same order, with Gaussian noise. Not clipped to [-1, 1].

    sigma: where black is 0 and white is 1, and so twice as much in [-1, 1].
    """

    def __init__(self, clean: Sampler, sigma: float) -> None:
        self.clean, self.sigma = clean, sigma
        self.shape, self.classes, self.size = clean.shape, clean.classes, clean.size

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        x, labels = self.clean.draw(count, seed=seed, step=step)
        g = generator(x.device, seed, "noisy", step)
        return Batch(x + 2 * self.sigma * torch.randn(x.shape, generator=g, device=x.device), labels)


class Augmented:
    """Another sampler's images, in the same order, each changed at random. Two of one seed and step change alike."""

    def __init__(self, plain: Labelled, how: AugmentConfig) -> None:
        self.plain, self.how = plain, how
        self.shape, self.classes, self.size = plain.shape, plain.classes, plain.size

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        return self._augmented(self.plain.draw(count, seed=seed, step=step), seed, step)

    def of_labels(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        return self._augmented(self.plain.of_labels(labels, seed=seed, step=step), seed, step)

    def _augmented(self, batch: Batch, seed: int, step: int) -> Batch:
        g = generator(batch.samples.device, seed, "augment", step)
        return Batch(augmented(batch.samples, self.how, g), batch.labels)
