"""The verb `translate`: image files in, translated PNG files out."""

import logging
import os
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from configs.cli import TranslateOptions
from configs.schema import UserError
from datasets.pixels import IMAGE_ENDINGS, load_image, to_pil
from pipelines.pipeline import Pipeline

log = logging.getLogger("flowferry")


def run(options: TranslateOptions, folder: Path) -> int:
    """Translates `options.input` into `options.output`; returns 1 if any file could not be read."""
    pairs = plan(options.input, options.output)
    pipeline = Pipeline.from_pretrained(folder).using(
        solver=options.solver, steps=options.steps, guidance=options.guidance
    )
    config = pipeline.config
    if len(config.shape) != 3:
        raise UserError(f"{config.name} carries points in the plane, not images: use `sample`")
    if config.source.kind == "gaussian" and not options.reverse:
        raise UserError(f"{config.name} starts from noise, not from images: use `sample`, or translate --reverse")
    failed = 0
    with tqdm(total=len(pairs), desc="translate", unit="image", dynamic_ncols=True) as bar:
        todo = iter(pairs)
        while chunk := list(islice(todo, options.batch_size)):
            images, outputs = load(chunk, config.shape)
            failed += len(chunk) - len(images)
            if images:
                labels = None if options.labels is None else torch.full((len(images),), options.labels)
                batch = torch.stack(images)
                results = pipeline.translate(batch, labels, reverse=options.reverse, batch_size=options.batch_size)
                for image, output in zip(results, outputs, strict=True):
                    write(image, output)
            bar.update(len(chunk))
    log.info(
        "%d translated into %s, %d failed; NFE %d",
        len(pairs) - failed,
        options.output,
        failed,
        pipeline.evaluations,
    )
    return 1 if failed else 0


def plan(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """(file in, file out) for each image, in the order of their paths. Raises UserError if two would collide."""
    if source.is_file():
        return [(source, output / f"{source.stem}.png" if output.is_dir() else output.with_suffix(".png"))]
    if not source.is_dir():
        raise UserError(f"--input: found {source}, which is not there; accepted: an image file or a folder")
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS and path.is_file())
    if not files:
        raise UserError(f"--input: found no images in {source}; accepted endings: {', '.join(sorted(IMAGE_ENDINGS))}")
    planned: dict[Path, Path] = {}
    for path in files:
        if output.resolve() in path.resolve().parents:
            continue  # an earlier run's results, where OUT lies inside IN
        target = output / path.relative_to(source).with_suffix(".png")
        if target in planned:
            raise UserError(f"--input: {planned[target]} and {path} would both become {target}; rename one of them")
        planned[target] = path
    return [(path, target) for target, path in planned.items()]


def load(chunk: list[tuple[Path, Path]], shape: tuple[int, ...]) -> tuple[list[Tensor], list[Path]]:
    """The readable images of a chunk and where each goes; the others are named on the log."""
    images, outputs = [], []
    for path, output in chunk:
        try:
            images.append(load_image(path, shape))  # type: ignore[arg-type]
            outputs.append(output)
        except UserError as error:
            log.warning("failed: %s", error)
    return images, outputs


def write(image: Tensor, path: Path) -> None:
    """Aside and renamed, so that a killed run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    to_pil(image).save(part, format="PNG")
    os.replace(part, path)
