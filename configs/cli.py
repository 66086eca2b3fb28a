"""Parse the command line: each verb's options, typed, on top of a named configuration."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff

from flowferry.configs.derived import smoke_test, student_config
from flowferry.configs.labels import folders_of
from flowferry.configs.locations import trained_folder, unknown_pipeline
from flowferry.configs.options import TrainOptions
from flowferry.configs.parse_errors import errors_in_one_line
from flowferry.configs.presets import PIPELINES
from flowferry.configs.renames import with_current_flags
from flowferry.configs.schema import COMPONENTS, Config, pick_component, read_config
from flowferry.configs.validation import UserError

T = TypeVar("T")


def parse_train(argv: Sequence[str], verb: str = "train") -> TrainOptions:
    """Parse the options of `train`: the named configuration, its components swapped, then each field overridden.

    With the verb "distill" the configuration is that of a student of the named pipeline. Raises UserError in one line
    for what is not understood.
    """
    argv = with_current_flags(argv)
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("--pipeline", default="")
    peek.add_argument("--quick", action="store_true")
    for name in [*COMPONENTS, "root", "source.root", "target.root", "layout", "direction"]:
        peek.add_argument(f"--{name}")
    try:
        seen, _ = peek.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    asks_help = any(flag in argv for flag in ("-h", "--help"))
    pipeline = seen.pipeline or ("fashion2mnist" if asks_help else "")
    if verb == "distill" and pipeline:  # the teacher's own options, not those of its name
        config = student_config(named_config(str(trained_folder(pipeline))), pipeline)
    else:
        config = named_config(pipeline)
    for name in COMPONENTS:
        if (kind := getattr(seen, name)) is not None:
            config = replace(config, **{name: pick_component(f"--{name}", name, kind)()})
    config = with_folders(config, seen)
    config = smoke_test(config) if seen.quick else config
    return parse(TrainOptions, argv, verb, default=TrainOptions(pipeline=seen.pipeline, config=config))


def with_folders(config: Config, seen: argparse.Namespace) -> Config:
    """Return `config` with the folders that the options name, which need no stand-in, and with their layouts.

    Raises UserError for a folder of both sides where neither is a folder, and for a direction between two folders.
    """
    sides = folders_of(config)
    roots = {name: getattr(seen, f"{name}.root") or seen.root or side.root for name, side in sides.items()}
    if seen.layout == "side-by-side" and len(given := set(filter(None, roots.values()))) == 1:
        roots = dict.fromkeys(roots, *given)
    if seen.root and not sides:
        raise UserError(f"--root: got {seen.root} for {config.name}, expected a pipeline with a folder, such as paired")
    layouts = dict.fromkeys(sides, seen.layout) if seen.layout else {name: side.layout for name, side in sides.items()}
    if seen.layout == "side-by-side":
        layouts = {"source": "left", "target": "right"}
    if seen.direction == "BtoA":
        if len(set(roots.values())) != 1 or any(layout in ("A", "B") or "{" in layout for layout in layouts.values()):
            raise UserError(
                "--direction: got BtoA, expected one folder of both sides (--root) whose layout is auto or "
                "side-by-side; of others, exchange --source.root and --target.root, or the two layouts"
            )
        one, other = ("right", "left") if seen.layout == "side-by-side" else ("B", "A")
        layouts = {"source": one, "target": other}
    changed = {name: replace(side, root=roots[name], layout=layouts[name]) for name, side in sides.items()}
    return replace(config, **changed)  # type: ignore[arg-type]


def named_config(pipeline: str) -> Config:
    """Return the configuration of a named pipeline, or of the run in a folder. Raises UserError for neither."""
    if not pipeline:
        raise UserError(f"--pipeline is missing: expected one of {', '.join(PIPELINES)}, or the folder of a run")
    if pipeline in PIPELINES:
        return PIPELINES[pipeline]
    file = Path(pipeline, "config.json")
    if not file.is_file():
        raise unknown_pipeline(pipeline, "a folder with a config.json")
    return read_config(file)


def parse(options: type[T], argv: Sequence[str], verb: str, *, default: Any = None) -> T:
    """Parse the options of a verb, on top of `default`. Raises UserError in one line for what is not understood."""
    with errors_in_one_line(options if default is None else default):
        return tyro.cli(
            options,
            args=list(argv),
            default=default,
            prog=f"launch.py {verb}",
            config=(AvoidSubcommands, FlagCreatePairsOff),
        )
