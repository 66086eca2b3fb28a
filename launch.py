"""The front door: `python launch.py [VERB] --help`. One table of verbs; nothing heavy is imported early."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

if __name__ in ("__main__", "__mp_main__"):
    # As a script, run the code beside it, whatever is installed. This folder is the package flowferry, not a place to
    # import `datasets` or `models` from.
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    spec = spec_from_file_location("flowferry", here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None
    sys.modules["flowferry"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["flowferry"])  # type: ignore[union-attr]

from flowferry.configs.terminal import EscapingFormatter, escaped
from flowferry.configs.validation import DISK_ERRORS, BrokenOff, UserError

# Let idle threads sleep soon. By default they wait busily, and beside any other busy process a step on all cores then
# takes fifty times as long. libgomp reads this when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class Verb(NamedTuple):
    """What a verb does in a line, its options' class in configs/options.py, and the module whose `run` takes them."""

    summary: str
    options: str
    module: str


VERBS = {
    "train": Verb("train a pipeline or go on with it (the default verb)", "TrainOptions", "train"),
    "distill": Verb("train a student that does in one step what a trained pipeline does", "TrainOptions", "train"),
    "sample": Verb("draw new images from a trained pipeline", "SampleOptions", "sample"),
    "translate": Verb("translate an image file or a folder of them", "TranslateOptions", "translate"),
    "edit": Verb("edit images with a pipeline that was not trained for it", "EditOptions", "edit"),
    "evaluate": Verb("measure a trained pipeline: how real, how faithful, at what cost", "EvaluateOptions", "evaluate"),
    "serve": Verb("show a trained pipeline in the browser: upload, translate, edit", "ServeOptions", "serve"),
    "report": Verb("write a lab report of a run: pictures, figures, explanations", "ReportOptions", "report"),
    "features": Verb("train the classifier with which evaluate measures a data set", "FeaturesOptions", "features"),
    "embed": Verb("encode texts once, for pretrained pipelines that take them", "EmbedOptions", "embed"),
    "export": Verb(
        "write weights to share: on the Hugging Face hub, for diffusers, as ONNX", "ExportOptions", "export"
    ),
    "list": Verb("list the pipelines by name, and which are trained here", "ListOptions", ""),
}

USAGE = """\
usage: launch.py [VERB] --pipeline NAME [OPTIONS]

flowferry carries images from any source distribution to any target distribution.

verbs
{verbs}

first steps
  accelerate launch launch.py --pipeline fashion2mnist --quick     a minute, no data needed
  accelerate launch launch.py --pipeline fashion2mnist             the real data
  python launch.py translate --pipeline fashion2mnist --input FOLDER --output out   with the shipped weights
  tensorboard --logdir runs

options: launch.py VERB --help; those of a pipeline: launch.py train --pipeline NAME --help
""".format(verbs="\n".join(f"  {name:<12}{verb.summary}" for name, verb in VERBS.items()))


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print in this context also to a reader that leaves before the end, as `head` does; the program then exits."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit()


def show(text: str) -> int:
    """Print `text`; return the exit code."""
    with reader_may_leave():
        print(text)
    return 0


def run(verb: str, argv: Sequence[str]) -> int:
    """Parse a verb's options and run it; return the exit code. What needs no torch is answered without it."""
    from flowferry.configs import cli, options

    parse: Callable[[Sequence[str]], Any] = partial(cli.parse, getattr(options, VERBS[verb].options), verb=verb)
    if VERBS[verb].options == "TrainOptions":
        parse = partial(cli.parse_train, verb=verb)
    with reader_may_leave():  # --help is printed here
        parsed = parse(argv)
    if verb == "list":
        from flowferry.configs.listing import table

        return show(table())
    if isinstance(parsed, options.TrainOptions) and parsed.print_config:
        return show(json.dumps(parsed.config.to_dict(), indent=2))
    if isinstance(parsed, options.UseOptions | options.ReportOptions | options.ExportOptions | options.EmbedOptions):
        from flowferry.configs.locations import trained_folder

        trained_folder(parsed.pipeline)  # a wrong name is told at once
    return import_module(f"flowferry.pipelines.{VERBS[verb].module}").run(parsed)


def hide_disk_errors(args: threading.ExceptHookArgs) -> None:
    """Print what ended a thread, but not an error of the disk: TensorBoard's thread has it raised again in ours."""
    if not (isinstance(args.exc_value, OSError) and args.exc_value.errno in DISK_ERRORS):
        threading.__excepthook__(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code.

    It is 2 for what the user can put right, 3 where a file could not be written after work had begun, and 130 after
    Ctrl-C.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # whose encoding may lack an arrow, or a letter of a file's name
            stream.reconfigure(errors="backslashreplace")
    if argv in ([], ["-h"], ["--help"]):
        return show(USAGE.rstrip())
    verb = "train" if argv[0].startswith("-") else argv.pop(0)
    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("flowferry").setLevel(logging.INFO)
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = hide_disk_errors
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb: got {verb!r}, expected one of {', '.join(VERBS)}")
        return run(verb, argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except UserError as error:
        print(f"error: {escaped(str(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a library writes, too
        if not isinstance(error, BrokenOff) and error.errno not in DISK_ERRORS:
            raise
        print(f"broke off: {escaped(str(error))}", file=sys.stderr)
        return BrokenOff.exit_code


if __name__ == "__main__":
    sys.exit(main())
