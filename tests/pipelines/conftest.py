"""What the tests of the pipelines share."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from flowferry import Pipeline
from flowferry.configs.schema import Config


@pytest.fixture
def pipeline(tiny: Callable[..., Config]) -> Callable[..., Pipeline]:
    """pipeline(name): freshly initialized, tiny, the same each time, with weights large enough to move samples."""

    def make(name: str) -> Pipeline:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = Pipeline(tiny(name))
        last_of = nn.Conv2d if len(made.config.shape) == 3 else nn.Linear
        *_, last = (m for m in made.model.modules() if isinstance(m, last_of))
        last.weight.data.mul_(3)
        made.model.eval()
        return made

    return make
