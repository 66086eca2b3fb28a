"""Images in memory, and the order in which any finite data set is read."""

import torch
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.base import Batch
from flowferry.datasets.pixels import to_images
from flowferry.datasets.rng import generator, permutation


class InMemory:
    """Images held as uint8 or uint16 on the device and gathered there. Each epoch is a permutation: every image once.

    Batch `step` is samples step·count … (step+1)·count of one sequence, whatever the count.
    images: uint8 or uint16 [N, C, H, W]; labels: int64 [N], or None.
    """

    def __init__(self, images: Tensor, labels: Tensor | None, *, num_classes: int, device: torch.device) -> None:
        self.images, self.labels = images.to(device), None if labels is None else labels.to(device)
        self.shape, self.num_classes, self.size = tuple(images.shape[1:]), num_classes, len(images)

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` samples, of the stream that `seed` names."""
        chosen = order_of(self.size, self.images.device, step * count, (step + 1) * count, seed)
        return Batch(to_images(self.images[chosen]), None if self.labels is None else self.labels[chosen])

    def sample_by_label(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Return a random sample of each of the labels int64 [B]. Raises UserError for a label without samples."""
        chosen = indices_of(labels, self.labels, seed, step)
        return Batch(to_images(self.images[chosen]), labels)


def indices_of(wanted: Tensor, labels: Tensor | None, seed: int, step: int) -> Tensor:
    """Return indices int64 [B] of samples with the labels `wanted` [B], among samples with the labels `labels` [N].

    Raises UserError for a label without samples.
    """
    if labels is None:
        raise UserError("samples of given labels: got data without labels, expected labeled data")
    chosen = torch.empty_like(wanted)
    for label in wanted.unique().tolist():
        rows, members = (wanted == label).nonzero()[:, 0], (labels == label).nonzero()[:, 0]
        if not len(members):
            raise UserError(f"samples of given labels: got label {label}, expected one of {labels.unique().tolist()}")
        order = torch.randperm(len(members), generator=generator("cpu", seed, "label", label, step))
        chosen[rows] = members[order.to(members.device)[torch.arange(len(rows), device=members.device) % len(members)]]
    return chosen


def order_of(size: int, device: torch.device, start: int, stop: int, seed: int) -> Tensor:
    """Return the indices int64 of samples start … stop of the stream over `size` items, each once per epoch."""
    parts = []
    for epoch in range(start // size, (stop - 1) // size + 1):
        order = permutation(size, device, seed, "epoch", epoch)
        first = epoch * size
        parts.append(order[max(start - first, 0) : stop - first])
    return torch.cat(parts)
