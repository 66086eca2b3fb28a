"""The verb `sample`: new images as files, and a sheet of them."""

import logging
import re
from pathlib import Path

import numpy as np
import torch

from configs.checks import UserError
from configs.cli import SampleOptions
from configs.schema import Config
from datasets.pixels import to_pil
from pipelines import weights
from pipelines.pipeline import Pipeline
from pipelines.sheets import PER_CLASS, caption, sheet

log = logging.getLogger("flowferry")

OURS = re.compile(r"\d{5,}(-\d+)?\.png")


def run(options: SampleOptions, folder: Path) -> int:
    """Writes `options.output`/NNNNN[-LABEL].png and `sheet.png`, or `points.csv` of a pipeline in the plane.

    What an earlier run left in the run's own folder is removed.
    """
    pipeline = Pipeline.from_pretrained(folder).using(
        solver=options.solver, steps=options.steps, guidance=options.guidance
    )
    labels = asked_labels(options, pipeline.config)
    count = (options.count or 64) if labels is None else len(labels)
    images = pipeline.sample(
        count, labels, seed=options.seed, batch_size=options.batch_size, data_root=options.data_root
    )
    output = options.output or weights.results_folder(folder, pipeline.config) / "sampled"
    output.mkdir(parents=True, exist_ok=True)
    earlier = {file.name for file in output.iterdir() if OURS.fullmatch(file.name)}
    if len(pipeline.config.shape) == 1:
        np.savetxt(output / "points.csv", images.cpu().numpy(), delimiter=",")
        log.info("%d points in %s; NFE %d", count, output / "points.csv", pipeline.evaluations)
        return 0
    for index, image in enumerate(images):
        suffix = "" if labels is None else f"-{labels[index]}"
        name = f"{index:05d}{suffix}.png"
        to_pil(image).save(output / name)
        earlier.discard(name)
    if options.output is None:
        for name in earlier:
            (output / name).unlink()
    elif earlier:
        log.warning("%s: %d images of an earlier run are still there", output, len(earlier))
    across = pipeline.config.classes if labels is not None and options.labels is None else 16
    title = caption(pipeline.config, f"seed {options.seed}, NFE {pipeline.evaluations}")
    sheet([("", row) for row in images.split(across)], title).save(output / "sheet.png")
    log.info("%d images and sheet.png in %s; NFE %d", count, output, pipeline.evaluations)
    return 0


def asked_labels(options: SampleOptions, config: Config) -> torch.Tensor | None:
    """int64 [count]: `--count` of the labels in turn, or `--per-label` of each; None where none are to be asked for."""
    if options.labels is not None and not config.classes:
        raise UserError(f"--labels: found {options.labels!r}, but {options.pipeline} knows no classes")
    if options.labels is None and not config.asked_classes:
        return None
    if options.count and options.per_label:
        raise UserError(
            f"--per-label: found {options.per_label} beside --count {options.count}, accepted is one of them"
        )
    every = list(range(config.classes))
    asked = torch.tensor(every if options.labels is None else parse_labels(options.labels, config.classes))
    count = options.count or len(asked) * (options.per_label or PER_CLASS)
    return asked.repeat(-(-count // len(asked)))[:count]


def parse_labels(text: str, classes: int) -> list[int]:
    """ "0-9", "7" or "1,3,5-7" -> numbers, each in 0 … classes − 1."""
    try:
        ends = [tuple(map(int, part.split("-"))) for part in text.split(",")]
    except ValueError:
        ends = []
    labels = [label for end in ends if max(end) < classes for label in range(end[0], end[-1] + 1)]
    if not labels or any(max(end) >= classes or len(end) > 2 for end in ends):
        raise UserError(f"--labels: found {text!r}, accepted: numbers from 0 to {classes - 1} such as 7, 0-9 or 1,3,5")
    return labels
