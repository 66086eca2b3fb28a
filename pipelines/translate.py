"""The verb `translate`: image files in, translated PNG files out.

What becomes of a file depends on the weights, the settings and its own bytes alone: the network always sees blocks of
one size, so that neither `--batch-size`, nor its neighbours, nor the number of processes changes a bit of it.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from configs.checks import UserError
from configs.cli import TranslateOptions
from datasets.imagefiles import check_background
from datasets.keyed import key
from datasets.tree import IMAGE_ENDINGS, Item, Tree
from pipelines import showing, weights
from pipelines.machine import use_cores
from pipelines.outputs import FAILURES, MANIFEST, WORK, Entry, Outputs
from pipelines.pipeline import Pipeline
from pipelines.rendezvous import rendezvous
from pipelines.translator import Ended, Translator, carried

log = logging.getLogger("flowferry")

TOLD = 10  # failures that are told on the screen; all of them are in the file


def run(options: TranslateOptions, folder: Path) -> int:
    """Translates `options.input` into `options.output`; returns 1 if any file failed."""
    if options.background is not None:
        check_background(options.background)
    patience = timedelta(days=7)
    rendezvous(patience)
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=patience)
    use_cores()
    pipeline = Pipeline.from_pretrained(folder, device=state.device)
    pipeline = pipeline.using(solver=options.solver, steps=options.steps, guidance=options.guidance)
    check(pipeline, options)
    if options.labels is None and pipeline.config.asked_classes:
        pipeline = pipeline.using(guidance=0)  # no class is asked for
    translator = Translator(pipeline, options)
    if options.input.is_file():
        return one_file(translator, options) if state.is_main_process else 0
    return whole_tree(translator, options, state, settings(translator, folder))


def check(pipeline: Pipeline, options: TranslateOptions) -> None:
    """What can be known before the first file is read. Raises UserError."""
    config = pipeline.config
    if len(config.shape) != 3:
        raise UserError(f"{config.name} carries points in the plane, not images: use `sample`")
    if config.source.kind == "gaussian" and not options.reverse:
        raise UserError(f"{config.name} starts from noise, not from images: use `sample`, or translate --reverse")
    pipeline.check_direction(reverse=options.reverse)
    pipeline.checked_labels(None if options.labels is None else torch.tensor([options.labels]), 1)


def settings(translator: Translator, folder: Path) -> Entry:
    """All that an output depends on beside its input and its path: the first line of the manifest."""
    options, solver = translator.options, translator.pipeline.config.solver
    resize, background = translator.framing
    return {
        "flowferry": weights.VERSION,
        "weights_sha256": weights.digest(folder),
        "solver": solver.name,
        "steps": solver.steps,
        "guidance": solver.guidance,
        "labels": options.labels,
        "reverse": options.reverse,
        "resize": resize,
        "restore_size": options.restore_size,
        "background": background,
        "suffix": options.suffix,
    }


def one_file(translator: Translator, options: TranslateOptions) -> int:
    """A file into a file, or into a folder that is there. No manifest: it is always done."""
    source, output = options.input, options.output
    for name in ("sheet", "gif", "html", "suffix"):
        if getattr(options, name):
            raise UserError(f"--{name}: found the one file {source}, accepted is a folder of images")
    path = output / f"{source.stem}.png" if output.is_dir() else output.with_suffix(".png")
    if path.resolve() == source.resolve():
        raise UserError(f"--output: {path} is the input itself; accepted is another file")
    loaded = translator.load(source.parent, None, (Item(source.name, path.name), None))
    if isinstance(loaded, Ended):
        log.warning("failed: %s: %s", source, loaded.entry["error"])
        return 1
    data = translator.encode(translator.carry([loaded.image])[0], loaded.size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        weights.write_aside(path, data)
    except OSError as error:
        raise UserError(f"--output: {path} cannot be written ({error.strerror or error})") from error
    log.info("%s; NFE %d%s", path, translator.pipeline.evaluations, "; first frame only" if loaded.animated else "")
    return 0


# --- a tree ---------------------------------------------------------------------------------------------


def whole_tree(translator: Translator, options: TranslateOptions, state: PartialState, header: Entry) -> int:
    """Every process carries its share of the files; the main one keeps the books before and after."""
    shown = {"sheet.png": options.sheet, "path.gif": options.gif, "index.html": options.html}
    reserved = {MANIFEST, FAILURES, WORK, *(name for name, asked in shown.items() if asked)}
    tree = Tree(options.input, leave_out=options.output, keep_ending=options.suffix, reserved=reserved)
    total = survey(tree, options, state)
    outputs = Outputs(options.output, header, rank=state.process_index)
    if state.is_main_process:
        outputs.open(overwrite=options.overwrite)
    state.wait_for_everyone()
    counts: Counter[str] = Counter()
    bar = tqdm(total=total, desc="translate", unit="image", dynamic_ncols=True, disable=not state.is_main_process)
    with bar, logging_redirect_tqdm():
        for ended in carried(translator, outputs, tree.root, share(tree, state)):
            counts.update([ended.what, *(["animated"] if ended.entry.get("animated") else [])])
            if ended.what == "failed" and counts["failed"] <= TOLD:
                log.warning("failed: %s: %s", ended.entry["input"], ended.entry["error"])
            bar.update()
    everyone: Counter[str] = sum(map(Counter, gather_object([dict(counts)])), Counter())
    if state.is_main_process:
        outputs.close()
        summarise(everyone, translator.pipeline, tree, options.output, seconds=bar.format_dict["elapsed"])
        showing.show(translator, tree)
    state.wait_for_everyone()
    return 1 if everyone["failed"] else 0


def summarise(counts: Counter[str], pipeline: Pipeline, tree: Tree, output: Path, *, seconds: float) -> None:
    """What became of everything that lay in the tree, in a few lines."""
    speed = f" at {counts['translated'] / seconds:.1f} images/s" if counts["translated"] else ""
    told = [f"{counts['translated']:,} translated{speed}, NFE {pipeline.evaluations}"]
    told += [f"{counts[what]:,} {what}" for what in ("already there", "failed") if counts[what]]
    log.info("%s: %s", output, "; ".join(told))
    if tree.passed_over:
        left = ", ".join(f"{number:,} {what}{'s' * (number > 1)}" for what, number in sorted(tree.passed_over.items()))
        log.info("passed over: %s", left)
    if counts["animated"]:
        log.info("%s held several frames: the first was translated", f"{counts['animated']:,}")
    if counts["failed"]:
        log.warning("what failed, and why: %s", output / FAILURES)


def survey(tree: Tree, options: TranslateOptions, state: PartialState) -> int:
    """Walks once before anything is written: how many files this process has. Raises UserError for a bad tree."""
    if not tree.root.is_dir():
        raise UserError(f"--input: found {tree.root}, which is not there; accepted: an image file or a folder")
    if options.output.exists() and not options.output.is_dir():
        raise UserError(f"--output: found the file {options.output}; accepted for a folder of images: a folder")
    if tree.root.resolve().is_relative_to(options.output.resolve()):
        raise UserError(f"--output: {options.output} is, or holds, the input {tree.root}; accepted: another folder")
    total = mine = 0
    for item in tree.walk():
        total += 1
        mine += is_mine(item, state)
    if not total:
        raise UserError(f"--input: found no images in {tree.root}; accepted endings: {', '.join(IMAGE_ENDINGS)}")
    return mine


def is_mine(item: Item, state: PartialState) -> bool:
    """By name, so that a tree that changes meanwhile is still shared without gaps and doubles."""
    return key(item.name) % state.num_processes == state.process_index


def share(tree: Tree, state: PartialState) -> Iterator[Item]:
    return (item for item in tree.walk() if is_mine(item, state))
