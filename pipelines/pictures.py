"""Which pictures show what a pipeline does: in the plane, of a denoiser, or of images on their way."""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from configs.schema import Config
from pipelines import denoising, plane, sheets


class Drawing(NamedTuple):
    """pictures(pipeline, source, target, when) -> pictures by name; frames(pipeline, source, target) -> a GIF's."""

    pictures: Callable[..., dict[str, Image.Image]]
    frames: Callable[..., list[Image.Image]]


def drawing(config: Config) -> Drawing:
    if len(config.shape) == 1:
        return Drawing(plane.pictures, plane.frames)
    if config.path == "one-step":
        return Drawing(denoising.pictures, sheets.frames)
    return Drawing(sheets.pictures, sheets.frames)
