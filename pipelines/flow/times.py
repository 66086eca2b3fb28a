"""Times in [0, 1]: those that a network is trained at, and the grid of a solver."""

import torch
from torch import Tensor


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
