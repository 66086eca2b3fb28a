"""Translate image files: one at a time, and a stream of them with reading, computing and writing overlapped."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import torch
from torch import Tensor

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import DISK_ERRORS, BrokenOff, UserError
from flowferry.datasets.file_tree import Item
from flowferry.datasets.framing import restored_image
from flowferry.datasets.image_io import Decoded, decode, read, to_tensor
from flowferry.datasets.image_writing import WRITTEN, encode
from flowferry.datasets.look_ahead import each, look_ahead, split
from flowferry.pipelines.hardware import networks_at_once
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.translation.entries import Entry, begun, sha256
from flowferry.pipelines.translation.files import (
    Loaded,
    LoadedImage,
    Result,
    Written,
    failure,
    format_of,
    reading_of_result,
)
from flowferry.pipelines.translation.manifest import Manifest
from flowferry.pipelines.translation.sizes import OF_NETWORK, Sizes, blocks
from flowferry.pipelines.translation.transforms import Transform

FILE_THREADS = 4  # threads that read files, and as many that write the results of a batch each
SMALL = 64 * 64  # pixels of an image, of which several batches are computed at a time: a larger one fills all cores


@dataclass(frozen=True, kw_only=True)
class Translator:
    """What is done with images, and how they are read and written: from a file's bytes to a file's bytes."""

    transform: Transform
    """What is done with images."""
    reading: ReadConfig
    restore_size: bool = False
    """Give each result the size of its input."""
    sizes: Sizes = OF_NETWORK
    """At which size images go through the network."""

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that does it."""
        return self.transform.pipeline

    def load(self, root: Path, manifest: Manifest | None, job: tuple[Item, Entry | None]) -> Loaded:
        """Read, check and frame one file under `root`, unless the manifest shows that it is done already.

        job: the file, and what earlier runs noted of it. Errors become a failed result.
        """
        item, before = job
        try:
            if item.problem:
                raise UserError(item.problem)
            data = read(root / item.name)
            digest = sha256(data)
            if manifest is not None and before is not None and manifest.is_done(before, item.output, digest):
                return Result("already there", before)
            channels, height, width = self.pipeline.config.shape
            frame = None if self.sizes.own else (width, height)
            pixels, size, notes, alpha, stored = decode(data, channels, self.reading, frame)
            if alpha is not None and not WRITTEN[format_of(item)].keeps_alpha:
                notes = [*notes, "no alpha"]
            return LoadedImage(item, digest, to_tensor(pixels), size, notes, stored, alpha)
        except UserError as error:
            return failure(item, error)

    def translate_batch(self, images: list[Tensor], variants: Sequence[int]) -> list[Tensor]:
        """Translate images [C, H, W] of any size into these variants of their results; return them on the CPU.

        The network sees images of one size in whole blocks, the last filled up with copies, so that neither the number
        of images nor their neighbors change a bit of any result.
        """
        results: dict[int, Tensor] = {}
        kinds = [self.transform.batch_of(variant) for variant in variants]
        for numbers in blocks([image.shape for image in images], kinds, self.pipeline.block_of):
            x = torch.stack([images[k] for k in numbers])
            through = self.transform.results(x, [variants[k] for k in numbers])
            for k, result in zip(numbers, through.cpu(), strict=True):
                results.setdefault(k, result)  # copies follow their original
        return [results[k] for k in range(len(images))]

    def trajectory(self, images: list[Tensor], variants: Sequence[int]) -> Iterator[Tensor]:
        """Yield images [C, H, W] of one size, of one batch, at every time of the grid: [B, C, H, W] on the CPU."""
        return (x.cpu() for x in self.transform.trajectory(torch.stack(images), variants))

    def original(self, path: Path) -> Decoded:
        """Return an input as it was before it was framed. Raises UserError where it cannot be read."""
        return decode(read(path), self.pipeline.config.shape[0], self.reading)

    def result(self, path: Path, loaded: LoadedImage) -> Decoded:
        """Return what a file with a result of `loaded` holds, at its own size."""
        reading = reading_of_result(path.name, loaded.stored, self.reading)
        return decode(read(path), self.pipeline.config.shape[0], reading)

    def encode(self, result: Tensor, loaded: LoadedImage, root: Path) -> bytes:
        """Return a result [C, H, W] as the bytes of a file, at the size of its input where `restore_size`.

        The name of the output says in which format; in it the file is as deep and as transparent as its input, if it
        can be. Raises UserError where the input under `root` is needed once more and cannot be read, and where the
        format cannot hold the result.
        """
        alpha = loaded.alpha
        if self.restore_size:
            around = torch.zeros(len(result), *reversed(loaded.size))
            if self.reading.resize in ("fill", "crop") or alpha is not None:
                original = self.original(root / loaded.item.name)
                around, alpha = to_tensor(original.pixels), original.alpha
            result = restored_image(result, around, self.reading.resize)
        return encode(result, format_of(loaded.item), loaded.stored, alpha)


def translate_stream(
    translator: Translator,
    manifest: Manifest,
    root: Path,
    items: Iterable[Item],
    *,
    batch_size: int,
    progress: Callable[[int], object],
) -> Iterator[Result]:
    """Translate `items` under `root`; yield their results in order.

    Reading, computing and writing overlap by a few batches at most, so that memory does not grow with the stream.
    progress: called with a number of files as soon as they are written.
    """
    done = manifest.done_before()
    jobs = ((item, done.find(item.name, item.output)) for item in items)
    own = translator.sizes.own  # then images may be large
    at_once = min(batch_size, translator.pipeline.block_size)
    area = at_once * math.prod(translator.pipeline.config.shape[1:])
    some = 1 if own else at_once  # files that a thread gets at a time: to hand one over costs as much as to read it
    load = partial(each, partial(translator.load, root, manifest))
    depth = 2 if own else 2 * batch_size // some
    loaded = chain.from_iterable(look_ahead(load, split(jobs, some), threads=FILE_THREADS, depth=depth))
    batches = note_begun(manifest, batched(loaded, at_once, area))
    networks, threads = networks_at_once(translator.pipeline.device, small=not own and area <= at_once * SMALL)
    turns = BoundedSemaphore(networks)

    def finish(batch: list[Loaded]) -> Written:
        with turns:
            translated = run_network(translator, threads, batch)
        return write_batch(translator, manifest, root, translated)

    workers = networks + (1 if own else FILE_THREADS)
    for results, error in look_ahead(finish, batches, threads=workers, depth=workers, wait=True):
        progress(len(results))
        yield from journal(manifest, results)
        if error is not None:
            raise error


def note_begun(manifest: Manifest, batches: Iterable[list[Loaded]]) -> Iterator[list[Loaded]]:
    """Yield batches, of whose files those that will be written are noted as begun."""
    for batch in batches:
        manifest.journal("begun", [begun(*one.item[:2]) for one in batch if isinstance(one, LoadedImage)])
        yield batch


def run_network(translator: Translator, threads: int, batch: list[Loaded]) -> list[tuple[Loaded, Tensor | None]]:
    """Return files with the translations of those that were loaded, which so many threads of the CPU compute."""
    torch.set_num_threads(threads)  # of the thread that calls it, and of new ones
    new = [one for one in batch if isinstance(one, LoadedImage)]
    images, variants = [one.image for one in new], [one.item.variant for one in new]
    results = iter(translator.translate_batch(images, variants) if new else ())
    return [(one, next(results) if isinstance(one, LoadedImage) else None) for one in batch]


def batched(loaded: Iterable[Loaded], size: int, pixels: int) -> Iterator[list[Loaded]]:
    """Yield files in order, in batches with `size` images to translate, and at most eight times as many files.

    Of large images fewer: a batch that has this many `pixels` is full.
    """
    batch: list[Loaded] = []
    images = seen = 0
    for one in loaded:
        batch.append(one)
        if isinstance(one, LoadedImage):
            images, seen = images + 1, seen + one.image[0].numel()
        if images == size or seen >= pixels or len(batch) == 8 * size:
            yield batch
            batch, images, seen = [], 0, 0
    if batch:
        yield batch


def write_batch(
    translator: Translator, manifest: Manifest, root: Path, batch: list[tuple[Loaded, Tensor | None]]
) -> Written:
    """Write the translations of a batch; return the results, up to where the disk takes no more, and that error."""
    results: list[Result] = []
    try:
        results += (write_result(translator, manifest, root, one) for one in batch)
    except BrokenOff as error:
        return results, error
    return results, None


def write_result(
    translator: Translator, manifest: Manifest, root: Path, translated: tuple[Loaded, Tensor | None]
) -> Result:
    """Write the translation of a file, unless it failed or is done already; return its result.

    Raises BrokenOff where the disk takes no other file either.
    """
    one, pixels = translated
    if isinstance(one, Result):
        return one
    assert pixels is not None, "every loaded image was translated"
    try:
        written = manifest.write(one.item.output, translator.encode(pixels, one, root))
    except UserError as error:
        return failure(one.item, error)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise BrokenOff(error.errno, error.strerror, str(manifest.root / one.item.output)) from error
        return failure(one.item, OSError(f"cannot be written ({error.strerror or error})"))
    entry: dict[str, Any] = {"input": one.item.name, "output": one.item.output, "input_sha256": one.digest}
    return Result("translated", entry | {"output_sha256": written, "notes": one.notes})


def journal(manifest: Manifest, batch: list[Result]) -> list[Result]:
    """Note a batch in the journals; return it."""
    manifest.journal("done", [one.entry for one in batch if one.status != "failed"])
    manifest.journal("failed", [one.entry for one in batch if one.status == "failed"])
    return batch
