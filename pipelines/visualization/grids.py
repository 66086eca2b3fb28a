"""Sheets, which are labeled grids of images, of the same samples each time so that they can be compared; and GIFs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from flowferry.configs.schema import Config
from flowferry.datasets.base import Sampler
from flowferry.datasets.pixels import to_pil
from flowferry.datasets.rng import derive_seed
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage.files import aside
from flowferry.pipelines.storage.weights import SYNTHETIC

Row = tuple[str, Tensor]
"""A label and images [K, C, H, W] in [-1, 1]."""

PER_CLASS = 4  # samples of each class on a sheet
FRAMES = 51  # of a GIF, at most
GAP = 2  # pixels between the images of a sheet


def sheet(rows: Sequence[Row], title: str, *, columns: Sequence[str] = (), scale: int = 2) -> Image.Image:
    """Draw one row of images for each entry, its label to its left, the titles of `columns` above, `title` on top.

    scale: pixels on the sheet, in each direction, for each pixel of an image.
    """
    import matplotlib  # for its font, because Pillow's own has no σ

    font = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 12)
    height, width = (scale * side + GAP for side in rows[0][1].shape[-2:])
    left = GAP + max(round(font.getlength(label)) + 6 if label else 0 for label, _ in rows)
    top = 20 + (16 if columns else 0)
    right = max(left + width * max(len(images) for _, images in rows), round(font.getlength(title)) + 8)
    out = Image.new("RGB", (right, top + height * len(rows)), "white")
    draw = ImageDraw.Draw(out)
    draw.text((4, 2), title, "black", font)
    for x, label in enumerate(columns):
        draw.text((left + (x + 0.5) * width, top - 4), label, "black", font, anchor="ms")
    for y, (label, images) in enumerate(rows):
        draw.text((left - 4, top + (y + 0.5) * height), label, "black", font, anchor="rm")
        for x, image in enumerate(images):
            tile = to_pil(image).resize((width - GAP, height - GAP), Image.Resampling.NEAREST)
            out.paste(tile, (left + x * width, top + y * height))
    return out


def caption(config: Config, *parts: str) -> str:
    """Return a title of the pipeline's name and `parts`, which says so where the data is synthetic."""
    return " · ".join((config.name, *parts, *([SYNTHETIC] if config.is_synthetic else [])))


def shown_sources(pipeline: Pipeline, source: Sampler, count: int) -> tuple[Tensor, Tensor | None]:
    """Return source samples [count, *shape] and the classes to ask for, in turn, int64 [count] or None.

    Both are a function of the configuration's seed. Of a source that has fewer samples, each is shown once, except
    where it is shown with several classes.
    """
    config = pipeline.config
    if source.size is not None and not config.asked_classes:
        count = min(count, source.size)
    x0 = source.draw(count, seed=derive_seed(config.seed, "sheet"), step=0).samples
    return x0, torch.arange(count) % config.asked_classes if config.asked_classes else None


def samples_sheet(
    pipeline: Pipeline, source: Sampler, when: str, *, target: Sampler | None = None, count: int = 48
) -> Image.Image:
    """Draw the results of the same source samples each time: PER_CLASS of each class, or `count`, in rows.

    target: of the split of `source`; where the pipeline is paired, each result stands above its truth. when: the step
    in words.
    """
    config, classes = pipeline.config, pipeline.config.asked_classes
    across, number = (classes, classes * PER_CLASS) if classes else (16, count)
    x0, labels = shown_sources(pipeline, source, number)
    x1 = pipeline.translate(x0, labels, seed=config.seed)
    rows = {} if config.source.is_noise else {"source": x0}  # noise is not worth a picture
    rows["result" if rows else ""] = x1
    if config.is_paired and target is not None:
        rows["truth"] = target.draw(len(x0), seed=derive_seed(config.seed, "sheet"), step=0).samples
    parts = zip(*(images.split(across) for images in rows.values()), strict=True)
    shown = [row for part in parts for row in zip(rows, part, strict=True)]
    columns = [str(label) for label in range(classes)]
    return sheet(shown, caption(config, when, pipeline.sampling), columns=columns)


def path_points(pipeline: Pipeline, source: Sampler, count: int = 8) -> Tensor:
    """Return `count` samples at every time of the solver's grid: [num_steps + 1, count, *shape]."""
    x0, labels = shown_sources(pipeline, source, count)
    return torch.stack(list(pipeline.trajectory(x0, labels, seed=pipeline.config.seed)))


def evenly(points: Tensor, count: int, grid: Tensor) -> tuple[Tensor, list[float]]:
    """Return `count` evenly spaced points of a trajectory [N + 1, …], or all if it has fewer, and their times.

    The first and the last are among them. grid: the times of all points, [N + 1].
    """
    indices = torch.linspace(0, len(points) - 1, min(count, len(points))).round().long()
    return points[indices], grid[indices].tolist()


def path_sheet(pipeline: Pipeline, points: Tensor, when: str, *, across: int = 11) -> Image.Image:
    """Draw points [num_steps + 1, count, C, H, W]: a row for each sample, from t = 0 on the left to 1 on the right."""
    chosen, times = evenly(points, across, pipeline.grid())
    rows = [("", row) for row in chosen.transpose(0, 1)]
    return sheet(rows, caption(pipeline.config, when), columns=[f"{t:.2f}" for t in times])


def pictures(pipeline: Pipeline, source: Sampler, target: Sampler, when: str) -> dict[str, Image.Image]:
    """Return pictures by name: the samples, and the whole path of some."""
    return {
        "samples": samples_sheet(pipeline, source, when, target=target),
        "path": path_sheet(pipeline, path_points(pipeline, source), when),
    }


def frames(pipeline: Pipeline, source: Sampler, target: Sampler) -> list[Image.Image]:
    """Return the frames of a GIF in which some samples move from source to target."""
    return path_frames(pipeline.config, path_points(pipeline, source), pipeline.grid(), across=4)


def path_frames(config: Config, points: Tensor, grid: Tensor, *, across: int, scale: int = 4) -> list[Image.Image]:
    """Return frames of points [N + 1, count, C, H, W] at up to FRAMES of the times `grid`, with `across` in a row.

    scale: as for `sheet`.
    """
    return [
        sheet([("", row) for row in x.split(across)], caption(config, f"t = {t:.2f}"), scale=scale)
        for x, t in zip(*evenly(points, FRAMES, grid), strict=True)
    ]


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return the pictures one below the other."""
    out = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        out.paste(picture, (0, top))
        top += picture.height
    return out


def save_gif(images: Sequence[Image.Image], file: Path) -> None:
    """Write a GIF that takes two seconds, pauses at the end and starts again."""
    durations = [max(20, 2000 // len(images))] * (len(images) - 1) + [1500]
    with aside(file) as part:
        images[0].save(part, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
