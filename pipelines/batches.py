"""What a training step sees: a function of (seed, step), drawn for the global batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from configs.schema import Config
from datasets import Sampler
from datasets.keyed import generator
from pipelines.couplings import COUPLINGS
from pipelines.paths import PATHS


class Pairs(NamedTuple):
    """The arguments of `Pipeline.loss`: x0, x1 [B, …], t [B] in [0, 1), label int64 [B] or None."""

    x0: Tensor
    x1: Tensor
    t: Tensor
    label: Tensor | None

    def part(self, index: int, of: int) -> "Pairs":
        """The index-th of `of` equal slices."""
        size = len(self.t) // of
        rows = slice(index * size, (index + 1) * size)
        return Pairs(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]


def draw_pairs(config: Config, source: Sampler, target: Sampler, count: int, *, seed: int, step: int) -> Pairs:
    """The global batch of one step: coupled samples, times uniform over the path's, labels dropped one by one."""
    x0, x1 = COUPLINGS[config.coupling](source, target, count, seed, step)
    device = x1.samples.device
    g = generator(device, seed, "time and dropout", step)
    t = torch.rand(count, generator=g, device=device)
    if levels := PATHS[config.path].levels:
        t = (t * levels).floor() / levels
    dropped = torch.rand(count, generator=g, device=device) < config.train.label_dropout
    label = None
    if config.classes:
        assert x1.labels is not None, "checked when the samplers were built"
        label = torch.where(dropped, config.classes, x1.labels)
    return Pairs(x0.samples, x1.samples, t, label)
