"""A multilayer perceptron for points: time enters as one more coordinate."""

import torch
from torch import Tensor, nn

from flowferry.configs.networks import MLPConfig
from flowferry.configs.validation import UserError
from flowferry.models.base import Network
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition


class MLP(Network):
    """`model(xt, t, condition)` with xt [B, n]: n + 1 → h → h → h → n, with ReLU between."""

    def __init__(self, config: MLPConfig, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        if len(shape) != 1:
            raise UserError(f"mlp: got samples of shape {shape}, expected (n,)")
        (n,), h = shape, config.width
        self.layers = nn.Sequential(
            nn.Linear(n + 1, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, n)
        )

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        return self.layers(torch.cat([xt, t[:, None]], dim=1))
