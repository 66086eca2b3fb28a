"""The images of a folder as tensors: decoded all at once into memory, or batch by batch when they are needed."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from itertools import count as endless_range
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.bad_files import MAX_LISTED, BadFiles, Unreadable
from flowferry.datasets.base import Batch
from flowferry.datasets.image_io import NOTES, decode, pixels_of, read
from flowferry.datasets.in_memory import indices_of, order_of
from flowferry.datasets.look_ahead import look_ahead
from flowferry.datasets.pixels import to_images

log = logging.getLogger("flowferry")

THREADS = min(8, os.cpu_count() or 1)  # that decode


class ImageFiles:
    """The images of a folder by index, fitted to `shape` (C, H, W): uint8 [C, H, W], or a text saying what is wrong.

    names: paths relative to the folder of `config`.
    """

    def __init__(self, config: ImageFolderConfig, names: Sequence[str], shape: tuple[int, int, int]) -> None:
        self.config, self.names, self.shape = config, names, shape
        self.notes: dict[str, set[int]] = {}
        """The images that were decoded so far and have one of `image_io.NOTES`, by their indices."""
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor | str:
        channels, height, width = self.shape
        try:
            data = read(Path(self.config.root, self.names[index]))
            decoded = decode(data, channels, self.config, (width, height))
            for note in decoded.notes:
                self.notes.setdefault(note, set()).add(index)
            pixels = pixels_of(decoded.image)
            # Copied by NumPy: torch would start threads of its own for it, in each of the threads that decode.
            return torch.from_numpy(np.ascontiguousarray(pixels.numpy()))
        except UserError as error:
            return str(error)

    def tell_notes(self) -> None:
        """Log which images so far have a note that was not told before, a line for each."""
        for note in sorted(self.notes.keys() - self._told):
            self._told.add(note)
            found = sorted(self.notes[note])
            listed = ", ".join(self.names[index] for index in found[:MAX_LISTED]) + ", …" * (len(found) > MAX_LISTED)
            count = f"{len(found):,} image" + "s" * (len(found) > 1)
            log.warning("%s: %s had %s: %s", self.config.root, count, NOTES[note], listed)

    def batch(self, indices: Sequence[int]) -> list[Tensor | str]:
        """Return the images with these indices, decoded in this thread."""
        return [self[index] for index in indices]


class Streamed:
    """Images that are decoded batch by batch, in the order of `InMemory`.

    While batches are drawn one after the other, threads decode the next two ahead. labels: int64 [N] on the CPU, or
    None. A draw raises BadFiles where some of its files cannot be read.
    """

    def __init__(self, files: ImageFiles, labels: Tensor | None, *, num_classes: int, device: torch.device) -> None:
        self.files, self.labels, self.device = files, labels, device
        self.shape, self.num_classes, self.size = files.shape, num_classes, len(files)
        self._next: tuple[int, int, int] | None = None
        """The count, seed and step of the draw that would follow the last one."""
        self._ahead: Iterator[Tensor | str] | None = None
        """The images from the next batch on, decoded by threads."""

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` images, of the stream that `seed` names."""
        chosen = self._indices(count, seed, step)
        if (count, seed, step) != self._next:
            self._ahead, decoded = None, self.files.batch(chosen)
        else:
            if self._ahead is None:
                batches = (self._indices(count, seed, later) for later in endless_range(step))
                self._ahead = decode_ahead(self.files, chain.from_iterable(batches), depth=2 * count)
            decoded = list(islice(self._ahead, count))
        self._next = (count, seed, step + 1)
        images = to_images(stack(self.files, chosen, decoded).to(self.device))
        return Batch(images, None if self.labels is None else self.labels[chosen].to(self.device))

    def sample_by_label(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Return a random image of each of the labels int64 [B], decoded in this thread."""
        chosen = indices_of(labels.cpu(), self.labels, seed, step).tolist()
        images = stack(self.files, chosen, self.files.batch(chosen))
        return Batch(to_images(images.to(self.device)), labels)

    def _indices(self, count: int, seed: int, step: int) -> list[int]:
        return order_of(self.size, torch.device("cpu"), step * count, (step + 1) * count, seed).tolist()


def decode_ahead(files: ImageFiles, indices: Iterable[int], *, depth: int) -> Iterator[Tensor | str]:
    """Yield the images with these indices in order; threads decode up to `depth` images ahead.

    Pillow decodes and scales without the interpreter's lock, so threads are as fast as worker processes (measured in
    docs/training.md). They need no shared memory, which containers are short of, no pipes, and no time to start.
    """
    return look_ahead(files.__getitem__, indices, threads=THREADS, depth=depth)


def stack(files: ImageFiles, indices: Sequence[int], decoded: Sequence[Tensor | str]) -> Tensor:
    """Return the images with these indices as uint8 [N, C, H, W]; tell what is worth telling of them.

    Raises BadFiles where some could not be read.
    """
    files.tell_notes()
    pairs = zip(indices, decoded, strict=True)
    if reasons := {files.names[index]: one for index, one in pairs if isinstance(one, str)}:
        raise BadFiles(Unreadable(files.config.root, reasons))
    return torch.stack([one for one in decoded if not isinstance(one, str)])


def load_all(files: ImageFiles) -> Tensor:
    """Return all images as uint8 [N, C, H, W]. Raises BadFiles where some cannot be read."""
    everything = range(len(files))
    decoded = decode_ahead(files, everything, depth=4 * THREADS)
    bar = tqdm(decoded, desc=files.config.root, total=len(files), unit="image", leave=False, delay=2)
    return stack(files, everything, list(bar))
