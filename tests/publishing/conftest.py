"""Tiny pipelines whose answers are not 0, as those of a network that was never trained often are."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from flowferry import Pipeline
from flowferry.configs.schema import Config


@pytest.fixture(scope="session")
def shaken(tiny: Callable[..., Config]) -> Callable[..., Pipeline]:
    """shaken(preset, **solver): that tiny pipeline with random weights and other settings of its solver.

    changes: other options of the pipeline; weaker: with another random network for guidance to lead away from.
    """

    def make(preset: str, *, changes: dict[str, Any] | None = None, weaker: bool = False, **solver: object) -> Pipeline:
        config = tiny(preset, **(changes or {}))
        pipeline = Pipeline(replace(config, solver=replace(config.solver, **solver)))
        g = torch.Generator().manual_seed(1)
        networks = [pipeline.model]
        if weaker:
            pipeline.weaker = copy.deepcopy(pipeline.model)
            networks.append(pipeline.weaker)
        for network in networks:
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.1, generator=g)
        return pipeline

    return make
