"""Pairs of images: pipelines beside copying, a U-Net by plain regression and pix2pix, on one task. Asserts nothing.

    python tests/benchmarks/bench_pairs.py line2colour --emoji FOLDER --minutes 15 --seeds 0 1 2 --steps 1 8

Each entry trains for the same minutes on the same threads, one after the other; entries that differ in solver options
only train once. Figures are of the pairs that the project holds out of the folders. Into --output go results.json,
table.md, the names of the held-out pairs and a sheet of twelve of them, evenly spaced, after each entry. The same
command again goes on where it was stopped. What is measured: README.md beside this file.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pair_figures
import pair_tasks
import rivals
import torch
from bench_quality import LAUNCH, folder_of
from pair_tables import Results
from pair_tasks import Data
from torch import Tensor

from flowferry.configs.cli import parse_train
from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.locations import default_data_root
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.models.encoder import Encoder
from flowferry.pipelines.evaluation.encoder import trained_encoder
from flowferry.pipelines.hardware import use_cores
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage.files import write_json
from flowferry.pipelines.training.logger import read_metrics

COPY, FLOOR = "copy", "training pictures"


class Contender(NamedTuple):
    """A row of the table: what translates held-out images, and what its training took."""

    label: str
    translate: Callable[..., Tensor]
    """translate(seed=the noise's) -> results [N, C, H, W] on the CPU."""
    cost: dict[str, float]


class Run(NamedTuple):
    """What all entries have in common: the command line, the two folders and the seed."""

    options: argparse.Namespace
    folders: tuple[Path, Path]
    seed: int

    @property
    def output(self) -> Path:
        """The folder of what is trained."""
        return self.options.output / self.options.task / f"seed {self.seed}"


# --- the project's own entries --------------------------------------------------------------------------


def training_words(told: str) -> list[str]:
    """Return the words of "NAME --option value …" on which training depends: all but those of the solver's options."""
    kept, words = [], iter(shlex.split(told))
    for word in words:
        if not word.startswith("--solver."):
            kept.append(word)
        elif "=" not in word:
            next(words, None)
    return kept


def command_of(words: list[str], run: Run) -> list[str]:
    """Return the options of `train` for an entry. Those of the task, which are the same for all, come last."""
    options, shape = run.options, map(str, pair_tasks.TASKS[run.options.task].shape)
    ours = {"minutes": options.minutes, "threads": options.threads, "epochs": 10**6}
    ours |= {"show-epochs": 0, "checkpoint-epochs": 0}  # minutes alone end it; sheets and checkpoints only at the end
    source, target = map(str, run.folders)
    command = ["--pipeline", *words, "--source.root", source, "--target.root", target, "--shape", *shape]
    command += [f"--train.{field}={value}" for field, value in ours.items()]
    return [*command, "--seed", str(run.seed), "--data-root", str(options.data_root)]


def asked(words: list[str], run: Run) -> Config:
    """Return the configuration of an entry. Raises UserError where its options are not understood."""
    return parse_train(command_of(words, run)).config


def launch(command: list[str], folder: Path) -> None:
    """Train in a process of its own; what it says goes into a file `log`."""
    with (folder / "log").open("ab") as log:
        done = subprocess.run([sys.executable, str(LAUNCH), "train", *command], stdout=log, stderr=log)
    if done.returncode:
        sys.exit(f"{folder.name} ended with exit code {done.returncode}: see {folder / 'log'}")


def train(words: list[str], run: Run) -> Path:
    """Train a pipeline to its last minute, unless it was; return its folder."""
    folder = folder_of(shlex.join(words), run.output)
    command, note = command_of(words, run), folder / "trained.json"
    kept = json.loads(note.read_text()) if note.exists() else {"command": command}
    if kept["command"] != command:
        sys.exit(f"bench_pairs: {folder} was trained with other options, expected another --output")
    if not kept.get("done"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(note, kept)
        launch([*command, "--output-dir", str(folder)], folder)
        write_json(note, kept | {"done": True})
    return folder


def flow(told: str, run: Run, data: Data) -> Iterator[Contender]:
    """Train a pipeline, and yield it as its options say, or with each number of steps that is asked for."""
    folder = train(training_words(told), run)
    last = [row for row in read_metrics(folder / "metrics.jsonl") if "perf/minutes" in row][-1]
    minutes, taken = last["perf/minutes"], last["step"]
    use_cores(run.options.threads)
    made, solver = Pipeline.from_pretrained(folder), asked(shlex.split(told), run).solver
    pipeline = Pipeline(replace(made.config, solver=solver), made.model, made.label_classifier)
    cost = {
        "minutes": minutes,
        "training steps": taken,
        "images/s": taken * made.config.train.batch_size / (60 * minutes),
        "parameters": sum(p.numel() for p in made.model.parameters()),
    }
    asks = run.options.steps if "--solver.num-steps" not in told else None
    for steps in asks or [solver.num_steps]:
        if steps <= (pipeline.objective.max_steps or steps):
            used = pipeline.using(steps=steps)
            label = f"{told}, {steps} step{'s' if steps > 1 else ''}" if asks else told
            yield Contender(label, partial(carry, used, data.source), cost | {"nfe": used.nfe})


def carry(pipeline: Pipeline, images: Tensor, seed: int) -> Tensor:
    return pipeline.translate(images, seed=seed).cpu()


# --- the others -----------------------------------------------------------------------------------------


def rival(told: str, run: Run, data: Data) -> Contender:
    """Train a rival, unless it was."""
    options = run.options
    recipe = rivals.Recipe(width=options.ngf, batch_size=options.rival_batch_size)
    how = {"minutes": options.minutes, "threads": options.threads, "seed": run.seed}
    trained = rivals.kept(run.output / f"{told}.pt", told, *data.train, recipe, **how)
    return Contender(told, partial(rivals.translate, trained.network, data.source), trained.figures)


def contenders(told: str, run: Run, data: Data) -> Iterator[Contender]:
    """Yield the rows of one entry."""
    if told == COPY:
        yield Contender(COPY, lambda seed: data.source, {"nfe": 0})
    elif told in rivals.RIVALS:
        yield rival(told, run, data)
    else:
        yield from flow(told, run, data)


def measure(contender: Contender, truth: Tensor, encoder: Encoder, variants: int) -> tuple[dict[str, float], Tensor]:
    """Return all figures of a contender, and its results for the first seed of the noise."""
    results = contender.translate(seed=0)
    figures = pair_figures.figures_of(results, truth, encoder)
    if variants > 1 and not torch.equal(second := contender.translate(seed=1), results):
        drawn = [results, second, *(contender.translate(seed=noise) for noise in range(2, variants))]
        figures["psnr of the best"] = pair_figures.best_psnr(drawn, truth)
    return figures | contender.cost, results


# --- the run --------------------------------------------------------------------------------------------


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("task", choices=pair_tasks.TASKS)
    add(
        "--entries",
        nargs="+",
        metavar="'NAME [OPTION …]'",
        help=f"{COPY}, {', '.join(rivals.RIVALS)}, or a pipeline with options of `train`; default: those of the task",
    )
    add("--minutes", type=float, default=15.0, help="of training, each")
    add("--threads", type=int, default=0, help="of the CPU; 0: all cores")
    add("--seeds", type=int, nargs="+", default=[0], help="each trains all entries anew")
    add("--steps", type=int, nargs="+", help="of the solver, each a row; entries may say their own")
    add("--variants", type=int, default=3, help="seeds of the noise, of which the best by PSNR is measured too")
    add("--count", type=int, default=1000, help="held-out pairs to measure, at most, evenly spaced")
    add("--ngf", type=int, default=rivals.Recipe.width, help="width of the rivals")
    add("--rival-batch-size", type=int, default=rivals.Recipe.batch_size)
    add("--emoji", type=Path, default=default_data_root() / "emoji", help="folder of line2colour and noto2twemoji")
    add("--garments", type=int, default=30_000, help="images of FashionMNIST in edges2garments")
    add("--data-root", type=Path, default=default_data_root())
    add("--output", type=Path, default=Path("runs/pairs"))
    options = parser.parse_args(argv)
    options.entries = options.entries or list(pair_tasks.TASKS[options.task].entries)
    options.command = shlex.join(
        ["python", "tests/benchmarks/bench_pairs.py", *(sys.argv[1:] if argv is None else argv)]
    )
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    task = pair_tasks.TASKS[options.task]
    use_cores(options.threads)
    try:
        folders = task.folders(options)
        runs = [Run(options, folders, seed) for seed in options.seeds]
        for told in options.entries:  # before anything is trained
            if told != COPY and told not in rivals.RIVALS:
                asked(shlex.split(told), runs[0])
        everything = pair_tasks.load(*folders, task.shape, options.data_root)
    except UserError as error:
        sys.exit(f"bench_pairs: {error}")
    data = everything.evenly(options.count)
    results, targets = Results(options, everything, data), everything.train_targets
    encoder = trained_encoder(ImageFolderConfig(root=str(folders[1])), data.train[1], folder=results.folder).encoder
    for run in runs:
        for told in options.entries:
            for contender in contenders(told, run, data):
                results.add(contender.label, run.seed, *measure(contender, data.truth, encoder, options.variants))
    floor = pair_figures.distances(targets[pair_tasks.spaced(len(targets), len(data.truth))], data.truth, encoder)
    results.add(FLOOR, runs[0].seed, floor)
    print(results.markdown())


if __name__ == "__main__":
    main()
