"""What images show and where, whatever the style they are drawn in: coarse colors and edges, to compare images by."""

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 8  # along each side
AT_ONCE = 64  # images; all of a pool of photographs, with their edges, would take gigabytes


def content(images: Tensor) -> Tensor:
    """Return features [B, D] of images [B, C, H, W], of any height and width of their own.

    They are the mean colors of 8×8 cells, and in each cell the mean steepness in four directions (Sobel's derivatives
    of the gray image, positive and negative ones apart). Each feature is standardized over the B images, so that two
    sets can be compared although their styles differ; colors and edges then have the same weight.
    """
    pooled = [F.adaptive_avg_pool2d(torch.cat([few, edges(few)], dim=1), CELLS) for few in images.split(AT_ONCE)]
    cells = torch.cat(pooled)
    parts = cells.split([images.shape[1], 4], dim=1)
    return torch.cat([standardized(part.flatten(1)) for part in parts], dim=1)


def edges(images: Tensor) -> Tensor:
    """Return the steepness [B, 4, H, W] of images [B, C, H, W] towards the right, down, left and up, where it rises."""
    slope = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device) / 8
    gray = F.pad(images.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    derivatives = F.conv2d(gray, torch.stack([slope, slope.T])[:, None])
    return torch.cat([derivatives, -derivatives], dim=1).clamp(min=0)


def standardized(features: Tensor) -> Tensor:
    """Return features [B, D] with mean 0 and a spread near 1 each, scaled to a mean square length of 1.

    A feature that hardly varies, such as the color of a corner, is not blown up: a tenth of the mean spread is added.
    """
    centered = features - features.mean(dim=0)
    spread = centered.square().mean(dim=0).sqrt()
    scaled = centered / (spread + 0.1 * spread.mean()).clamp(min=1e-6)
    return scaled / scaled.square().sum(dim=1).mean().sqrt().clamp(min=1e-6)
