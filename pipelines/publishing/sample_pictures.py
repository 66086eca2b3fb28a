"""Pictures to begin with where no data set is at hand: the synthetic stand-ins of a pipeline's source."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from flowferry.configs.schema import Config
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import FROM_TARGET, SAMPLERS, Request
from flowferry.datasets.framing import framed
from flowferry.datasets.pixels import to_pil

COUNT = 10  # the stand-ins have as many classes, each of them once


def sample_pictures(config: Config) -> list[Image.Image]:
    """Return pictures of a pipeline's source, of its size and in its channels; none where the source is noise."""
    if config.source.is_noise:
        return []
    channels, height, width = config.shape
    samples = sampler_of(config).draw(COUNT, seed=0, step=0).samples
    mode = {1: "L", 3: "RGB"}[channels]
    return [framed(to_pil(sample).convert(mode), (width, height)) for sample in samples]


def sampler_of(config: Config) -> Sampler:
    """Return the synthetic stand-in of a source; of a source that is made from its target, made from its stand-in."""
    kind: Any = config.target if config.source.from_target else config.source
    drawn = replace(kind.stand_in or kind, count=COUNT)
    sampler = SAMPLERS[drawn.kind](drawn, Request(config.shape, Path(), "test", torch.device("cpu")))
    return FROM_TARGET[config.source.kind](config.source, sampler) if config.source.from_target else sampler
