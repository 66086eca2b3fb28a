"""Small folders of pictures, whole and damaged, and tiny runs on them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.schema import Config
from tiny_runs import config_of


def noisy_png(path: Path, number: int, size: tuple[int, int] = (24, 24)) -> None:
    """Write an image of noise, another one for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.randint(256, (*reversed(size), 3), generator=torch.Generator().manual_seed(number)).byte()
    Image.fromarray(pixels.numpy()).save(path)


def pictures(root: Path, count: int) -> Path:
    """Write 000.png, 001.png and so on; return the folder."""
    for number in range(count):
        noisy_png(root / f"{number:03d}.png", number)
    return root


def no_header(path: Path) -> None:
    """Replace a file by what is no image from its first byte on."""
    path.write_bytes(b"no image at all")


def half(path: Path) -> bytes:
    """Cut an image behind its header; return what it was."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


def folder_run(tiny: Callable[..., Config], a: Path, b: Path, steps: int, cache_mb: int = 0, **train: Any) -> Config:
    """Return a tiny run from the pictures in `a` to those in `b`, in batches of four."""
    config = config_of(tiny, steps, "folders", batch_size=4, epochs=100, checkpoint_epochs=0, **train)
    source, target = (ImageFolderConfig(root=str(root), cache_mb=cache_mb, resize="stretch") for root in (a, b))
    return replace(config, source=source, target=target, shape=(3, 8, 8))
