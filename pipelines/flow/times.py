"""Times in [0, 1]: those that a network is trained at, and the grid of a solver."""

import torch
from torch import Tensor

SAME = 1e-6  # times closer than this are one: rounding errors of float32


def training_times(u: Tensor, *, power: float = 1.0, start: float = 0.0, levels: int | None = None) -> Tensor:
    """Return training times t [B] for u [B] uniform in [0, 1).

    A share `start` of them is 0, and the others are powers of a uniform number; power > 1 puts more of them near the
    source. levels: T where training uses only the times 0, 1/T, …, (T−1)/T; t is then rounded down to one of them.
    """
    t = ((u - start) / (1 - start)).clamp(min=0) ** power if start < 1 else torch.zeros_like(u)
    return (t * levels).floor() / levels if levels else t


def time_grid(
    num_steps: int, *, power: float = 1.0, device: torch.device | None = None, reverse: bool = False
) -> Tensor:
    """Return t_k = (k/num_steps)^power for k = 0 … num_steps, from 0 to 1; in reverse, the same times from 1 to 0."""
    ends = (1.0, 0.0) if reverse else (0.0, 1.0)
    return torch.linspace(*ends, num_steps + 1, device=device) ** power


def strided_grid(num_steps: int, stride: int, *, levels: int | None = None) -> Tensor:
    """Return t = 1 − s/T at the noise levels s = 1 + (num_steps − 1)·stride, …, 1 + stride, 1, and at 0, the image.

    Those are the published timesteps 990, 960, …, 0, which count levels from 0, for 34 steps of stride 30 on T = 1000
    (Nichol & Dhariwal 2021, section 4, with a list that ends at the least noise). levels: T; None: the first level of
    the list, which then is at t = 0.
    """
    first = 1 + (num_steps - 1) * stride
    levels = first if levels is None else levels
    chosen = [*range(levels - first, levels, stride), levels]
    return torch.linspace(0, 1, levels + 1)[chosen]


def list_length(levels: int, stride: int) -> int:
    """Return how many levels s = 1, 1 + stride, … ≤ T the whole strided list of T levels has."""
    return -(-levels // stride)


def rest_of(grid: Tensor, start: float) -> Tensor:
    """Return `start` and the times of a rising grid that come after it; for 0 the whole grid, wherever it begins."""
    if start == 0:
        return grid
    later = grid[int(torch.searchsorted(grid, start - SAME)) :]
    return later if later[0] <= start + SAME else torch.cat([grid.new_tensor([start]), later])
