"""The images of a folder as tensors: decoded all at once into memory, or batch by batch when they are needed."""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from itertools import count as endless_range
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.images import ReadConfig
from flowferry.configs.layouts import half_in
from flowferry.configs.validation import UserError
from flowferry.datasets.bad_files import MAX_LISTED, BadFiles, Unreadable
from flowferry.datasets.base import Batch
from flowferry.datasets.crops import Place, cropped, places, scaled_size
from flowferry.datasets.framing import Size
from flowferry.datasets.image_formats import FORMATS
from flowferry.datasets.image_io import NOTES, Frame, decode, read
from flowferry.datasets.in_memory import indices_of, order_of
from flowferry.datasets.look_ahead import look_ahead
from flowferry.datasets.pillow_images import orientation
from flowferry.datasets.pixels import to_images

log = logging.getLogger("flowferry")

T = TypeVar("T")
THREADS = min(8, os.cpu_count() or 1)  # that decode
STREAMS = 3  # that are decoded ahead at once: those of the pairs and of a critic, and one that is drawn in between


Wanted = tuple[int, Place | None]
"""The index of an image, and where to crop it, where it is cropped; None: in the middle."""


class ImageFiles:
    """The images of a folder by index, fitted to `shape`: uint8 or uint16 [C, H, W], or a text saying what is wrong.

    names: paths relative to the folder of `config`.
    """

    def __init__(self, config: ImageFolderConfig, names: Sequence[str], shape: tuple[int, int, int]) -> None:
        self.config, self.names, self.shape = config, names, shape
        self.frame = shape[2], shape[1]
        self.half = half_in(config.layout)
        self.notes: dict[str, set[int]] = {}
        """The images that were decoded so far and have one of `image_io.NOTES`, by their indices."""
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor | str:
        return self.load((index, None))

    @property
    def crops(self) -> bool:
        """Whether its images are cropped, not fitted."""
        return self.config.resize == "crop"

    def load(self, wanted: Wanted) -> Tensor | str:
        """Return an image fitted or cropped to `shape`."""
        index, place = wanted
        if not self.crops:
            return self._decoded(index, self.config, self.frame)
        image = self.whole(index)
        return image if isinstance(image, str) else cropped(image, self.frame, place).contiguous()

    def whole(self, index: int) -> Tensor | str:
        """Return all of an image that crops are taken from: uint8 [C, h, w]."""
        return self._decoded(index, replace(self.config, resize="stretch"), self._scaled_size)

    def size(self, index: int) -> Size:
        """Return the (width, height) of `whole`, from the file's header. Raises any error where that cannot be read."""
        with Image.open(Path(self.config.root, self.names[index]), formats=FORMATS) as image:
            width, height = image.size
            width, height = (height, width) if orientation(image) >= 5 else (width, height)
        return self._scaled_size((width // 2 if self.half else width, height))

    def _scaled_size(self, size: Size) -> Size:
        return scaled_size(size, self.frame, self.config.shorter_side)

    def _decoded(self, index: int, reading: ReadConfig, frame: Frame) -> Tensor | str:
        try:
            data = read(Path(self.config.root, self.names[index]))
            decoded = decode(data, self.shape[0], reading, frame, self.half)
            for note in decoded.notes:
                self.notes.setdefault(note, set()).add(index)
            # Copied by NumPy: torch would start threads of its own for it, in each of the threads that decode.
            return torch.from_numpy(np.ascontiguousarray(np.moveaxis(decoded.pixels, -1, 0)))
        except UserError as error:
            return str(error)

    @property
    def bytes_per_value(self) -> int:
        """What a value takes in memory: two bytes where the first image has more than 8 bits, else one."""
        first = self[0]
        return 1 if isinstance(first, str) else first.dtype.itemsize

    def tell_notes(self) -> None:
        """Log which images so far have a note that was not told before, a line for each."""
        for note in sorted(self.notes.keys() - self._told):
            self._told.add(note)
            found = sorted(self.notes[note])
            listed = ", ".join(self.names[index] for index in found[:MAX_LISTED]) + ", …" * (len(found) > MAX_LISTED)
            count = f"{len(found):,} image" + "s" * (len(found) > 1)
            log.warning("%s: %s had %s: %s", self.config.root, count, NOTES[note], listed)

    def batch(self, wanted: Sequence[Wanted]) -> list[Tensor | str]:
        """Return images as `load` does, decoded in this thread."""
        return [self.load(one) for one in wanted]


class Streamed:
    """Images that are decoded batch by batch, in the order of `InMemory`.

    While the batches of a stream are drawn one after the other, threads decode its next two ahead. Several streams may
    be drawn in turn: those of the pairs and of a critic. The last batch is kept, because a noisy source draws it from
    its target before the target itself is drawn. labels: int64 [N] on the CPU, or None. anywhere: crop at random
    places, not in the middle, where images are cropped. A draw raises BadFiles where some of its files cannot be read.
    """

    def __init__(
        self, files: ImageFiles, labels: Tensor | None, *, num_classes: int, device: torch.device, anywhere: bool
    ) -> None:
        self.files, self.labels, self.device, self.anywhere = files, labels, device, anywhere and files.crops
        self.shape, self.num_classes, self.size = files.shape, num_classes, len(files)
        self._streams: OrderedDict[tuple[int, int], tuple[int, Iterator[Tensor | str]]] = OrderedDict()
        """By count and seed, the latest last: the step that follows, and the images from there on, by threads."""
        self._last: tuple[tuple[int, int, int], Tensor] | None = None
        """The count, seed and step of the last draw, and its pixels [count, C, H, W] on the CPU."""

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` images, of the stream that `seed` names."""
        wanted, asked = self._wanted(count, seed, step), (count, seed, step)
        chosen = [index for index, _ in wanted]
        if self._last is None or self._last[0] != asked:
            self._last = None  # freed before the next is decoded
            self._last = asked, stacked(self.files, chosen, self._decoded(wanted, seed, step))
        images = to_images(self._last[1].to(self.device))
        return Batch(images, None if self.labels is None else self.labels[chosen].to(self.device))

    def _decoded(self, wanted: list[Wanted], seed: int, step: int) -> list[Tensor | str]:
        """Return the images of a batch, by threads where it follows the last one of its stream."""
        count = len(wanted)
        expected, ahead = self._streams.pop((count, seed), (None, iter(())))
        if step == expected:
            decoded = list(islice(ahead, count))
        else:
            later = (self._wanted(count, seed, following) for following in endless_range(step + 1))
            ahead = decode_ahead(self.files.load, chain.from_iterable(later), depth=2 * count)  # when first asked
            decoded = self.files.batch(wanted)
        self._streams[count, seed] = step + 1, ahead
        if len(self._streams) > STREAMS:
            self._streams.popitem(last=False)
        return decoded

    def sample_by_label(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Return a random image of each of the labels int64 [B], decoded in this thread."""
        chosen = indices_of(labels.cpu(), self.labels, seed, step).tolist()
        wanted = list(zip(chosen, places(len(chosen), seed, step, anywhere=self.anywhere), strict=True))
        return Batch(to_images(stacked(self.files, chosen, self.files.batch(wanted)).to(self.device)), labels)

    def _wanted(self, count: int, seed: int, step: int) -> list[Wanted]:
        chosen = order_of(self.size, torch.device("cpu"), step * count, (step + 1) * count, seed).tolist()
        return list(zip(chosen, places(count, seed, step, anywhere=self.anywhere), strict=True))


def decode_ahead(do: Callable[[T], Tensor | str], wanted: Iterable[T], *, depth: int) -> Iterator[Tensor | str]:
    """Yield do(one) for each image that is wanted, in order; threads decode up to `depth` images ahead.

    Pillow decodes and scales without the interpreter's lock, so threads are as fast as worker processes (measured in
    docs/training.md). They need no shared memory, which containers are short of, no pipes, and no time to start.
    """
    return look_ahead(do, wanted, threads=THREADS, depth=depth)


def checked(files: ImageFiles, indices: Sequence[int], decoded: Sequence[Tensor | str]) -> list[Tensor]:
    """Return the images with these indices, all as uint8, or as uint16 where any of them has more than 8 bits.

    Tells what is worth telling of them. Raises BadFiles where some could not be read.
    """
    files.tell_notes()
    pairs = zip(indices, decoded, strict=True)
    if reasons := {files.names[index]: one for index, one in pairs if isinstance(one, str)}:
        raise BadFiles(Unreadable(files.config.root, reasons))
    images = [one for one in decoded if not isinstance(one, str)]
    if len({one.dtype for one in images}) > 1:
        images = [sixteen_bit(one) for one in images]
    return images


def sixteen_bit(pixels: Tensor) -> Tensor:
    """Return pixels uint8 or uint16 as uint16, where 65535 is white."""
    return pixels if pixels.dtype == torch.uint16 else (pixels.int() * 257).to(torch.uint16)


def stacked(files: ImageFiles, indices: Sequence[int], decoded: Sequence[Tensor | str]) -> Tensor:
    """Return the images with these indices as one tensor [N, C, H, W]. Raises BadFiles as `checked` does."""
    return torch.stack(checked(files, indices, decoded))


def load_all(files: ImageFiles) -> Tensor:
    """Return all images as one tensor [N, C, H, W]. Raises BadFiles where some cannot be read."""
    return torch.stack(load_each(files, files.__getitem__))


def load_whole(files: ImageFiles) -> list[Tensor]:
    """Return all of each image that crops are taken from, [C, h, w]. Raises BadFiles as `load_all` does."""
    return load_each(files, files.whole)


def load_each(files: ImageFiles, load: Callable[[int], Tensor | str]) -> list[Tensor]:
    """Return what `load` gives for each index, computed in threads. Raises BadFiles as `load_all` does."""
    everything = range(len(files))
    decoded = decode_ahead(load, everything, depth=4 * THREADS)
    bar = tqdm(decoded, desc=files.config.root, total=len(files), unit="image", leave=False, delay=2)
    return checked(files, everything, list(bar))
