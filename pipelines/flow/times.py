"""Times in [0, 1]: those that a network is trained at, and the grid of a solver."""

import torch
from torch import Tensor


def training_times(u: Tensor, *, power: float = 1.0, levels: int | None = None) -> Tensor:
    """Return t = u^power [B] for u [B] uniform in [0, 1); power > 1 puts more of the times near the source.

    levels: T where training uses only the times 0, 1/T, …, (T−1)/T; t is then rounded down to one of them.
    """
    t = u**power
    return (t * levels).floor() / levels if levels else t


def time_grid(
    num_steps: int, *, power: float = 1.0, device: torch.device | None = None, reverse: bool = False
) -> Tensor:
    """Return t_k = (k/num_steps)^power for k = 0 … num_steps, from 0 to 1; in reverse, the same times from 1 to 0."""
    ends = (1.0, 0.0) if reverse else (0.0, 1.0)
    return torch.linspace(*ends, num_steps + 1, device=device) ** power
