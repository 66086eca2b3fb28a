"""The verb `translate`: image files in, translated image files out.

A result depends on the weights, the settings and the bytes of its own input alone. The network always sees blocks of
one size, so that neither `--batch-size`, nor other files, nor the number of processes changes a bit of it.
"""

import logging
from collections import Counter
from dataclasses import fields
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.contrib.logging import logging_redirect_tqdm

from flowferry.configs.images import ReadConfig
from flowferry.configs.labels import parse_labels
from flowferry.configs.options import TranslateOptions
from flowferry.configs.schema import Config
from flowferry.configs.validation import BrokenOff, UserError
from flowferry.datasets.backgrounds import check_background
from flowferry.datasets.file_tree import Item, OutputTree
from flowferry.datasets.image_formats import ENDINGS
from flowferry.datasets.image_writing import check_channels
from flowferry.datasets.rng import derive_seed
from flowferry.pipelines.hardware import run_precision, use_cores
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.checkpoint import MANIFEST
from flowferry.pipelines.storage.hub import find_weights
from flowferry.pipelines.training.distributed import init_process_group
from flowferry.pipelines.training.environment import launched
from flowferry.pipelines.translate_file import one_file
from flowferry.pipelines.translation import gallery
from flowferry.pipelines.translation.entries import Entry
from flowferry.pipelines.translation.manifest import FAILURES, WORK, Manifest
from flowferry.pipelines.translation.sizes import Sizes, choose_sizes
from flowferry.pipelines.translation.summary import summarize, tally, translation_bar
from flowferry.pipelines.translation.translator import Translator, translate_stream

log = logging.getLogger("flowferry")

PATIENCE = timedelta(days=7)  # how long processes wait for one another


def run(options: TranslateOptions) -> int:
    """Translate `options.input` into `options.output`; return the exit code, 1 if any file failed."""
    if options.background is not None:
        check_background(options.background)
    folder = find_weights(options.pipeline)
    with launched():
        init_process_group(PATIENCE)
        state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    use_cores()
    precision = run_precision(options.precision, state.device)
    pipeline = Pipeline.from_pretrained(folder, device=state.device, precision=precision)
    pipeline = pipeline.using(**options.sampling)
    check(pipeline, options)
    if options.labels is None and pipeline.config.asked_classes:
        pipeline = pipeline.using(guidance=0)  # unconditional, because no class is asked for
    translator = Translator(
        pipeline=pipeline,
        reading=reading(pipeline, options),
        label=asked_label(pipeline.config, options),
        reverse=options.reverse,
        restore_size=options.restore_size,
        sizes=sizes(pipeline, options),
        seed=options.seed,
    )
    check_variants(translator, options)
    if options.input.is_file():
        return one_file(translator, options) if state.is_main_process else 0
    header = settings(translator, options, folder) | {"precision": precision}
    return whole_tree(translator, options, state, header)


def check(pipeline: Pipeline, options: TranslateOptions) -> None:
    """Raise UserError for options that the pipeline cannot follow, before any file is read."""
    config = pipeline.config
    if not config.is_image:
        raise UserError(
            f"translate: got {config.name}, which carries points in the plane, expected images; use `sample`"
        )
    if config.source.is_noise and not options.reverse:
        raise UserError(
            f"translate: got {config.name}, which starts from noise, expected images; use `sample`, or --reverse"
        )
    pipeline.check_direction(reverse=options.reverse)
    if options.format is not None:
        check_channels(options.format, config.shape[0])
    asked_label(config, options)


def check_variants(translator: Translator, options: TranslateOptions) -> None:
    """Raise UserError where several variants are asked for and all of them would be the same."""
    if options.variants > 1 and not translator.is_random:
        way_out = "" if options.reverse else ", or noise on the source: --source-noise"
        raise UserError(
            f"--variants: got {options.variants}, which would all be the same without noise; expected 1{way_out}"
        )


def asked_label(config: Config, options: TranslateOptions) -> int | None:
    """Return the label of the class that the options ask for; None for none. Raises UserError for anything else."""
    labels = [None] if options.labels is None else parse_labels(options.labels, config)
    if len(labels) != 1:
        raise UserError(f"--labels: got {options.labels!r}, expected one class for all images")
    return labels[0]


def trained_reading(pipeline: Pipeline, options: TranslateOptions) -> ReadConfig:
    """Return how the images of the side that is translated were read in training."""
    start = pipeline.config.target if options.reverse else pipeline.config.source
    return start if isinstance(start, ReadConfig) else ReadConfig(background="black")  # as data sets by name are


def reading(pipeline: Pipeline, options: TranslateOptions) -> ReadConfig:
    """Return how to read images: as the options say, else as in training."""
    trained = trained_reading(pipeline, options)
    asked = {f.name: getattr(options, f.name) or getattr(trained, f.name) for f in fields(ReadConfig)}
    return ReadConfig(**asked)


def sizes(pipeline: Pipeline, options: TranslateOptions) -> Sizes:
    """Return at which size to translate: as the options say, else as the pipeline was trained."""
    crops = trained_reading(pipeline, options).resize == "crop"
    tiles: Any = {"tile": options.tile, "overlap": options.overlap}
    return choose_sizes(pipeline, options.size, **tiles, resize=options.resize, crops=crops)


def settings(translator: Translator, options: TranslateOptions, folder: Path) -> Entry:
    """Return all that an output depends on besides its input and its path: the first line of the manifest."""
    solver = translator.pipeline.config.solver
    return {
        "flowferry": weights.VERSION,
        "weights_sha256": weights.digest(folder),
        "solver": solver.name,
        "steps": solver.num_steps,
        "stride": solver.stride,
        "guidance": solver.guidance,
        "source_noise": solver.source_noise,
        "seed": options.seed if translator.is_random else None,
        "labels": translator.label,
        "reverse": options.reverse,
        "resize": translator.reading.resize,
        **translator.sizes._asdict(),
        "restore_size": options.restore_size,
        "background": translator.reading.background,
        "range": translator.reading.range,
        "suffix": options.suffix,
        "format": options.format,
    }


# --- a tree ---------------------------------------------------------------------------------------------


def whole_tree(translator: Translator, options: TranslateOptions, state: PartialState, header: Entry) -> int:
    """Translate this process's share of the files; return the exit code.

    The main process opens the manifest before all of them begin, and closes it and sums up when all have ended.
    Raises BrokenOff where the disk takes no more files; the next run then goes on, as after a kill.
    """
    asked = ("sheet.png", options.sheet), ("path.gif", options.gif), ("index.html", options.html)
    shown = [name for name, wanted in asked if wanted]
    own = {MANIFEST, FAILURES, WORK, *shown}
    named: Any = {"keep_ending": options.suffix, "variants": options.variants, "format": options.format}
    links = options.follow_links
    tree = OutputTree(options.input, leave_out=options.output, follow_links=links, **named, reserved=own)
    total = survey(tree, options, state)
    manifest = Manifest(options.output, header, rank=state.process_index)
    if state.is_main_process:
        manifest.open(tree.walk(), shown, overwrite=options.overwrite)
    state.wait_for_everyone()
    counts, broken = Counter[str](), list[BrokenOff]()
    bar = translation_bar(total, shown=state.is_main_process)
    with bar, logging_redirect_tqdm():
        items = (item for item in tree.walk() if is_mine(item, state))
        try:
            how: Any = {"batch_size": options.batch_size, "progress": bar.update}
            stream = translate_stream(translator, manifest, tree.root, items, **how)
            for _, results in groupby(stream, key=lambda result: result.entry["input"]):
                tally(counts, list(results))
        except BrokenOff as error:
            broken.append(error)
    everyone: Counter[str] = sum(map(Counter, gather_object([dict(counts)])), Counter())
    broken = gather_object(broken)
    if broken and state.is_main_process:
        manifest.abandon()
        raise broken[0]
    if broken:
        return BrokenOff.exit_code
    if state.is_main_process:
        manifest.close()
        summarize(everyone, tree, options.output, nfe=translator.pipeline.nfe, seconds=bar.format_dict["elapsed"])
        gallery.show(translator, tree, options.output, shown)
    state.wait_for_everyone()
    return 1 if everyone["failed"] else 0


def survey(tree: OutputTree, options: TranslateOptions, state: PartialState) -> int:
    """Return how many files this process is to translate. Raises UserError for a tree that cannot be translated."""
    if not tree.root.is_dir():
        raise UserError(f"--input: got {tree.root}, which does not exist, expected an image file or a folder")
    if options.output.exists() and not options.output.is_dir():
        raise UserError(f"--output: got the file {options.output}, expected a folder for a folder of images")
    if tree.root.resolve().is_relative_to(options.output.resolve()):
        raise UserError(f"--output: got {options.output}, which is, or holds, the input; expected another folder")
    total = mine = 0
    for item in tree.walk():
        total += 1
        mine += is_mine(item, state)
    if not total:
        skipped = tree.describe_skipped("--follow-links") or "it is empty"
        raise UserError(f"--input: got no images in {tree.root} ({skipped}), expected the endings {', '.join(ENDINGS)}")
    return mine


def is_mine(item: Item, state: PartialState) -> bool:
    """Return whether a file is this process's. Its name decides: a changing tree is shared without gaps or doubles."""
    return derive_seed(item.name) % state.num_processes == state.process_index
