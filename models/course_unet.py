"""The UNet that flow-matching and diffusion courses build by hand, for 28×28 images.

Every block is convolution + BatchNorm + GELU. The bottleneck is a single 1×1 vector. Time and class
enter in two places, after the Unflatten and after the first UpBlock, as `c · h + s`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowferry.configs.networks import CourseUNetConfig
from flowferry.configs.validation import UserError
from flowferry.models.base import Network, image_channels
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition


def conv(cin: int, cout: int) -> nn.Sequential:
    """Return a convolution that keeps the size."""
    return nn.Sequential(nn.Conv2d(cin, cout, 3, 1, 1), nn.BatchNorm2d(cout), nn.GELU())


def down_conv(cin: int, cout: int) -> nn.Sequential:
    """Return a convolution that halves the size."""
    return nn.Sequential(nn.Conv2d(cin, cout, 3, 2, 1), nn.BatchNorm2d(cout), nn.GELU())


def up_conv(cin: int, cout: int) -> nn.Sequential:
    """Return a convolution that doubles the size."""
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, 4, 2, 1), nn.BatchNorm2d(cout), nn.GELU())


def conv_block(cin: int, cout: int) -> nn.Sequential:
    """Return two convolutions that keep the size."""
    return nn.Sequential(conv(cin, cout), conv(cout, cout))


def down_block(cin: int, cout: int) -> nn.Sequential:
    """Return a convolution that halves the size, then two that keep it."""
    return nn.Sequential(down_conv(cin, cout), conv_block(cout, cout))


def up_block(cin: int, cout: int) -> nn.Sequential:
    """Return a convolution that doubles the size, then two that keep it."""
    return nn.Sequential(up_conv(cin, cout), conv_block(cout, cout))


def fc_block(cin: int, cout: int) -> nn.Sequential:
    """Return a perceptron of two layers: [B, cin] -> [B, cout]."""
    return nn.Sequential(nn.Linear(cin, cout), nn.GELU(), nn.Linear(cout, cout))


class CourseUNet(Network):
    """`model(xt, t, condition)` with xt [B, C, 28, 28].

    config.time: "none" ignores t; "multiply" scales the features by it; "add" shifts them by it.
    num_classes > 0: the one-hot class (all zero for the null label) scales the features, so time must not.
    """

    takes_classes = True

    def __init__(self, config: CourseUNetConfig, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        if num_classes and config.time == "multiply":
            raise UserError("course-unet: got time 'multiply' with classes, which multiply too; expected 'add'")
        channels = image_channels("course-unet", shape, side=28)
        d, self.time, self.num_classes = config.width, config.time, num_classes
        self.init = conv_block(channels, d)
        self.down1 = down_block(d, d)
        self.down2 = down_block(d, 2 * d)
        self.flatten = nn.Sequential(nn.AvgPool2d(7), nn.GELU())
        self.unflatten = nn.Sequential(nn.ConvTranspose2d(2 * d, 2 * d, 7, 7, 0), nn.BatchNorm2d(2 * d), nn.GELU())
        self.up1 = up_block(4 * d, d)
        self.up2 = up_block(2 * d, d)
        self.out = nn.Sequential(conv_block(2 * d, d), nn.Conv2d(d, channels, 3, 1, 1))
        if config.time != "none":
            self.time1, self.time2 = fc_block(1, 2 * d), fc_block(1, d)
        if num_classes:
            self.class1, self.class2 = fc_block(num_classes, 2 * d), fc_block(num_classes, d)

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        h0 = self.init(xt)
        h1 = self.down1(h0)
        h2 = self.down2(h1)
        h = self.unflatten(self.flatten(h2))
        (scale1, shift1), (scale2, shift2) = self.conditioning(t, condition.label)
        h = self.up1(torch.cat([scale1 * h + shift1, h2], dim=1))
        h = self.up2(torch.cat([scale2 * h + shift2, h1], dim=1))
        return self.out(torch.cat([h, h0], dim=1))

    def conditioning(self, t: Tensor, label: Tensor | None) -> list[tuple[Tensor | float, Tensor | float]]:
        """Return (scale, shift) for the outputs of Unflatten and of the first UpBlock, each [B, D, 1, 1] or neutral."""
        scales: Sequence[Tensor | float] = (1.0, 1.0)
        shifts: Sequence[Tensor | float] = (0.0, 0.0)
        if self.time != "none":
            times = [as_map(block(t[:, None])) for block in (self.time1, self.time2)]
            scales, shifts = (times, shifts) if self.time == "multiply" else (scales, times)
        if self.num_classes:
            if label is None:
                label = torch.full_like(t, self.num_classes, dtype=torch.long)
            # The null label is no class: a row of zeros. (F.one_hot checks its input, for which a GPU has to stop.)
            one_hot = (label[:, None] == torch.arange(self.num_classes, device=label.device)).to(t.dtype)
            scales = [as_map(block(one_hot)) for block in (self.class1, self.class2)]
        return list(zip(scales, shifts, strict=True))


def as_map(features: Tensor) -> Tensor:
    """Return features [B, D] as a map [B, D, 1, 1]."""
    return features[:, :, None, None]
