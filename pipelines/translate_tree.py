"""A folder of image files: each process takes its share through the network, and the main one keeps the manifest."""

import logging
from collections import Counter
from dataclasses import fields
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.contrib.logging import logging_redirect_tqdm

from flowferry.configs.components import SamplerConfig
from flowferry.configs.file_options import FilesOptions
from flowferry.configs.images import ReadConfig
from flowferry.configs.serve_options import ServeOptions
from flowferry.configs.validation import BrokenOff, UserError
from flowferry.datasets.backgrounds import check_background
from flowferry.datasets.file_tree import Item, OutputTree
from flowferry.datasets.image_formats import ENDINGS
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
from flowferry.pipelines.translation.summary import summarize, tally, translation_bar
from flowferry.pipelines.translation.translator import Translator, translate_stream

log = logging.getLogger("flowferry")

PATIENCE = timedelta(days=7)  # how long processes wait for one another


class Opened(NamedTuple):
    """A trained pipeline on the device of this process, run as the options say."""

    pipeline: Pipeline
    folder: Path
    """Of its weights."""
    precision: str
    state: PartialState


def opened(options: FilesOptions | ServeOptions) -> Opened:
    """Return the pipeline that the options name. Raises UserError where there is none, and for a wrong background."""
    if options.background is not None:
        check_background(options.background)
    folder = find_weights(options.pipeline)
    with launched():
        init_process_group(PATIENCE)
        state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    use_cores()
    precision = run_precision(options.precision, state.device)
    pipeline = Pipeline.from_pretrained(folder, device=state.device, precision=precision)
    return Opened(pipeline.using(**options.sampling), folder, precision, state)


def reading(trained: ReadConfig, options: FilesOptions) -> ReadConfig:
    """Return how to read images: as the options say, else as in training."""
    asked = {f.name: getattr(options, f.name) or getattr(trained, f.name) for f in fields(ReadConfig)}
    return ReadConfig(**asked)


def trained_reading(side: SamplerConfig) -> ReadConfig:
    """Return how the images of a pipeline's source or target were read in training."""
    return side if isinstance(side, ReadConfig) else ReadConfig(background="black")  # as data sets by name are


def take_files(translator: Translator, source: Path, options: FilesOptions, run: Opened, settings: Entry) -> int:
    """Take an image file, or a folder of them, through the network; return the exit code, 1 if any file failed.

    settings: what the results depend on besides what is said here, for the first line of the manifest.
    """
    if source.is_file():
        return one_file(translator, source, options) if run.state.is_main_process else 0
    solver = translator.pipeline.config.solver
    shared = {
        "flowferry": weights.VERSION,
        "weights_sha256": weights.digest(run.folder),
        "precision": run.precision,
        "solver": solver.name,
        "steps": solver.num_steps,
        "stride": solver.stride,
        "guidance": solver.guidance,
        "source_noise": solver.source_noise,
        "seed": translator.transform.seed if translator.transform.is_random else None,
        "resize": translator.reading.resize,
        **translator.sizes._asdict(),
        "restore_size": options.restore_size,
        "background": translator.reading.background,
        "range": translator.reading.range,
        "suffix": options.suffix,
        "format": options.format,
    }
    return whole_tree(translator, source, options, run.state, shared | settings)


def whole_tree(translator: Translator, source: Path, options: FilesOptions, state: PartialState, header: Entry) -> int:
    """Take this process's share of the files of a folder through the network; return the exit code.

    The main process opens the manifest before all of them begin, and closes it and sums up when all have ended.
    Raises BrokenOff where the disk takes no more files; the next run then goes on, as after a kill.
    """
    transform = translator.transform
    asked = ("sheet.png", options.sheet), ("path.gif", options.gif), ("index.html", options.html)
    shown = [name for name, wanted in asked if wanted]
    own = {MANIFEST, FAILURES, WORK, *shown}
    named: Any = {"keep_ending": options.suffix, "variants": transform.variants, "format": options.format}
    links = options.follow_links
    tree = OutputTree(source, leave_out=options.output, follow_links=links, **named, reserved=own)
    total = survey(tree, options, state)
    manifest = Manifest(options.output, header, rank=state.process_index)
    if state.is_main_process:
        manifest.open(tree.walk(), shown, overwrite=options.overwrite)
    state.wait_for_everyone()
    counts, broken = Counter[str](), list[BrokenOff]()
    bar = translation_bar(total, transform.verb, shown=state.is_main_process)
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
        seconds = bar.format_dict["elapsed"]
        summarize(everyone, tree, options.output, done=transform.done, nfe=transform.nfe, seconds=seconds)
        gallery.show(translator, tree, options.output, shown)
    state.wait_for_everyone()
    return 1 if everyone["failed"] else 0


def survey(tree: OutputTree, options: FilesOptions, state: PartialState) -> int:
    """Return how many files are this process's. Raises UserError for a tree that cannot be taken."""
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
