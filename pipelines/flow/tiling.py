"""Images of any size: the velocity of a large image from those of windows that the network can take.

Each function takes a conditional velocity and returns one to use in its place.
"""

from itertools import product
from math import pi

import torch
from torch import Tensor

from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.guidance import ConditionalVelocity


def tiled(v: ConditionalVelocity, size: int, overlap: int) -> ConditionalVelocity:
    """Return the mean of v over windows of `size` pixels a side, each of which overlaps the next one by `overlap`.

    MultiDiffusion (Bar-Tal et al. 2023): at every step of the solver the windows agree on one velocity, a mean whose
    weights fade towards the border of each window. An image that fits in one window is given to v as it is. Memory
    does not grow with the image beyond copies of it. 0 ≤ overlap < size.
    """

    def averaged(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if max(x.shape[-2:]) <= size:
            return v(x, t, condition)
        mean = torch.zeros_like(x)
        for (rows, down), (columns, across) in product(*(windows(side, size, overlap) for side in x.shape[-2:])):
            weight = (down[:, None] * across).to(x)
            mean[..., rows, columns] += weight * v(x[..., rows, columns], t, condition.window(rows, columns))
        return mean

    return averaged


def windows(side: int, size: int, overlap: int) -> list[tuple[slice, Tensor]]:
    """Return the windows that cover an axis of `side` pixels, each with the weights of its pixels.

    The weights rise as sin² over `overlap` pixels at each end of a window. Those of all windows sum to 1 at each pixel.
    The last window ends where the axis does, and may overlap the one before it by more.
    """
    size = min(size, side)
    starts = [*range(0, side - size, size - overlap), side - size]
    to_border = torch.arange(size).add(0.5).minimum(size - torch.arange(size).add(0.5))
    bump = (to_border / max(overlap, 1)).clamp(max=1).mul(pi / 2).sin().square()
    total = torch.zeros(side)
    for start in starts:
        total[start : start + size] += bump
    parts = [slice(start, start + size) for start in starts]
    return [(part, bump / total[part]) for part in parts]


def padded(v: ConditionalVelocity, multiple: int) -> ConditionalVelocity:
    """Return v on images whose height and width need not be multiples of `multiple`.

    They are continued to the right and below by reflection, and the velocity is cut to their size.
    """

    def cut(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        height, width = x.shape[-2:]
        if not (height % multiple or width % multiple):
            return v(x, t, condition)
        rows, columns = (reflected(side, side + -side % multiple).to(x.device) for side in (height, width))
        continued = v(x[..., rows[:, None], columns], t, condition.window(rows[:, None], columns))
        return continued[..., :height, :width]

    return cut


def reflected(side: int, longer: int) -> Tensor:
    """Return indices int64 [longer] that continue an axis of `side` pixels by reflection, as often as it takes."""
    period = max(2 * (side - 1), 1)
    there = torch.arange(longer) % period
    return there.minimum(period - there)
