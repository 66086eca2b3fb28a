"""Random changes of training images [B, C, H, W] in [-1, 1], each image by random numbers of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.configs.components import AugmentConfig


def augment(images: Tensor, options: AugmentConfig, g: torch.Generator) -> Tensor:
    """Return `images` mirrored, cut out and shifted as `options` say, by random numbers from `g`."""
    if options.mirrored:
        images = mirrored(images, g)
    if options.cutout:
        images = cutout(images, options.cutout, g)
    return shifted(images, options.shifted, g) if options.shifted else images


def mirrored(images: Tensor, g: torch.Generator) -> Tensor:
    """Return each image mirrored left to right with probability ½."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=g, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def cutout(images: Tensor, side: int, g: torch.Generator) -> Tensor:
    """Return each image with a random black square of `side` pixels, centered in the image (DeVries & Taylor 2017)."""

    def covered(length: int) -> Tensor:
        first = torch.randint(0, length, (len(images), 1), generator=g, device=images.device) - side // 2
        place = torch.arange(length, device=images.device)
        return (place >= first) & (place < first + side)

    square = covered(images.shape[2])[:, :, None] & covered(images.shape[3])[:, None, :]
    return images.masked_fill(square[:, None], -1.0)


def shifted(images: Tensor, reach: int, g: torch.Generator) -> Tensor:
    """Return each image shifted by up to `reach` pixels vertically and horizontally, with black behind."""
    count, _, height, width = images.shape
    padded = F.pad(images, [reach] * 4, value=-1.0)
    down, across = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=g, device=images.device)
    rows = (down + torch.arange(height, device=images.device))[:, :, None]
    columns = (across + torch.arange(width, device=images.device))[:, None, :]
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, :, rows, columns].permute(0, 3, 1, 2)
