"""Sheets: labelled grids of images, the same samples each time so that progress can be compared; curves; GIFs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from configs.schema import Config
from datasets import Sampler
from datasets.keyed import key
from datasets.pixels import to_pil
from pipelines.pipeline import Pipeline
from pipelines.weights import DRAWN

Row = tuple[str, Tensor]
"""Label and images [K, C, H, W] in [-1, 1]."""

GAP = 2  # pixels between the images of a sheet


def sheet(rows: Sequence[Row], title: str, *, columns: Sequence[str] = (), scale: int = 2) -> Image.Image:
    """One row of images for each entry, its label on its left, `columns` above, the title on top."""
    font = ImageFont.load_default(13)
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


def samples_sheet(pipeline: Pipeline, source: Sampler, when: str) -> Image.Image:
    """Source samples and labels that depend on the configuration's seed alone, and what becomes of them."""
    config = pipeline.config
    across, rows = (config.classes, 4) if config.classes else (16, 3)
    x0 = source.draw(across * rows, seed=key(config.seed, "sheet"), step=0).samples
    labels = torch.arange(len(x0)) % config.classes if config.classes else None
    x1 = pipeline.translate(x0, labels)
    shown: list[Row] = []
    for before, after in zip(x0.split(across), x1.split(across), strict=True):
        if config.source.kind == "gaussian":  # noise is not worth a look
            shown.append(("", after))
        else:
            shown += [("source", before), ("result", after)]
    how = f"{config.solver.name}, {config.solver.steps} steps, NFE {pipeline.evaluations}"
    if config.classes:
        how += f", w = {config.solver.guidance:g}"
    classes = [str(label) for label in range(config.classes)]
    return sheet(shown, caption(config, when, how), columns=classes)


def path_points(pipeline: Pipeline, source: Sampler, count: int = 8) -> Tensor:
    """The samples on their way: [steps + 1, count, *shape]."""
    config = pipeline.config
    x0 = source.draw(count, seed=key(config.seed, "sheet"), step=0).samples
    labels = torch.arange(count) % config.classes if config.classes else None
    return torch.stack(list(pipeline.trajectory(x0, labels)))


def path_sheet(config: Config, points: Tensor, when: str, *, across: int = 11) -> Image.Image:
    """A row for each sample, from t = 0 on the left to t = 1 on the right."""
    times = torch.linspace(0, 1, across)
    chosen = points[(times * (len(points) - 1)).round().long()]
    rows = [("", row) for row in chosen.transpose(0, 1)]
    return sheet(rows, caption(config, when), columns=[f"{t:.1f}" for t in times.tolist()])


def path_gif(config: Config, points: Tensor, file: Path, *, across: int = 4) -> None:
    """The samples on their way, all at once: two seconds in all and a pause at the end."""
    times = torch.linspace(0, 1, len(points)).tolist()
    frames = [
        sheet([("", row) for row in frame.split(across)], caption(config, f"t = {t:.2f}"), scale=4)
        for t, frame in zip(times, points, strict=True)
    ]
    durations = [max(20, 2000 // len(frames))] * (len(frames) - 1) + [1500]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def loss_curve(config: Config, rows: Sequence[dict[str, float]], when: str) -> Image.Image:
    """Training loss a step with its running mean, and the held-out loss where it was measured."""
    figure = Figure(figsize=(7, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    steps = np.array([row["step"] for row in rows if "train/loss" in row])
    losses = np.array([row["train/loss"] for row in rows if "train/loss" in row])
    window = max(1, len(losses) // 100)
    mean = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.6, label="train/loss")
    axes.plot(steps[window - 1 :], mean, color="tab:blue", label=f"running mean, {window} wide")
    held_out = [(row["step"], row["eval/loss"]) for row in rows if "eval/loss" in row]
    if held_out:
        axes.plot(
            *zip(*held_out, strict=True),
            "o-",
            color="tab:orange",
            markersize=3,
            label="eval/loss (averaged weights)",
        )
    low, high = np.percentile(losses, [0, 98])
    axes.set(xlabel="step", ylabel="mean squared error of the velocity", ylim=(0.9 * low, 1.1 * high))
    axes.set_title(caption(config, when), fontsize="small", wrap=True)
    axes.grid(alpha=0.3)
    axes.legend()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
