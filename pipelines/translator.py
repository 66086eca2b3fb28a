"""Files through a pipeline: one image's way, and a stream of them with reading, computing and writing overlapped."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor

from configs.checks import UserError
from configs.cli import TranslateOptions
from configs.parts import ImageFolderConfig
from datasets.imagefiles import decode, framed, read, restored, to_tensor
from datasets.pixels import to_pil
from datasets.tree import Item
from pipelines.outputs import Entry, Outputs, sha256
from pipelines.pipeline import Pipeline

FILE_THREADS = 4  # that read, and as many that write, beside the computing

T = TypeVar("T")
R = TypeVar("R")


class Loaded(NamedTuple):
    """A file that is to be translated."""

    item: Item
    digest: str
    image: Tensor
    """[C, H, W] in [-1, 1], in the network's frame."""
    size: tuple[int, int]
    """(width, height) of the upright image."""
    animated: bool


class Framing(NamedTuple):
    """How an image comes to the network's size, and the colour under and around it."""

    resize: str
    background: str


class Ended(NamedTuple):
    """A file of which there is nothing left to do: what the journal is to say of it."""

    what: str
    """ "translated", "already there" or "failed"."""
    entry: Entry


@dataclass(frozen=True)
class Translator:
    """The path of one image from a file's bytes to a file's bytes, and of a batch through the network."""

    pipeline: Pipeline
    options: TranslateOptions

    @property
    def framing(self) -> Framing:
        """As asked, else as the images that the network was trained on."""
        config, options = self.pipeline.config, self.options
        start = config.target if options.reverse else config.source
        trained = start if isinstance(start, ImageFolderConfig) else ImageFolderConfig()
        return Framing(options.resize or trained.resize, options.background or trained.background)

    def load(self, root: Path, outputs: Outputs | None, job: tuple[Item, Entry | None]) -> Loaded | Ended:
        """Reads, checks and frames one file; nothing of that if it is done already."""
        item, before = job
        try:
            if item.problem:
                raise UserError(item.problem)
            data = read(root / item.name)
            digest = sha256(data)
            if outputs is not None and before is not None and outputs.is_done(before, item.output, digest):
                return Ended("already there", before)
            channels, height, width = self.pipeline.config.shape
            image, animated = decode(data, channels, self.framing.background)
            frame = framed(image, (width, height), *self.framing)
            return Loaded(item, digest, to_tensor(frame), image.size, animated)
        except UserError as error:
            return failed(item, error)

    def carry(self, images: list[Tensor]) -> Tensor:
        """[C, H, W] each -> [B, C, H, W] on the CPU, computed in whole blocks."""
        x = torch.stack(images)
        x = torch.cat([x, x[:1].expand(-len(x) % self.pipeline.block, *x.shape[1:])])
        labels, reverse = self.labels(len(x)), self.options.reverse
        return self.pipeline.translate(x, labels, reverse=reverse)[: len(images)].cpu()

    def way(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> every point of the way [steps + 1, B, C, H, W], on the CPU."""
        points = self.pipeline.trajectory(images, self.labels(len(images)), reverse=self.options.reverse)
        return torch.stack([x.cpu() for x in points])

    def labels(self, count: int) -> Tensor | None:
        return None if self.options.labels is None else torch.full((count,), self.options.labels)

    def encode(self, result: Tensor, size: tuple[int, int]) -> bytes:
        """A result [C, H, W] as a PNG file, at the input's size if that was asked for."""
        image = to_pil(result)
        if self.options.restore_size:
            image = restored(image, size, *self.framing)
        return png(image)


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def failed(item: Item, error: Exception) -> Ended:
    return Ended("failed", {"input": item.name, "error": str(error)})


def carried(translator: Translator, outputs: Outputs, root: Path, items: Iterable[Item]) -> Iterator[Ended]:
    """Each item's end, in order. Reading, computing and writing go on at the same time, a few batches at most."""
    done = outputs.done_before()
    size = translator.options.batch_size
    with ThreadPoolExecutor(FILE_THREADS) as reading, ThreadPoolExecutor(FILE_THREADS) as writing:
        jobs = ((item, done.find(item.name)) for item in items)
        loaded = ahead(reading, partial(translator.load, root, outputs), jobs, depth=2 * size)
        writes: deque[list[Future[Ended]]] = deque()
        for batch in batches(loaded, size):
            images = [one.image for one in batch if isinstance(one, Loaded)]
            results = iter(translator.carry(images) if images else ())
            writes.append(
                [
                    writing.submit(finish, translator, outputs, one, next(results) if isinstance(one, Loaded) else None)
                    for one in batch
                ]
            )
            if len(writes) > 1:
                yield from journaled(outputs, writes.popleft())
        for last in writes:
            yield from journaled(outputs, last)


def ahead(pool: ThreadPoolExecutor, do: Callable[[T], R], items: Iterable[T], depth: int) -> Iterator[R]:
    """`pool.map` that looks at most `depth` items ahead."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(do, item))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def batches(loaded: Iterable[Loaded | Ended], size: int) -> Iterator[list[Loaded | Ended]]:
    """In order, with `size` images to translate in each, and at most eight times as many files in all."""
    batch: list[Loaded | Ended] = []
    images = 0
    for one in loaded:
        batch.append(one)
        images += isinstance(one, Loaded)
        if images == size or len(batch) == 8 * size:
            yield batch
            batch, images = [], 0
    if batch:
        yield batch


def finish(translator: Translator, outputs: Outputs, one: Loaded | Ended, result: Tensor | None) -> Ended:
    """Writes the result of a file, if it has one."""
    if isinstance(one, Ended) or result is None:
        assert isinstance(one, Ended), "whatever is loaded has a result"
        return one
    try:
        written = outputs.write(one.item.output, translator.encode(result, one.size))
    except OSError as error:
        return failed(one.item, OSError(f"cannot be written ({error.strerror or error})"))
    entry: dict[str, Any] = {"input": one.item.name, "output": one.item.output, "input_sha256": one.digest}
    entry |= {"output_sha256": written, "animated": one.animated}
    return Ended("translated", entry)


def journaled(outputs: Outputs, writes: list[Future[Ended]]) -> list[Ended]:
    """A batch whose files are written: noted, so that they need not be done again."""
    batch = [write.result() for write in writes]
    outputs.journal("done", [one.entry for one in batch if one.what != "failed"])
    outputs.journal("failed", [one.entry for one in batch if one.what == "failed"])
    return batch
