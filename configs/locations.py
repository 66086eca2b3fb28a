"""Locate the user's runs and data, and the weights that come with the installation."""

import os
import re
from pathlib import Path

from flowferry.configs.presets import PIPELINES
from flowferry.configs.validation import UserError

RUNS = Path("runs")
SHIPPED = Path(__file__).parents[1] / "models" / "shipped"
"""Trained weights, in a folder named after each pipeline."""
FEATURES = SHIPPED / "features"
"""The classifiers through whose features images are measured."""
BEST = "best"
"""In the folder of a run: the weights with the best value of `train.best`."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""user/name, of a repository on the Hugging Face hub."""


def classifier_folder(run: Path) -> Path:
    """Return the folder of the classifiers that were trained for a run, or for its best weights.

    The runs beside it share them.
    """
    return (run.parent if run.name == BEST else run).parent / "classifiers"


def pairs_folder(run: Path) -> Path:
    """Return the folder of the pairs that teachers made for a run, or for its best weights.

    The runs beside it share them.
    """
    return classifier_folder(run).with_name("pairs")


def names_folder(path: str) -> bool:
    """Return whether a path as it was typed is that of a folder: one that is there, or that a slash says so of."""
    return os.path.basename(path) in ("", ".", "..") or os.path.isdir(path)


def default_data_root() -> Path:
    """Return the folder of the data sets where no other is given: $FLOWFERRY_DATA, or data/."""
    return Path(os.environ.get("FLOWFERRY_DATA", "data"))


def cache_folder() -> Path:
    """Return the folder of what is downloaded once for all projects: flowferry/ in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowferry"


def trained_folder(pipeline: str) -> Path:
    """Return the folder with the weights of a pipeline: a name, a folder, or a hub's user/name as it stands.

    A run of a named pipeline takes precedence over the weights that are shipped with it. Raises UserError where
    there are no weights, or where `pipeline` is none of these.
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
    """Return the error for a run without weights."""
    return UserError(f"no weights in {run}: train them first with launch.py --pipeline {run.name}")


def unknown_pipeline(got: str, folder: str) -> UserError:
    """Return the error for a pipeline that is neither a name nor what `folder` describes."""
    return UserError(f"unknown pipeline: got {got!r}, expected {', '.join(PIPELINES)}, or {folder}")
