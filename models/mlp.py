"""A perceptron for points: time is one more coordinate."""

import torch
from torch import Tensor, nn

from configs.checks import UserError
from configs.parts import MLPConfig
from models.shapes import refuse_classes


class MLP(nn.Module):
    """`model(xt, t)` with xt [B, n]: n + 1 → h → h → h → n, with ReLU between."""

    def __init__(self, config: MLPConfig, *, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        refuse_classes("mlp", classes)
        if len(shape) != 1:
            raise UserError(f"mlp: found samples of shape {shape}, accepted is (n,)")
        (n,), h = shape, config.width
        self.layers = nn.Sequential(
            nn.Linear(n + 1, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, n)
        )

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(torch.cat([xt, t[:, None]], dim=1))
