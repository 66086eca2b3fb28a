"""Sheets: labelled grids of images, the same samples each time so that progress can be compared; and GIFs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from configs.schema import Config
from datasets import Sampler
from datasets.keyed import key
from datasets.pixels import to_pil
from pipelines.pipeline import Pipeline
from pipelines.solvers import time_grid
from pipelines.weights import DRAWN

Row = tuple[str, Tensor]
"""Label and images [K, C, H, W] in [-1, 1]."""

FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")  # Pillow's own knows no σ
PER_CLASS = 4  # samples that a sheet shows of each class
FRAMES = 51  # of a GIF
GAP = 2  # pixels between the images of a sheet


def sheet(rows: Sequence[Row], title: str, *, columns: Sequence[str] = (), scale: int = 2) -> Image.Image:
    """One row of images for each entry, its label on its left, `columns` above, the title on top."""
    font = ImageFont.truetype(FONT, 12)
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
    """A title that says when the data is not real."""
    return " · ".join((config.name, *parts, *([DRAWN] if config.drawn else [])))


def how(pipeline: Pipeline) -> str:
    """Solver, steps, NFE and guidance in a few words."""
    config = pipeline.config
    steps = config.solver.steps
    told = f"{config.solver.name}, {steps} step{'s' if steps > 1 else ''}, NFE {pipeline.evaluations}"
    return told + (f", w = {config.solver.guidance:g}" if config.classes else "")


def shown_sources(pipeline: Pipeline, source: Sampler, count: int) -> tuple[Tensor, Tensor | None]:
    """Source samples, and the classes in turn, that depend on the configuration's seed alone."""
    config = pipeline.config
    x0 = source.draw(count, seed=key(config.seed, "sheet"), step=0).samples
    return x0, torch.arange(count) % config.asked_classes if config.asked_classes else None


def samples_sheet(pipeline: Pipeline, source: Sampler, when: str, *, count: int = 48) -> Image.Image:
    """What becomes of the same source samples: PER_CLASS of each class, or `count`, in rows."""
    config, classes = pipeline.config, pipeline.config.asked_classes
    across, number = (classes, classes * PER_CLASS) if classes else (16, count)
    x0, labels = shown_sources(pipeline, source, number)
    x1 = pipeline.translate(x0, labels, seed=config.seed)
    shown: list[Row] = []
    for before, after in zip(x0.split(across), x1.split(across), strict=True):
        if config.source.kind == "gaussian":  # noise is not worth a look
            shown.append(("", after))
        else:
            shown += [("source", before), ("result", after)]
    columns = [str(label) for label in range(classes)]
    return sheet(shown, caption(config, when, how(pipeline)), columns=columns)


def path_points(pipeline: Pipeline, source: Sampler, count: int = 8) -> Tensor:
    """The samples on their way: [steps + 1, count, *shape]."""
    x0, labels = shown_sources(pipeline, source, count)
    return torch.stack(list(pipeline.trajectory(x0, labels, seed=pipeline.config.seed)))


def evenly(points: Tensor, count: int, config: Config, *, reverse: bool = False) -> tuple[Tensor, list[float]]:
    """`count` of the points of a trajectory with their times, the first and the last included; at most all."""
    indices = torch.linspace(0, len(points) - 1, min(count, len(points))).round().long()
    grid = time_grid(len(points) - 1, power=config.solver.grid_power, reverse=reverse)
    return points[indices], grid[indices].tolist()


def path_sheet(config: Config, points: Tensor, when: str, *, across: int = 11) -> Image.Image:
    """A row for each sample, from t = 0 on the left to t = 1 on the right."""
    chosen, times = evenly(points, across, config)
    rows = [("", row) for row in chosen.transpose(0, 1)]
    return sheet(rows, caption(config, when), columns=[f"{t:.2f}" for t in times])


def pictures(pipeline: Pipeline, source: Sampler, target: Sampler, when: str) -> dict[str, Image.Image]:
    """By name: the samples, and the whole path of some."""
    return {
        "samples": samples_sheet(pipeline, source, when),
        "path": path_sheet(pipeline.config, path_points(pipeline, source), when),
    }


def frames(pipeline: Pipeline, source: Sampler, target: Sampler) -> list[Image.Image]:
    """The samples on their way, all at once."""
    return path_frames(pipeline.config, path_points(pipeline, source), across=4)


def path_frames(config: Config, points: Tensor, *, across: int, reverse: bool = False) -> list[Image.Image]:
    """Of points [steps + 1, count, C, H, W], at FRAMES times or fewer: `across` images in a row."""
    return [
        sheet([("", row) for row in x.split(across)], caption(config, f"t = {t:.2f}"), scale=4)
        for x, t in zip(*evenly(points, FRAMES, config, reverse=reverse), strict=True)
    ]


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """One below the other."""
    out = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        out.paste(picture, (0, top))
        top += picture.height
    return out


def save_gif(images: Sequence[Image.Image], file: Path) -> None:
    """Two seconds in all and a pause at the end."""
    durations = [max(20, 2000 // len(images))] * (len(images) - 1) + [1500]
    images[0].save(file, save_all=True, append_images=images[1:], duration=durations, loop=0)
