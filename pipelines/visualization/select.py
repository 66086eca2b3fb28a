"""Select the pictures that show what a pipeline does: in the plane, of a denoiser, or of images on their way."""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from flowferry.configs.schema import Config
from flowferry.pipelines.flow.objectives import OBJECTIVES
from flowferry.pipelines.visualization import denoising, grids, points


class Visuals(NamedTuple):
    """The functions that draw what a pipeline does. source, target: samplers of the test split."""

    pictures: Callable[..., dict[str, Image.Image]]
    """(pipeline, source, target, when) -> pictures by name; when: the step in words, for captions."""
    frames: Callable[..., list[Image.Image]]
    """(pipeline, source, target) -> the frames of a GIF."""


def visuals(config: Config) -> Visuals:
    """Return the functions that suit a pipeline of this configuration."""
    if not config.is_image:
        return Visuals(points.pictures, points.frames)
    if OBJECTIVES[config.objective].max_steps == 1:
        return Visuals(denoising.pictures, grids.frames)
    return Visuals(grids.pictures, grids.frames)
