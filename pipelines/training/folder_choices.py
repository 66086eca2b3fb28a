"""Settle what a run leaves to its image folders before anything is loaded: their layouts, and the names of classes."""

from collections.abc import Callable
from pathlib import Path

from flowferry.configs.schema import Config, read_config
from flowferry.datasets.classes import name_classes
from flowferry.datasets.pairs import choose_layouts
from flowferry.pipelines.storage import checkpoint


def with_folder_choices(config: Config, folder: Path, tell: Callable[[str], None]) -> Config:
    """Return `config` as `choose_layouts` and `name_classes` do, for the run in `folder` if there is one to resume."""
    resumes = bool(checkpoint.published(folder / "checkpoints"))
    before = read_config(folder / "config.json") if resumes else None
    return name_classes(choose_layouts(config, before, tell), before, tell)
