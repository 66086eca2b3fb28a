"""Compare configurations: refuse to go on with another training, and print the command that trains one."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flowferry.configs.labels import folders_of
from flowferry.configs.locations import RUNS
from flowferry.configs.names import natural_order
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import COMPONENTS, Config
from flowferry.configs.validation import UserError

MAY_CHANGE = {
    *("name", "summary", "source.cache_mb", "target.cache_mb", "source.on_bad_file", "target.on_bad_file"),
    *("source.max_pixels", "target.max_pixels", "source.strict", "target.strict"),
    *("train.epochs", "train.max_steps", "train.minutes"),
    *("train.accumulate", "train.precision", "train.threads", "train.on_nonfinite"),
    *("train.checkpoint_epochs", "train.checkpoint_steps", "train.keep_checkpoints"),
    *("train.show_epochs", "train.min_steps_apart", "train.eval_samples", "train.best", "train.weaker_share"),
}
"""How long, how often and on what machine a run trains, and how it is shown; not what it learns from what. The solver
may change too."""


def refuse_changes(before: Config, now: Config, folder: Path) -> None:
    """Raise UserError if `now` is another training than `before`, the one that was started in `folder`."""
    old, new = (dict(leaves(config.to_dict())) for config in (before, now))
    for name in ("source.classes", "target.classes"):  # runs up to version 0.2 kept no names, in alphabetical order
        if name in new and not old.get(name):
            old[name] = tuple(sorted(new[name]))
    changed = [
        f"{name} (got {new.get(name)}, started with {old.get(name)})"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name) and name not in MAY_CHANGE and not name.startswith("solver.")
    ]
    if changed:
        raise UserError(f"{folder} holds another run: {'; '.join(changed)}; expected the same, or another --output-dir")


def leaves(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("train.lr", 0.001) and so on for each entry of a nested dictionary."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def training_command(config: Config, folder: Path) -> str:
    """Return the `accelerate launch launch.py` command that trains `config` in `folder`."""
    preset = PIPELINES.get(config.name)
    config = replace(without_natural_classes(config), teacher=replace(config.teacher, sha256=""))  # it is found again
    words = ["accelerate", "launch", "launch.py", "--pipeline", config.name if preset else str(folder)]
    if preset:
        before, after = preset.to_dict(), config.to_dict()
        for component in COMPONENTS:
            if before[component]["kind"] != after[component]["kind"]:
                words += [f"--{component}", after[component]["kind"]]
                before[component] = asdict(COMPONENTS[component][after[component]["kind"]]())
        words += changed_options(before, after)
    if folder.resolve() != (RUNS / config.name).resolve():
        words += ["--output-dir", str(folder)]
    return shlex.join(words)


def without_natural_classes(config: Config) -> Config:
    """Return `config` without names of classes that a new run would give them in the same order."""
    natural = {what: side for what, side in folders_of(config).items() if side.classes == natural_order(side.classes)}
    return replace(config, **{what: replace(side, classes=()) for what, side in natural.items()})  # type: ignore[arg-type]


def changed_options(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the command-line options that turn the configuration `before` into `after`."""
    words = []
    for name, value in after.items():
        if isinstance(value, dict):
            words += changed_options(before[name], value, f"{prefix}{name}.")
        elif value != before[name]:
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{prefix}{option}" if value else f"--{prefix}no-{option}")
            else:
                words += [f"--{prefix}{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words
