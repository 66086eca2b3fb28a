"""Where things are: one's own runs and data, and what comes with the installation."""

import os
import re
from pathlib import Path

from configs.checks import UserError
from configs.presets import PIPELINES

RUNS = Path("runs")
SHIPPED = Path(__file__).parents[1] / "models" / "shipped"
"""Trained weights, in a folder by the name of each pipeline."""
FEATURES = SHIPPED / "features"
"""The classifiers through whose features images are measured."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""user/name, of a repository of the Hugging Face hub."""


def classifiers_of(run: Path) -> Path:
    """The folder of the classifiers that were trained for a run: it is shared with the runs beside it."""
    return run.parent / "classifiers"


def data_root() -> Path:
    """The folder of the data sets, unless another is asked for."""
    return Path(os.environ.get("FLOWFERRY_DATA", "data"))


def trained_folder(pipeline: str) -> Path:
    """The folder with the weights of a named pipeline, the folder itself, or a hub's user/name as it stands.

    Of a named pipeline, a run of one's own comes before the weights that come with the installation. Raises UserError
    where there is none of these.
    """
    if pipeline in PIPELINES:
        own, shipped = RUNS / pipeline, SHIPPED / pipeline
        if (own / "model" / "model.safetensors").is_file():
            return own
        if shipped.is_dir():
            return shipped
        raise untrained(own)
    folder = Path(pipeline)
    if folder.is_dir():
        return folder
    if folder.parent == RUNS:
        raise untrained(folder)
    if not HUB_NAME.fullmatch(pipeline) or folder.parent.is_dir():
        raise unknown_pipeline(pipeline, "the folder of a run, or the user/name of weights on the hub")
    return folder


def untrained(run: Path) -> UserError:
    return UserError(f"no weights in {run}: train them first with launch.py --pipeline {run.name}")


def unknown_pipeline(found: str, folder: str) -> UserError:
    return UserError(f"no pipeline {found!r}; accepted: {', '.join(PIPELINES)}, or {folder}")
