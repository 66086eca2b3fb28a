"""Give the classes of a run's image folders their names before anything is loaded."""

from collections.abc import Callable
from pathlib import Path

from flowferry.configs.schema import Config, read_config
from flowferry.datasets.classes import name_classes
from flowferry.pipelines.storage import checkpoint


def with_class_names(config: Config, folder: Path, tell: Callable[[str], None]) -> Config:
    """Return `config` as `name_classes` does, with the labels of the run in `folder` if there is one to resume."""
    resumes = bool(checkpoint.published(folder / "checkpoints"))
    return name_classes(config, read_config(folder / "config.json") if resumes else None, tell)
