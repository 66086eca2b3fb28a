"""Learning-rate schedules as functions of how far training has come: nothing to step, nothing to resume."""

import math
from collections.abc import Callable

from flowferry.configs.recipe import TrainConfig

SCHEDULES: dict[str, Callable[[float, int, float], float]] = {
    "constant": lambda progress, epochs, final: 1.0,
    # ExponentialLR with γ = final^(1/epochs), stepped once an epoch. The tiny addend undoes the rounding of s/S·E.
    "exponential": lambda progress, epochs, final: final ** (math.floor(progress * epochs + 1e-9) / epochs),
    "linear": lambda progress, epochs, final: 1 + (final - 1) * progress,
    "cosine": lambda progress, epochs, final: final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2,
}
"""(progress in [0, 1], epochs, final factor) -> factor on the learning rate."""

MAX_WARMUP = 0.25  # of the whole training; a run of a few steps would otherwise end before its rate has risen


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Return the rate of step number `step` (from 0), with `progress` in [0, 1] of the whole training behind it."""
    warmup = min(1.0, max((step + 1) / (config.warmup_steps + 1), progress / MAX_WARMUP))
    return config.lr * warmup * SCHEDULES[config.schedule](progress, config.epochs, config.lr_final)
