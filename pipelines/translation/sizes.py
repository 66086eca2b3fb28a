"""At which size images are translated: the network's, or each at its own."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from flowferry.configs.validation import UserError
from flowferry.pipelines.pipeline import Pipeline


class Sizes(NamedTuple):
    """At which size images go through the network."""

    size: Literal["own", "network"] = "network"
    """Each at its own, or all at the network's."""
    tile: int | None = None
    overlap: int | None = None
    """As for `Pipeline.translate`."""

    @property
    def own(self) -> bool:
        """Whether each goes through at its own size."""
        return self.size == "own"


OF_NETWORK = Sizes()


def choose_sizes(
    pipeline: Pipeline, size: str | None, tile: int | None, overlap: int | None, *, resize: str | None, crops: bool
) -> Sizes:
    """Return at which size to translate: as asked by `size`, "own" or "network", else as the pipeline was trained.

    resize: how images are asked to be brought to the network's size; None: it was not said. crops: whether the pipeline
    was trained on crops, which keep the scale of their images. Raises UserError for what the network cannot do, and
    for options that contradict one another.
    """
    own = size == "own" or (size is None and resize is None and crops and pipeline.stride is not None)
    if size == "own" and pipeline.stride is None:
        height, width = pipeline.config.shape[1:]
        kind = pipeline.config.model.kind
        raise UserError(f"--size: got own, expected network, because {kind} takes {width} × {height} pixels only")
    if size == "own" and resize is not None:
        raise UserError(f"--resize: got {resize} with --size own, expected one of the two")
    for name, side in (("tile", tile), ("overlap", overlap)):
        if side is not None and not own:
            raise UserError(f"--{name}: got {side} for images of the network's size, expected --size own")
    return Sizes("own", *pipeline.tiles(tile, overlap)) if own else OF_NETWORK


def blocks(
    shapes: Sequence[Sequence[int]], kinds: Sequence[int], block_of: Callable[[Sequence[int]], int]
) -> Iterator[list[int]]:
    """Yield the numbers of images of one shape and kind each, in blocks; the last is filled up with its first number.

    shapes: (C, H, W) of each image. kinds: of each, which others it may share a block with. block_of: (shape
    (1, C, H, W)) -> the size of a block.
    """
    alike: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for number, (shape, kind) in enumerate(zip(shapes, kinds, strict=True)):
        alike.setdefault((tuple(shape), kind), []).append(number)
    for (shape, _), numbers in alike.items():
        size = block_of((1, *shape))
        for start in range(0, len(numbers), size):
            some = numbers[start : start + size]
            yield some + some[:1] * (size - len(some))
