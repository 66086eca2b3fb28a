"""Random changes of training images, each image by numbers of its own: [B, C, H, W] in [-1, 1] -> the same."""

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.parts import AugmentConfig


def augmented(images: Tensor, how: AugmentConfig, g: torch.Generator) -> Tensor:
    """`images` mirrored, hidden in part and shifted, as `how` says, by numbers from `g`."""
    if how.mirrored:
        images = mirrored(images, g)
    if how.hidden:
        images = hidden(images, how.hidden, g)
    return shifted(images, how.shifted, g) if how.shifted else images


def mirrored(images: Tensor, g: torch.Generator) -> Tensor:
    """Each image mirrored left to right with probability ½."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=g, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def hidden(images: Tensor, side: int, g: torch.Generator) -> Tensor:
    """A black square of `side` pixels somewhere on each, its middle within the image (DeVries & Taylor 2017)."""

    def covered(length: int) -> Tensor:
        first = torch.randint(0, length, (len(images), 1), generator=g, device=images.device) - side // 2
        place = torch.arange(length, device=images.device)
        return (place >= first) & (place < first + side)

    square = covered(images.shape[2])[:, :, None] & covered(images.shape[3])[:, None, :]
    return images.masked_fill(square[:, None], -1.0)


def shifted(images: Tensor, reach: int, g: torch.Generator) -> Tensor:
    """Each moved by up to `reach` pixels down and across, black behind."""
    count, _, height, width = images.shape
    padded = F.pad(images, [reach] * 4, value=-1.0)
    down, across = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=g, device=images.device)
    rows = (down + torch.arange(height, device=images.device))[:, :, None]
    columns = (across + torch.arange(width, device=images.device))[:, None, :]
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, :, rows, columns].permute(0, 3, 1, 2)
