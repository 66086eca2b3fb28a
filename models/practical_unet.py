"""A small UNet without normalization, in which time enters as one more input channel."""

import torch
from torch import Tensor, nn

from flowferry.configs.networks import PracticalUNetConfig
from flowferry.models.base import Network, image_channels
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition


def double_conv(cin: int, cout: int) -> nn.Sequential:
    """Return two convolutions that keep the size, each followed by ReLU."""
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU(), nn.Conv2d(cout, cout, 3, padding=1), nn.ReLU())


class PracticalUNet(Network):
    """`model(xt, t, condition)` with xt [B, C, H, W], H and W multiples of 4. Skips are added, not concatenated."""

    stride = 4

    def __init__(self, config: PracticalUNetConfig, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels, w = image_channels("practical-unet", shape, multiple=self.stride), config.width
        self.down1 = double_conv(channels + 1, w)
        self.down2 = double_conv(w, 2 * w)
        self.middle = double_conv(2 * w, 2 * w)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(2 * w, 2 * w, 2, stride=2)
        self.merge2 = double_conv(2 * w, w)
        self.up1 = nn.ConvTranspose2d(w, w, 2, stride=2)
        self.merge1 = double_conv(w, w)
        self.out = nn.Conv2d(w, channels, 1)

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        time = t[:, None, None, None].expand(-1, 1, *xt.shape[2:])
        h1 = self.down1(torch.cat([xt, time], dim=1))
        h2 = self.down2(self.pool(h1))
        h = self.middle(self.pool(h2))
        h = self.merge2(self.up2(h) + h2)
        h = self.merge1(self.up1(h) + h1)
        return self.out(h)
