"""Folders of image files as samplers: kept as uint8 where they fit in memory, otherwise decoded as they are needed."""

import os
from collections.abc import Iterator, Sequence
from itertools import count as counting
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from configs.checks import UserError
from configs.parts import ImageFolderConfig
from datasets.imagefiles import check_background, decode, framed, pixels_of, read
from datasets.keyed import key
from datasets.pixels import to_images
from datasets.sampler import Batch, InMemory, Sampler, indices_of, order_of
from datasets.tree import Tree

HELD_OUT = 10  # one image in so many is kept from training, to measure on
TOLD = 5  # names that an error lists
FEW = 512  # images that are decoded sooner than worker processes are started


class ImageFiles(Dataset[Tensor | str]):
    """File i -> uint8 [C, H, W], or in words why it cannot be read."""

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
            return f"{self.names[index]}: {error}"

    def batch(self, indices: Sequence[int]) -> list[Tensor | str]:
        return [self[index] for index in indices]


class Streamed:
    """Images decoded batch by batch, in worker processes that run ahead while the batches are asked for in turn."""

    def __init__(self, files: ImageFiles, labels: Tensor | None, *, classes: int, device: torch.device) -> None:
        self.files, self.labels, self.device = files, labels, device
        self.shape, self.classes, self.size = files.shape, classes, len(files)
        self._following: tuple[int, int, int] | None = None
        self._ahead: Iterator[list[Tensor | str]] | None = None

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        chosen = self._indices(count, seed, step)
        if (count, seed, step) != self._following:
            self._ahead, found = None, self.files.batch(chosen)
        else:
            if self._ahead is None:
                onwards = (self._indices(count, seed, later) for later in counting(step))
                self._ahead = iter(workers(self.files, onwards))
            found = next(self._ahead)
        self._following = (count, seed, step + 1)
        images = to_images(readable(found, self.files.config).to(self.device))
        return Batch(images, None if self.labels is None else self.labels[chosen].to(self.device))

    def of_labels(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        chosen = indices_of(labels.cpu(), self.labels, seed, step)
        images = readable(self.files.batch(chosen.tolist()), self.files.config)
        return Batch(to_images(images.to(self.device)), labels)

    def _indices(self, count: int, seed: int, step: int) -> list[int]:
        return order_of(self.size, torch.device("cpu"), step * count, (step + 1) * count, seed).tolist()


def workers(files: ImageFiles, batches: object) -> DataLoader:
    """Decodes `batches` of indices in worker processes."""
    return DataLoader(
        files,
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=min(8, os.cpu_count() or 1),
        collate_fn=list,
    )


def readable(found: Sequence[Tensor | str], config: ImageFolderConfig) -> Tensor:
    """uint8 [N, C, H, W]. Raises UserError naming what could not be read."""
    bad = [one for one in found if isinstance(one, str)]
    if bad:
        told = "; ".join(bad[:TOLD]) + ("; …" if len(bad) > TOLD else "")
        raise UserError(f"{config.root}: {len(bad)} of {len(found)} images cannot be read: {told}; remove or mend them")
    return torch.stack([one for one in found if not isinstance(one, str)])


def load_all(files: ImageFiles) -> Tensor:
    """uint8 [N, C, H, W]."""
    if len(files) <= FEW:
        return readable(files.batch(range(len(files))), files.config)
    parts = [range(start, min(start + FEW, len(files))) for start in range(0, len(files), FEW)]
    found: list[Tensor | str] = []
    for part in tqdm(workers(files, parts), desc=files.config.root, unit=f"×{FEW} images", leave=False):
        found += part
    return readable(found, files.config)


def image_folder(
    config: ImageFolderConfig,
    shape: tuple[int, ...],
    split: str,
    device: torch.device,
    only: frozenset[str] | None = None,
) -> Sampler:
    """The images of a folder and its sub-folders, whose first level names their classes if all of them lie in one.

    only: the stems (relative paths without their endings) to leave it at. One image in ten, chosen by its stem, is
    held out for the split "test". Raises UserError where there are no images, or where some cannot be read.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"image-folder: found the shape {shape}, accepted is (1 or 3, height, width)")
    check_background(config.background)
    everything = listed(config)
    classes = classes_of(everything)
    chosen = [stem for stem in everything if only is None or stem in only]
    held_out = set(sorted(chosen, key=lambda stem: key("held out", stem))[: max(1, len(chosen) // HELD_OUT)])
    stems = [stem for stem in chosen if len(chosen) == 1 or (stem in held_out) == (split == "test")]
    if not stems:
        raise UserError(f"image-folder: found no images in {config.root} to {split} on, accepted is at least one")
    labels = torch.tensor([classes.index(stem.split("/")[0]) for stem in stems]) if classes else None
    channels, height, width = shape
    files = ImageFiles(config, [everything[stem] for stem in stems], (channels, height, width))
    if len(stems) * channels * height * width <= config.cache_mb * 2**20:
        return InMemory(load_all(files), labels, classes=len(classes), device=device)
    return Streamed(files, labels, classes=len(classes), device=device)


def listed(config: ImageFolderConfig) -> dict[str, str]:
    """Stem -> relative path of each image, sorted by stem. Raises UserError for what cannot be listed."""
    if not config.root:
        raise UserError("image-folder: no folder, accepted: --source.root FOLDER or --target.root FOLDER")
    if not Path(config.root).is_dir():
        raise UserError(f"image-folder: found {config.root}, which is no folder; accepted: a folder of images")
    found: dict[str, str] = {}
    for item in Tree(Path(config.root)).walk():
        if item.problem:
            raise UserError(f"{config.root}: {item.name}: {item.problem}")
        found[item.output.removesuffix(".png")] = item.name
    return dict(sorted(found.items()))


def classes_of(stems: Sequence[str] | dict[str, str]) -> list[str]:
    """The names of the first-level sub-folders, sorted, if every image lies in one; otherwise none."""
    return sorted({stem.split("/")[0] for stem in stems}) if all("/" in stem for stem in stems) else []


def partners(source: ImageFolderConfig, target: ImageFolderConfig, *, allow_unmatched: bool) -> frozenset[str]:
    """The stems that both folders have. Raises UserError naming the others, unless they are allowed."""
    stems = [listed(config).keys() for config in (source, target)]
    both = stems[0] & stems[1]
    alone = [
        f"{len(own - both)} only in {c.root} ({some(own - both)})"
        for c, own in zip((source, target), stems, strict=True)
        if own - both
    ]
    if not both or (alone and not allow_unmatched):
        raise UserError(
            f"coupling given: found {len(both)} pairs by relative name; {'; '.join(alone)}; "
            "accepted: a partner for each, or --allow-unmatched, which leaves those without one out"
        )
    return frozenset(both)


def some(stems: set[str]) -> str:
    return ", ".join(sorted(stems)[:TOLD]) + (", …" if len(stems) > TOLD else "")
