"""Move what one image shows to where another shows it, in steps from coarse to fine, by block matching."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.datasets.content import edges

LEVELS = ((16, 3), (32, 2))  # (cells along each side, how many of them a part may move) from coarse to fine
WINDOW = 5  # cells along each side that move together
COLORS, EDGES = 0.5, 4.0  # weights, by which both differ about as much between images
SOFTNESS = 5e-3  # of the choice between places: a mean squared difference that counts
RELUCTANCE = 5e-3  # what moving by one cell costs, for parts that look alike everywhere
AT_ONCE = 64  # images whose places to compare fit in a processor's cache: twice as fast as a thousand


def registered(moving: Tensor, fixed: Tensor) -> Tensor:
    """Return images `moving` [B, C, H, W], what they show moved to where `fixed`, of that shape too, shows it.

    The mean displacement of the B images stays: where all of `moving` are larger than all of `fixed`, so are the
    results. Content that moves in from outside repeats the edge.
    """
    fields = [displacement(*few) for few in zip(moving.split(AT_ONCE), fixed.split(AT_ONCE), strict=True)]
    mean = torch.cat(fields).mean(dim=0)
    return torch.cat([warped(few, field - mean) for few, field in zip(moving.split(AT_ONCE), fields, strict=True)])


def displacement(moving: Tensor, fixed: Tensor) -> Tensor:
    """Return where each place of `fixed` [B, C, H, W] lies in `moving`: (down, right) [B, 2, h, w], in image sides."""
    field = torch.zeros(len(fixed), 2, 1, 1, device=fixed.device)
    shown, wanted = features(moving), features(fixed)
    for cells, reach in LEVELS:
        a, b = (F.adaptive_avg_pool2d(part, cells) for part in (shown, wanted))
        field = F.interpolate(field, size=(cells, cells), mode="bilinear")
        field = field + best_moves(warped(a, field), b, reach) / cells
    return field


def features(images: Tensor) -> Tensor:
    """Return what is compared: colors and steepness [B, C + 4, H, W]."""
    return torch.cat([COLORS * images, EDGES * edges(images)], dim=1)


def best_moves(moving: Tensor, fixed: Tensor, reach: int) -> Tensor:
    """Return the move (down, right) [B, 2, h, w], in cells of at most `reach`, to the most similar place in `moving`.

    It is the mean of all moves, weighted by how similar the places are (soft argmin, Kendall et al. 2017, eq. 1), so
    that fractions of cells come out, and nothing moves where all places look alike.
    """
    h, w = fixed.shape[-2:]
    padded = F.pad(moving, (reach, reach, reach, reach), mode="replicate")
    steps = torch.arange(-reach, reach + 1, device=fixed.device)
    moves = torch.cartesian_prod(steps, steps)
    places = [padded[..., reach + y : reach + y + h, reach + x : reach + x + w] for y, x in moves.tolist()]
    costs = torch.stack([(place - fixed).square().mean(dim=1) for place in places], dim=1)
    for _ in range(2):  # twice a mean over a square is nearly a Gaussian one
        costs = F.avg_pool2d(F.pad(costs, [WINDOW // 2] * 4, mode="replicate"), WINDOW, stride=1)
    costs = costs + RELUCTANCE * moves.square().sum(dim=1)[:, None, None]
    return torch.einsum("bmhw,mc->bchw", torch.softmax(-costs / SOFTNESS, dim=1), moves.to(costs))


def warped(images: Tensor, field: Tensor) -> Tensor:
    """Return images [B, C, H, W] that show at each place what lies by `field` [B, 2, h, w], in image sides, from it."""
    field = F.interpolate(field, size=images.shape[-2:], mode="bicubic")
    identity = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False) + 2 * field.flip(1).movedim(1, -1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
