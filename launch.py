"""The front door: `python launch.py [VERB] --help`. No logic lives here, and nothing heavy is imported early."""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from configs.checks import UserError

# Threads that wait for one another sleep soon. As they come, they wait busily, and beside any other busy process a step
# on all cores then takes fifty times as long. Read by libgomp when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

USAGE = """\
usage: launch.py [VERB] --pipeline NAME [OPTIONS]

flowferry carries images from any source distribution to any target distribution.

verbs
  train       train a pipeline or go on with it (the default verb)
  sample      draw new images from a trained pipeline
  translate   translate an image file or a folder of them
  evaluate    measure a trained pipeline: quality, what is kept of the source, cost
  report      write a lab report of a run: pictures, figures, explanations
  features    train the classifier through whose features evaluate measures a data set
  export      write weights to be shared, on the Hugging Face hub or with diffusers
  list        the pipelines by name, and which are trained here

first steps
  accelerate launch launch.py --pipeline fashion2mnist --quick     a minute, no data needed
  accelerate launch launch.py --pipeline fashion2mnist             the real data
  python launch.py translate --pipeline fashion2mnist --input FOLDER --output out   with the shipped weights
  tensorboard --logdir runs

options: launch.py VERB --help; those of a pipeline: launch.py train --pipeline NAME --help
"""


def shown(text: str) -> int:
    """Prints; whoever reads may leave before the end, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def train(argv: Sequence[str]) -> int:
    from configs.cli import parse_train

    options = parse_train(argv)
    if options.print_config:
        return shown(json.dumps(options.config.to_dict(), indent=2))
    if options.inspect:
        from pipelines.pairing import inspect

        return inspect(options.config, options.folder, data_root=options.data_root)
    from pipelines.trainer import Trainer
    from pipelines.training import dry_run, run

    trainer = Trainer(options.config, options.folder, data_root=options.data_root)
    return dry_run(trainer) if options.dry_run else run(trainer)


def trained(pipeline: str) -> Path:
    """The folder with a pipeline's weights, fetched from the hub if need be."""
    from configs.places import trained_folder

    folder = trained_folder(pipeline)
    if folder.is_dir():
        if folder != Path(pipeline):
            logging.getLogger("flowferry").info("%s: the weights in %s", pipeline, folder)
        return folder
    from pipelines.hub import local

    return local(pipeline)


def sample(argv: Sequence[str]) -> int:
    from configs.cli import SampleOptions, parse

    options = parse(SampleOptions, argv, "sample")
    folder = trained(options.pipeline)
    from pipelines.sample import run

    return run(options, folder)


def translate(argv: Sequence[str]) -> int:
    from configs.cli import TranslateOptions, parse

    options = parse(TranslateOptions, argv, "translate")
    folder = trained(options.pipeline)
    from pipelines.translate import run

    return run(options, folder)


def report(argv: Sequence[str]) -> int:
    from configs.cli import ReportOptions, parse

    options = parse(ReportOptions, argv, "report")
    folder = trained(options.pipeline)
    from pipelines.report import run

    return run(options, folder)


def evaluate(argv: Sequence[str]) -> int:
    from configs.cli import EvaluateOptions, parse

    options = parse(EvaluateOptions, argv, "evaluate")
    folder = trained(options.pipeline)
    from pipelines.evaluate import run

    return run(options, folder)


def features(argv: Sequence[str]) -> int:
    from configs.cli import FeaturesOptions, named_config, parse

    options = parse(FeaturesOptions, argv, "features")
    config = named_config(options.pipeline)
    from pipelines.classifier import run

    return run(options, config)


def export(argv: Sequence[str]) -> int:
    from configs.cli import ExportOptions, parse

    options = parse(ExportOptions, argv, "export")
    folder = trained(options.pipeline)
    from pipelines.export import run

    return run(options, folder)


def list_pipelines(argv: Sequence[str]) -> int:
    from configs.cli import ListOptions, parse

    parse(ListOptions, argv, "list")
    from configs.listing import table

    return shown(table())


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "sample": sample,
    "translate": translate,
    "evaluate": evaluate,
    "report": report,
    "features": features,
    "export": export,
    "list": list_pipelines,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code: 2 for what the user can put right, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv in ([], ["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    verb = "train" if argv[0].startswith("-") else argv.pop(0)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("flowferry").setLevel(logging.INFO)
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb {verb!r}; accepted: {', '.join(VERBS)}")
        return VERBS[verb](argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
