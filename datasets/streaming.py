"""The images of a folder as tensors: decoded all at once into memory, or batch by batch when they are needed."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import count as endless_range
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.bad_files import BadFiles, Unreadable
from flowferry.datasets.base import Batch
from flowferry.datasets.image_io import decode, framed, pixels_of, read
from flowferry.datasets.in_memory import indices_of, order_of
from flowferry.datasets.pixels import to_images

BLOCK = 512  # images that a worker decodes at a time; fewer are decoded sooner than worker processes are started


class ImageFiles(Dataset[Tensor | str]):
    """The images of a folder by index, fitted to `shape` (C, H, W): uint8 [C, H, W], or a text saying what is wrong.

    names: paths relative to the folder of `config`.
    """

    def __init__(self, config: ImageFolderConfig, names: Sequence[str], shape: tuple[int, int, int]) -> None:
        self.config, self.names, self.shape = config, names, shape

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor | str:
        channels, height, width = self.shape
        try:
            image = decode(read(Path(self.config.root, self.names[index])), channels, self.config.background).image
            return pixels_of(framed(image, (width, height), self.config.resize, self.config.background)).contiguous()
        except UserError as error:
            return str(error)

    def batch(self, indices: Sequence[int]) -> list[Tensor | str]:
        """Return the images with these indices, decoded in this process."""
        return [self[index] for index in indices]


class Streamed:
    """Images that are decoded batch by batch, in the order of `InMemory`.

    While batches are drawn one after the other, worker processes decode the next ones ahead. labels: int64 [N] on the
    CPU, or None. A draw raises BadFiles where some of its files cannot be read.
    """

    def __init__(self, files: ImageFiles, labels: Tensor | None, *, num_classes: int, device: torch.device) -> None:
        self.files, self.labels, self.device = files, labels, device
        self.shape, self.num_classes, self.size = files.shape, num_classes, len(files)
        self._next: tuple[int, int, int] | None = None
        """The count, seed and step of the draw that would follow the last one."""
        self._ahead: Iterator[list[Tensor | str]] | None = None
        """The batches from the next one on, decoded by workers."""

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` images, of the stream that `seed` names."""
        chosen = self._indices(count, seed, step)
        if (count, seed, step) != self._next:
            self._ahead, decoded = None, self.files.batch(chosen)
        else:
            if self._ahead is None:
                batches = (self._indices(count, seed, later) for later in endless_range(step))
                self._ahead = iter(decode_ahead(self.files, batches))
            decoded = next(self._ahead)
        self._next = (count, seed, step + 1)
        images = to_images(stack(self.files, chosen, decoded).to(self.device))
        return Batch(images, None if self.labels is None else self.labels[chosen].to(self.device))

    def sample_by_label(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Return a random image of each of the labels int64 [B], decoded in this process."""
        chosen = indices_of(labels.cpu(), self.labels, seed, step).tolist()
        images = stack(self.files, chosen, self.files.batch(chosen))
        return Batch(to_images(images.to(self.device)), labels)

    def _indices(self, count: int, seed: int, step: int) -> list[int]:
        return order_of(self.size, torch.device("cpu"), step * count, (step + 1) * count, seed).tolist()


def decode_ahead(files: ImageFiles, batches: Iterable[Sequence[int]]) -> DataLoader:
    """Return an iterable of the decoded `batches` of indices, in order; worker processes run a few batches ahead."""
    return DataLoader(
        files,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=min(8, os.cpu_count() or 1),
        collate_fn=list,
    )


def stack(files: ImageFiles, indices: Sequence[int], decoded: Sequence[Tensor | str]) -> Tensor:
    """Return the images with these indices as uint8 [N, C, H, W]. Raises BadFiles where some could not be read."""
    pairs = zip(indices, decoded, strict=True)
    if reasons := {files.names[index]: one for index, one in pairs if isinstance(one, str)}:
        raise BadFiles(Unreadable(files.config.root, reasons))
    return torch.stack([one for one in decoded if not isinstance(one, str)])


def load_all(files: ImageFiles) -> Tensor:
    """Return all images as uint8 [N, C, H, W]. Raises BadFiles where some cannot be read."""
    everything = range(len(files))
    if len(files) <= BLOCK:
        return stack(files, everything, files.batch(everything))
    blocks = [range(start, min(start + BLOCK, len(files))) for start in range(0, len(files), BLOCK)]
    decoded: list[Tensor | str] = []
    for block in tqdm(decode_ahead(files, blocks), desc=files.config.root, unit=f"×{BLOCK} images", leave=False):
        decoded += block
    return stack(files, everything, decoded)
