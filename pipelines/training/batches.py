"""The global batch of a training step, as a function of (seed, step)."""

import math
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from flowferry.configs.recipe import TrainConfig
from flowferry.configs.schema import Config
from flowferry.datasets.base import Batch, Sampler
from flowferry.datasets.couplings import COUPLINGS, Pairing
from flowferry.datasets.rng import content_rows, derive_seed, generator, normal_rows
from flowferry.models import sees_source
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.objectives import OBJECTIVES
from flowferry.pipelines.flow.paths import PATHS


class Pairs(NamedTuple):
    """The arguments of `Pipeline.loss`: x0 and x1 [B, …], t [B] or [B, 2] in [0, 1], and the condition of B samples."""

    x0: Tensor
    x1: Tensor
    t: Tensor
    condition: Condition

    def shard(self, index: int, of: int) -> "Pairs":
        """Return the index-th of `of` equal slices."""
        size = len(self.t) // of
        rows = slice(index * size, (index + 1) * size)
        return Pairs(self.x0[rows], self.x1[rows], self.t[rows], self.condition.rows(rows))


def steps_per_epoch(train: TrainConfig, target: Sampler) -> int:
    """Return how many batches one pass over the target takes; the last one is filled from the next pass."""
    return math.ceil((target.size or train.epoch_size) / train.batch_size)


def couple(coupling: str, source: Sampler, target: Sampler, count: int, seed: int, number: int) -> Pairing:
    """Return pool `number` of `count` coupled pairs.

    The last pool is kept in memory: the steps that share it come one after the other.
    """
    return _couple(coupling, cast(Hashable, source), cast(Hashable, target), count, seed, number)


@lru_cache(maxsize=1)
def _couple(coupling: str, source: Any, target: Any, count: int, seed: int, number: int) -> Pairing:
    return COUPLINGS[coupling](source, target, count, seed, number)


def draw_pairs(config: Config, source: Sampler, target: Sampler, count: int, *, seed: int, step: int) -> Pairs:
    """Draw the global batch of `count` pairs of one step.

    Where m batches are coupled at once, step s gets part s mod m of pool s // m.
    """
    pool, index = divmod(step, config.coupling_batches)
    rows = slice(index * count, (index + 1) * count)
    coupled = couple(config.coupling, source, target, config.coupling_batches * count, seed, pool)
    start, end = (batch.at(rows) for batch in coupled)
    g = generator(end.samples.device, seed, "time and dropout", step)
    t = draw_times(config, count, g)
    if config.has_teacher:
        x0 = add_own_noise(start.samples, config.train.source_noise, config.seed)
    else:
        x0 = add_source_noise(start.samples, config.train.source_noise, seed, step)
    return Pairs(x0, end.samples, t, draw_condition(config, start, end, g))


def draw_times(config: Config, count: int, g: torch.Generator) -> Tensor:
    """Draw the training times of the objective: [count] in [0, 1), or [count, 2] with the ends of steps in [0, 1]."""
    objective, train = OBJECTIVES[config.objective], config.train
    u = torch.rand(count, *objective.uniforms, generator=g, device=g.device)
    return objective.draw_times(u, train.time_power, train.start_share, PATHS[config.path])


def draw_condition(config: Config, start: Batch, end: Batch, g: torch.Generator) -> Condition:
    """Return the condition of each pair: the target's label, dropped at random, and the source's image.

    Both are None for networks and pipelines that take none. A teacher's pairs have labels that it was asked for or not.
    """
    dropped = torch.rand(len(end.samples), generator=g, device=g.device) < config.train.label_dropout
    label = None
    if config.num_classes:
        assert end.labels is not None, "checked when the samplers were built"
        label = end.labels if config.has_teacher else torch.where(dropped, config.num_classes, end.labels)
    image = start.samples if sees_source(config) else None
    return Condition(label, image, config.num_classes)


def add_source_noise(samples: Tensor, std: float, seed: int, step: int) -> Tensor:
    """Return source samples [B, …] plus Gaussian noise of standard deviation `std`, drawn from (seed, step).

    The noise comes after the coupling, which thus sees the samples themselves.
    """
    if not std:
        return samples
    g = generator(samples.device, seed, "source noise", step)
    return samples + std * torch.randn(samples.shape, generator=g, device=samples.device)


def add_own_noise(samples: Tensor, std: float, seed: int) -> Tensor:
    """Return source samples [B, …] plus the noise with which the teacher translated each, a function of its values."""
    if not std:
        return samples
    return samples + std * normal_rows(derive_seed(seed, "source noise"), content_rows(samples))(samples)
