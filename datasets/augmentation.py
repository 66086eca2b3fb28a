"""Random changes of training images [B, C, H, W] in [-1, 1], each image by random numbers of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.configs.components import AugmentConfig


def augment(images: Tensor, options: AugmentConfig, g: torch.Generator) -> Tensor:
    """Return `images` mirrored, cut out, shifted and zoomed as `options` say, by random numbers from `g`.

    The numbers do not depend on the values of the images: partners that get equal generators are changed alike.
    """
    if options.mirrored:
        images = mirrored(images, g)
    if options.cutout:
        images = cutout(images, options.cutout, g)
    if options.shifted:
        images = shifted(images, options.shifted, options.behind, g)
    return zoomed(images, options.zoomed, g) if options.zoomed > 1 else images


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


def shifted(images: Tensor, reach: int, behind: str, g: torch.Generator) -> Tensor:
    """Return each image shifted by up to `reach` pixels vertically and horizontally.

    behind: "black"; or "mirror" for the image mirrored at its edge, which needs no background and shows no seam, and
    which bounds the reach by the size of the image.
    """
    count, _, height, width = images.shape
    if behind == "mirror":
        reach = min(reach, height - 1, width - 1)
        padded = F.pad(images, [reach] * 4, mode="reflect")
    else:
        padded = F.pad(images, [reach] * 4, value=-1.0)
    down, across = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=g, device=images.device)
    rows = (down + torch.arange(height, device=images.device))[:, :, None]
    columns = (across + torch.arange(width, device=images.device))[:, None, :]
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, :, rows, columns].permute(0, 3, 1, 2)


def zoomed(images: Tensor, most: float, g: torch.Generator) -> Tensor:
    """Return a part of each image, at a random place, enlarged to the whole by a factor of 1 to `most`.

    The logarithm of the factor is uniform.
    """
    factor = most ** -torch.rand(len(images), generator=g, device=images.device)
    middle = (1 - factor)[:, None] * (2 * torch.rand(len(images), 2, generator=g, device=images.device) - 1)
    maps = torch.cat([torch.diag_embed(factor[:, None].expand(-1, 2)), middle[:, :, None]], dim=2)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
