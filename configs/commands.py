"""The command that trains a given configuration."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.places import RUNS
from configs.presets import PIPELINES
from configs.schema import PARTS, Config


def training_command(config: Config, folder: Path) -> str:
    """`accelerate launch launch.py` with the options that make `config` of the pipeline of its name."""
    named = PIPELINES.get(config.name)
    words = ["accelerate", "launch", "launch.py", "--pipeline", config.name if named else str(folder)]
    if named:
        before, after = named.to_dict(), config.to_dict()
        for part in PARTS:
            if before[part]["kind"] != after[part]["kind"]:
                words += [f"--{part}", after[part]["kind"]]
                before[part] = asdict(PARTS[part][after[part]["kind"]]())
        words += changes(before, after)
    if folder.resolve() != (RUNS / config.name).resolve():
        words += ["--output-dir", str(folder)]
    return shlex.join(words)


def changes(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """The options that turn the one into the other."""
    words = []
    for name, value in after.items():
        if isinstance(value, dict):
            words += changes(before[name], value, f"{prefix}{name}.")
        elif value != before[name]:
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{prefix}{option}" if value else f"--{prefix}no-{option}")
            else:
                words += [f"--{prefix}{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    return words
