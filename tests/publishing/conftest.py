"""Tiny pipelines whose answers are not 0, as those of a network that was never trained often are."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from flowferry import Pipeline
from flowferry.configs.schema import Config


@pytest.fixture(scope="session")
def shaken(tiny: Callable[..., Config]) -> Callable[..., Pipeline]:
    """shaken(preset, **solver): that tiny pipeline with random weights and other settings of its solver."""

    def make(preset: str, **solver: object) -> Pipeline:
        config = tiny(preset)
        pipeline = Pipeline(replace(config, solver=replace(config.solver, **solver)))
        g = torch.Generator().manual_seed(1)
        for parameter in pipeline.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=g)
        return pipeline

    return make
