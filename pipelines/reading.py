"""Who reads labels off a run's source, where nobody asks for classes."""

import logging
from contextlib import suppress
from pathlib import Path

import torch

from configs.checks import UserError
from configs.places import classifiers_of
from configs.schema import Config
from pipelines.classifier import Classifier, trained_classifier
from pipelines.pipeline import Pipeline

log = logging.getLogger("flowferry")


def reader_of(config: Config, folder: Path, *, goes_on: bool, data_root: Path, device: torch.device) -> Classifier:
    """The reader of the run in `folder` where that `goes_on`, else a classifier that is there or is trained now.

    Raises UserError as `trained_classifier` does.
    """
    if goes_on:
        with suppress(UserError):  # no whole weights were left
            kept = Pipeline.from_pretrained(folder / "model", device=device).reader
            assert kept is not None, "no run changes that"
            return kept
    trained = trained_classifier(
        config.source,
        config.shape,
        classes=config.classes,
        data_root=data_root,
        folder=classifiers_of(folder),
        device=device,
    )
    log.info("labels are read by a classifier of %s, right on %.2f %%", config.source.kind, 100 * trained.accuracy)
    return trained.classifier
