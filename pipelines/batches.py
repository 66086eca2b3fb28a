"""What a training step sees: a function of (seed, step), drawn for the global batch."""

import math
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from configs.schema import Config, TrainConfig
from datasets import Sampler
from datasets.keyed import generator
from pipelines.couplings import COUPLINGS, Pairing
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


def steps_per_epoch(train: TrainConfig, target: Sampler) -> int:
    """Batches that one pass over the target takes, the last of them filled up from the next."""
    return math.ceil((target.size or train.epoch_size) / train.batch_size)


def coupled(coupling: str, source: Sampler, target: Sampler, count: int, seed: int, number: int) -> Pairing:
    """Pool `number` of `count` pairs. The last one is kept: the steps that share it come one after the other."""
    return _coupled(coupling, cast(Hashable, source), cast(Hashable, target), count, seed, number)


@lru_cache(maxsize=1)
def _coupled(coupling: str, source: Any, target: Any, count: int, seed: int, number: int) -> Pairing:
    return COUPLINGS[coupling](source, target, count, seed, number)


def draw_pairs(config: Config, source: Sampler, target: Sampler, count: int, *, seed: int, step: int) -> Pairs:
    """The global batch of one step: coupled samples, times u^p with u uniform, labels dropped one by one.

    Noise on the source comes after the coupling, so that pairs are chosen by what they are.

    Where m batches are coupled at once, step s is given part s mod m of the pool s // m.
    """
    batches = config.coupling_batches
    pool, index = divmod(step, batches)
    rows = slice(index * count, (index + 1) * count)
    x0, x1 = (batch.at(rows) for batch in coupled(config.coupling, source, target, batches * count, seed, pool))
    device = x1.samples.device
    g = generator(device, seed, "time and dropout", step)
    t = torch.rand(count, generator=g, device=device) ** config.train.time_power
    if levels := PATHS[config.path].levels:
        t = (t * levels).floor() / levels
    dropped = torch.rand(count, generator=g, device=device) < config.train.label_dropout
    label = None
    if config.classes:
        assert x1.labels is not None, "checked when the samplers were built"
        label = torch.where(dropped, config.classes, x1.labels)
    start = x0.samples
    if config.train.source_noise:
        g = generator(device, seed, "source noise", step)
        start = start + config.train.source_noise * torch.randn(start.shape, generator=g, device=device)
    return Pairs(start, x1.samples, t, label)
