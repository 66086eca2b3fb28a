"""The verb `sample`: write new images as files, and a sheet of them."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowferry.configs.labels import parse_labels
from flowferry.configs.options import SampleOptions
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.image_writing import WRITTEN, encode
from flowferry.pipelines.enlarge import enlarge, enlarges
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.prompts import prompted
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import aside, prepare_folder, write_aside, write_png
from flowferry.pipelines.storage.hub import find_weights
from flowferry.pipelines.visualization.grids import PER_CLASS, caption, sheet

log = logging.getLogger("flowferry")

EARLIER = re.compile(r"\d{5,}(-\d+)?\.(png|tif)")


def run(options: SampleOptions) -> int:
    """Write `options.output`/NNNNN[-LABEL].png and `sheet.png`, or `points.csv` of a pipeline in the plane.

    Images of more channels than PNG holds are written as TIFF. Images that an earlier call left in the run's own folder
    are removed. Returns the exit code.
    """
    folder = find_weights(options.pipeline)
    pipeline = Pipeline.from_pretrained(folder, precision=options.precision).using(**options.sampling)
    pipeline = prompted(pipeline, options)
    asked_labels(options, pipeline.config)  # what is wrong with them is told before anything is made
    output = options.output or weights.results_folder(folder, pipeline.config) / "sampled"
    larger = enlarging(options)
    prepare_folder(output, "--output")
    images, labels = drawn(pipeline, options)
    if larger:
        images = enlarge(larger, images, labels, seed=options.seed, batch_size=options.batch_size)
    earlier = {file.name for file in output.iterdir() if EARLIER.fullmatch(file.name)}
    if not pipeline.config.is_image:
        with aside(output / "points.csv") as part:
            np.savetxt(part, images.cpu().numpy(), delimiter=",")
        log.info("%d points in %s; NFE %d", len(images), output / "points.csv", pipeline.nfe)
        return 0
    for name, data in encoded(images, labels):
        write_aside(output / name, data)
        earlier.discard(name)
    if options.output is None:
        for name in earlier:
            (output / name).unlink()
    elif earlier:
        log.warning("%s: %d images of an earlier run are still there", output, len(earlier))
    across = pipeline.config.num_classes if labels is not None and options.labels is None else 16
    title = caption(pipeline.config, f"seed {options.seed}, NFE {pipeline.nfe}")
    write_png(output / "sheet.png", sheet([("", row) for row in images.split(across)], title))
    log.info("%d images and sheet.png in %s; NFE %d", len(images), output, pipeline.nfe)
    return 0


def drawn(pipeline: Pipeline, options: SampleOptions) -> tuple[Tensor, Tensor | None]:
    """Return new samples [count, *shape] as the options ask for them, and their labels int64 [count], if any."""
    labels = asked_labels(options, pipeline.config)
    count = (options.count or 64) if labels is None else len(labels)
    how: Any = {"batch_size": options.batch_size, "data_root": options.data_root}
    return pipeline.sample(count, labels, seed=options.seed, **how), labels


def encoded(images: Tensor, labels: Tensor | None) -> Iterator[tuple[str, bytes]]:
    """Yield the names and the bytes of files of images [B, C, H, W]: PNG where it holds so many channels, else TIFF."""
    format = "png" if images.shape[1] in WRITTEN["png"].channels else "tiff"
    for index, image in enumerate(images):
        suffix = "" if labels is None else f"-{labels[index]}"
        yield f"{index:05d}{suffix}{WRITTEN[format].endings[0]}", encode(image, format)


def enlarging(options: SampleOptions) -> Pipeline | None:
    """Return the pipeline that is to enlarge the images, asked for the same texts; None for none."""
    if options.enlarge is None:
        return None
    larger = Pipeline.from_pretrained(find_weights(options.enlarge), precision=options.precision)
    if not enlarges(larger):
        raise UserError(f"--enlarge: got {options.enlarge}, expected one that enlarges, such as DeepFloyd/IF-II-L-v1.0")
    return prompted(larger, options).using(steps=options.steps, stride=options.stride)


def asked_labels(options: SampleOptions, config: Config) -> Tensor | None:
    """Return labels int64 [count]: `--count` of them in turn, or `--per-label` of each; None for no labels."""
    if options.labels is None and not config.asked_classes:
        return None
    if options.count and options.per_label:
        raise UserError(f"--per-label: got {options.per_label} beside --count {options.count}, expected one of the two")
    asked = torch.tensor(range(config.num_classes) if options.labels is None else parse_labels(options.labels, config))
    count = options.count or len(asked) * (options.per_label or PER_CLASS)
    return asked.repeat(-(-count // len(asked)))[:count]
