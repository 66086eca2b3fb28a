"""The verb `edit`: image files in, edited image files out; or anagrams and hybrids, out of noise.

A result depends on the weights, the settings and the bytes of its own input alone, as one of `translate` does.
"""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowferry.configs.file_options import EditOptions
from flowferry.configs.images import ReadConfig
from flowferry.configs.labels import parse_labels
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.image_io import load_image
from flowferry.datasets.image_writing import WRITTEN, check_channels, encode, format_named
from flowferry.pipelines.flow.edits import VIEWS, lowpass
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.prompts import prompted, told_texts
from flowferry.pipelines.storage.files import prepare_folder, write_aside, write_png
from flowferry.pipelines.translate_tree import opened, reading, take_files, trained_reading
from flowferry.pipelines.translation.edits import EDITS, Edit
from flowferry.pipelines.translation.transforms import Transform
from flowferry.pipelines.translation.translator import Translator
from flowferry.pipelines.visualization.grids import caption, path_frames, save_gif, sheet

log = logging.getLogger("flowferry")

COUNT = 16  # anagrams or hybrids out of noise, unless asked otherwise
ON_SHEET = 16  # of these, at most


def run(options: EditOptions) -> int:
    """Edit `options.input` into `options.output`, or make new images there; return the exit code."""
    check_options(options)
    run = opened(options)
    pipeline = prompted(run.pipeline, options)
    run = run._replace(pipeline=pipeline)
    translator = editor_of(pipeline, options)
    if options.input is None:
        return new_images(translator, options) if run.state.is_main_process else 0
    edit = translator.transform
    assert isinstance(edit, Edit)
    settings = {"edit": edit.name, "resample": edit.resample, "sigma": edit.sigma, "mask": edit.mask.tolist()}
    settings |= {"starts": list(edit.starts), "labels": list(edit.classes), "views": list(edit.views)}
    return take_files(translator, options.input, options, run, settings | told_texts(pipeline))


def editor_of(pipeline: Pipeline, options: EditOptions) -> Translator:
    """Return what edits as the options say. Raises UserError for options that the pipeline cannot follow."""
    check_pipeline(pipeline, options)
    side = pipeline.config.source if EDITS[options.edit].start is None else pipeline.config.target
    how = reading(trained_reading(side), options)
    transform: Any = {"classes": asked_classes(options, pipeline.config), "views": asked_views(options)}
    if options.mask is not None:
        transform["mask"] = load_mask(options.mask, pipeline.config.shape, how)
    transform |= {"sigma": options.sigma} if options.resample is None else {"resample": options.resample}
    if (usual := EDITS[options.edit].start) is not None:
        transform["starts"] = (usual,) if options.start is None else options.start
        transform["variants"] = len(transform["starts"])
    edit = Edit(pipeline=pipeline, seed=options.seed, name=options.edit, **transform)
    for variant in range(1, edit.variants + 1):  # what the pipeline cannot do is refused here, before it is evaluated
        edit.trajectory(torch.zeros(1, *pipeline.config.shape), [variant])
    return Translator(transform=edit, reading=how, restore_size=options.restore_size)


# --- what is asked for ------------------------------------------------------------------------------------


def check_options(options: EditOptions) -> None:
    """Raise UserError for options that the edit does not take, and for a mask that is missing."""
    kind = EDITS[options.edit]
    takes = {*kind.takes, "count" if kind.start is None else "start"}
    for name in ("start", "count", "mask", "resample", "view", "sigma"):
        if (value := getattr(options, name)) is not None and name not in takes:
            got = " ".join(map(str, value)) if isinstance(value, tuple) else value
            raise UserError(f"--{name}: got {got}, which {options.edit} does not take, expected none")
    if "mask" in takes and options.mask is None:
        raise UserError("--mask: got none, expected an image file, or a rectangle such as 0.5,0,1,1 for the right half")


def check_pipeline(pipeline: Pipeline, options: EditOptions) -> None:
    """Raise UserError for options that the pipeline cannot follow, before any file is read."""
    config = pipeline.config
    if not config.is_image:
        raise UserError(f"edit: got {config.name}, which carries points in the plane, expected images")
    needs_images = EDITS[options.edit].start is not None or not config.source.is_noise
    if needs_images and options.input is None:
        raise UserError("--input: got none, expected an image file or a folder of them")
    for name in ("count",) if needs_images else ("input", "html", "suffix", "restore_size"):
        if value := getattr(options, name):
            option, source = name.replace("_", "-"), "images" if needs_images else "noise"
            raise UserError(f"--{option}: got {value} for {config.name}, which starts from {source}, expected none")
    if not needs_images and format_named(options.output.name):
        raise UserError(f"--output: got {options.output}, expected a folder for new images")
    if options.format is not None:
        check_channels(options.format, config.shape[0])
    for view in asked_views(options):
        if VIEWS[view].see(torch.zeros(1, *config.shape)).shape[1:] != config.shape:
            raise UserError(f"--view: got {view} of images {config.shape[2]} × {config.shape[1]}, expected square ones")


def asked_views(options: EditOptions) -> tuple[str, ...]:
    """Return the views of an anagram, the identity first; none of another edit."""
    return ("identity", *(options.view or ("rotate180",))) if "view" in EDITS[options.edit].takes else ()


def asked_classes(options: EditOptions, config: Config) -> tuple[int | None, ...]:
    """Return the class of each condition, None for no class. Raises UserError for another number of classes."""
    given = [label for text in options.labels or () for label in parse_labels(text, config)]
    if options.labels is None:  # what is asked for by --prompt, in its order
        given = list(range(len(options.prompt)))
    views = asked_views(options)
    able = (0, len(views)) if views else EDITS[options.edit].labels
    if len(given) not in able:
        expected = " or ".join(map(str, able))
        what = "--prompt" if options.prompt and options.labels is None else "--labels"
        raise UserError(f"{what}: got {len(given)} classes, expected {expected} for {options.edit}")
    return (*[None] * (max(able) - len(given)), *given)


def load_mask(text: str, shape: tuple[int, ...], how: ReadConfig) -> Tensor:
    """Return a mask, bool [H, W]: the white parts of an image file, framed as images are, or a rectangle in shares.

    Raises UserError for what is neither, and for a mask without a pixel.
    """
    _, height, width = shape
    if Path(text).is_file():
        mask = load_image(Path(text), (1, height, width), replace(how, background="black"))[0] > 0
    elif re.fullmatch(r"[\d.]+(,[\d.]+){3}", text) and 0 <= max(map(float, text.split(","))) <= 1:
        left, top, right, bottom = map(float, text.split(","))
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    else:
        expected = "an image file, or LEFT,TOP,RIGHT,BOTTOM in shares of width and height from 0 to 1"
        raise UserError(f"--mask: got {text!r}, expected {expected}")
    if not mask.any():
        raise UserError(f"--mask: got {text}, where nothing is to be made, expected white parts or a larger rectangle")
    return mask


# --- out of noise -----------------------------------------------------------------------------------------


def new_images(translator: Translator, options: EditOptions) -> int:
    """Write new images and their sheet and GIF into the folder `options.output`; return the exit code."""
    pipeline, edit, folder = translator.pipeline, translator.transform, options.output
    count, format = options.count or COUNT, options.format or format_of(pipeline.config)
    files = [folder / f"{index:05d}{WRITTEN[format].endings[0]}" for index in range(count)]
    prepare_folder(folder, "--output")
    if there := [file for file in files if file.exists() and not options.overwrite]:
        raise UserError(f"--output: got {there[0]}, which is there already; expected another folder, or --overwrite")
    x0, results = drawn(translator, count, options.seed)
    for file, result in zip(files, results, strict=True):
        write_aside(file, encode(result, format))
    if options.sheet:
        rows = seen(torch.stack(results[:ON_SHEET]), edit)
        write_png(folder / "sheet.png", sheet(list(rows.items()), caption(pipeline.config, edit.told)))
    if options.gif:
        points = torch.stack(list(translator.trajectory(x0[:ON_SHEET], [1] * len(x0[:ON_SHEET]))))
        save_gif(path_frames(pipeline.config, points, edit.grid(), across=4), folder / "path.gif")
    log.info("%d images in %s; NFE %d", count, folder, edit.nfe)
    return 0


def drawn(translator: Translator, count: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return `count` source samples [C, H, W], and what becomes of them."""
    x0 = [x.cpu() for x in translator.pipeline.draw_source(count, seed=seed)]
    return x0, translator.translate_batch(x0, [1] * count)


def format_of(config: Config) -> str:
    """Return the format of new images: PNG, where it holds so many channels, else TIFF."""
    return "png" if config.shape[0] in WRITTEN["png"].channels else "tiff"


def seen(images: Tensor, transform: Transform) -> dict[str, Tensor]:
    """Return anagrams [B, C, H, W] in each of their views, or hybrids from nearby and from afar."""
    assert isinstance(transform, Edit)
    if not transform.views:
        return {"from nearby": images, "from afar": lowpass(images, transform.sigma)}
    return {"as it is" if view == "identity" else view: VIEWS[view].see(images) for view in transform.views}
