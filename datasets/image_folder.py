"""Samplers of image folders: images are kept as uint8 if they fit in memory, otherwise decoded when needed."""

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
from flowferry.datasets.base import Batch, Sampler
from flowferry.datasets.file_tree import Tree
from flowferry.datasets.image_io import check_background, decode, framed, pixels_of, read
from flowferry.datasets.in_memory import InMemory, indices_of, order_of
from flowferry.datasets.pixels import to_images
from flowferry.datasets.rng import derive_seed

HELD_OUT = 10  # one image in this many is held out of training, for the split "test"
MAX_LISTED = 5  # names that an error lists
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
            return f"{self.names[index]}: {error}"

    def batch(self, indices: Sequence[int]) -> list[Tensor | str]:
        """Return the images with these indices, decoded in this process."""
        return [self[index] for index in indices]


class Streamed:
    """Images that are decoded batch by batch, in the order of `InMemory`.

    While batches are drawn one after the other, worker processes decode the next ones ahead. labels: int64 [N] on the
    CPU, or None. A draw raises UserError naming files that cannot be read.
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
        images = to_images(stack(decoded, self.files.config).to(self.device))
        return Batch(images, None if self.labels is None else self.labels[chosen].to(self.device))

    def sample_by_label(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Return a random image of each of the labels int64 [B], decoded in this process."""
        chosen = indices_of(labels.cpu(), self.labels, seed, step)
        images = stack(self.files.batch(chosen.tolist()), self.files.config)
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


def stack(decoded: Sequence[Tensor | str], config: ImageFolderConfig) -> Tensor:
    """Return images as uint8 [N, C, H, W]. Raises UserError naming those that could not be read."""
    images = [one for one in decoded if not isinstance(one, str)]
    problems = [one for one in decoded if isinstance(one, str)]
    if problems:
        listed = "; ".join(problems[:MAX_LISTED]) + ("; …" if len(problems) > MAX_LISTED else "")
        raise UserError(
            f"{config.root}: {len(problems)} of {len(decoded)} images cannot be read: {listed}; remove or repair them"
        )
    return torch.stack(images)


def load_all(files: ImageFiles) -> Tensor:
    """Return all images as uint8 [N, C, H, W]. Raises UserError naming those that cannot be read."""
    if len(files) <= BLOCK:
        return stack(files.batch(range(len(files))), files.config)
    blocks = [range(start, min(start + BLOCK, len(files))) for start in range(0, len(files), BLOCK)]
    decoded: list[Tensor | str] = []
    for block in tqdm(decode_ahead(files, blocks), desc=files.config.root, unit=f"×{BLOCK} images", leave=False):
        decoded += block
    return stack(decoded, files.config)


def image_folder(
    config: ImageFolderConfig,
    shape: tuple[int, ...],
    split: str,
    device: torch.device,
    only: frozenset[str] | None = None,
) -> Sampler:
    """Return a sampler of the images of a folder and its sub-folders, of `shape` (C, H, W), C = 1 or 3.

    The sub-folders at the first level are the classes, in alphabetical order, if every image lies in one; otherwise the
    images are unlabeled.

    split: "train", or "test" for the tenth of the images, at least one, that is held out; it is chosen by the stems
    (relative paths without endings) alone, and a single image is in both. only: the stems to keep; None: all.

    Raises UserError for a bad folder, shape or background, where there are no images, and where some cannot be read;
    a `Streamed` sampler finds those only when it draws them.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"image-folder: got the shape {shape}, expected (1 or 3, height, width)")
    check_background(config.background)
    names = list_images(config)
    classes = class_names(names)
    chosen = [stem for stem in names if only is None or stem in only]
    held_out = set(sorted(chosen, key=lambda stem: derive_seed("held out", stem))[: max(1, len(chosen) // HELD_OUT)])
    stems = [stem for stem in chosen if len(chosen) == 1 or (stem in held_out) == (split == "test")]
    if not stems:
        raise UserError(f"image-folder: got no images to {split} on in {config.root}, expected at least one")
    labels = torch.tensor([classes.index(stem.split("/")[0]) for stem in stems]) if classes else None
    channels, height, width = shape
    files = ImageFiles(config, [names[stem] for stem in stems], (channels, height, width))
    if len(stems) * channels * height * width <= config.cache_mb * 2**20:
        return InMemory(load_all(files), labels, num_classes=len(classes), device=device)
    return Streamed(files, labels, num_classes=len(classes), device=device)


def list_images(config: ImageFolderConfig) -> dict[str, str]:
    """Return the relative path of each image by its stem (the path without its ending), sorted by stem.

    Raises UserError where the folder, or one inside it, cannot be listed, or where two images have the same stem.
    """
    if not config.root:
        raise UserError("image-folder: got no folder, expected --source.root FOLDER or --target.root FOLDER")
    if not Path(config.root).is_dir():
        raise UserError(f"image-folder: got {config.root}, which is not a folder, expected a folder of images")
    names: dict[str, str] = {}
    for item in Tree(Path(config.root)).walk():
        if item.problem:
            raise UserError(f"{config.root}: {item.name}: {item.problem}")
        names[item.output.removesuffix(".png")] = item.name
    return dict(sorted(names.items()))


def class_names(stems: Iterable[str]) -> list[str]:
    """Return the names of the sub-folders at the first level, sorted, if every image lies in one; otherwise none."""
    parts = [stem.split("/") for stem in stems]
    return sorted({folder for folder, *_ in parts}) if all(len(part) > 1 for part in parts) else []


def common_stems(source: ImageFolderConfig, target: ImageFolderConfig, *, allow_unmatched: bool) -> frozenset[str]:
    """Return the stems that the images of both folders have.

    Raises UserError where there are none, or, unless `allow_unmatched`, naming images without a partner.
    """
    stems = [list_images(config).keys() for config in (source, target)]
    both = stems[0] & stems[1]
    alone = [
        f"{len(own - both)} only in {c.root} ({shortened(own - both)})"
        for c, own in zip((source, target), stems, strict=True)
        if own - both
    ]
    if not both or (alone and not allow_unmatched):
        raise UserError(
            f"coupling given: got {'; '.join([f'{len(both)} pairs by relative name', *alone])}, "
            "expected a partner for each, or --allow-unmatched, which leaves those without one out"
        )
    return frozenset(both)


def shortened(stems: set[str]) -> str:
    """Return the first few stems in alphabetical order, as text."""
    return ", ".join(sorted(stems)[:MAX_LISTED]) + (", …" if len(stems) > MAX_LISTED else "")
