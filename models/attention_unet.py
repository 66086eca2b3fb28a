"""A UNet with GroupNorm, residual blocks and self-attention, as denoising diffusion uses them (Ho et al. 2020)."""

import torch
from torch import Tensor, nn

from flowferry.configs.networks import AttentionUNetConfig
from flowferry.configs.validation import UserError
from flowferry.models.base import Network, image_channels
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition

GROUPS, HEADS = 8, 4
TIME_WIDTH = 128


def sinusoids(t: Tensor, width: int = TIME_WIDTH) -> Tensor:
    """Return sines, then cosines, of t·10000^(−i/(width/2)): [B] -> [B, width] (Vaswani et al. 2017, section 3.5)."""
    half = width // 2
    frequencies = 10000 ** (-torch.arange(half, device=t.device, dtype=t.dtype) / half)
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def norm_act_conv(cin: int, cout: int) -> nn.Sequential:
    """Return GroupNorm and SiLU, then a convolution that keeps the size."""
    return nn.Sequential(nn.GroupNorm(GROUPS, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1))


class ResidualBlock(nn.Module):
    """A residual block: x [B, cin, H, W], time [B, 128] -> [B, cout, H, W]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.first, self.second = norm_act_conv(cin, cout), norm_act_conv(cout, cout)
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(TIME_WIDTH, cout))
        self.skip = nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.first(x) + self.time(time)[:, :, None, None]
        return self.second(h) + self.skip(x)


class SelfAttention(nn.Module):
    """Self-attention over the positions of x [B, C, H, W], added to x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.attention = nn.MultiheadAttention(channels, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        positions = self.norm(x).flatten(2).transpose(1, 2)  # [B, H·W, C]
        found, _ = self.attention(positions, positions, positions, need_weights=False)
        return x + found.transpose(1, 2).reshape_as(x)


class Block(nn.Module):
    """A residual block, followed by self-attention if `attention`."""

    def __init__(self, cin: int, cout: int, *, attention: bool) -> None:
        super().__init__()
        self.residual = ResidualBlock(cin, cout)
        self.attention = SelfAttention(cout) if attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.attention(self.residual(x, time))


class AttentionUNet(Network):
    """`model(xt, t, condition)` with xt [B, C, H, W], H and W multiples of 2^N for N blocks down.

    Each block up also takes the input of the block down at its level, and has attention if that block has.
    """

    def __init__(self, config: AttentionUNetConfig, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        check(config)
        widths, middle, self.time_scale = config.widths, config.middle, config.time_scale
        levels = list(zip(widths[:-1], widths[1:], config.attention, strict=True))
        self.stride = 2 ** len(levels)
        channels = image_channels("attention-unet", shape, multiple=self.stride)
        self.time = nn.Sequential(nn.Linear(TIME_WIDTH, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH))
        self.init = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Block(cin, cout, attention=attends) for cin, cout, attends in levels)
        self.shrink = nn.ModuleList(nn.Conv2d(cout, cout, 4, 2, 1) for _, cout, _ in levels)
        self.middle1 = Block(widths[-1], middle, attention=True)
        self.middle2 = Block(middle, middle, attention=False)
        self.up, self.grow, h = nn.ModuleList(), nn.ModuleList(), middle
        for cin, _, attends in reversed(levels):
            self.grow.append(nn.ConvTranspose2d(h, h, 4, 2, 1))
            self.up.append(Block(h + cin, cin // 2, attention=attends))
            h = cin // 2
        self.out = norm_act_conv(h, channels)

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        time = self.time(sinusoids(self.time_scale * t))
        h, stored = self.init(xt), []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            stored.append(h)
            h = shrink(block(h, time))
        h = self.middle2(self.middle1(h, time), time)
        for block, grow in zip(self.up, self.grow, strict=True):
            h = block(torch.cat([grow(h), stored.pop()], dim=1), time)
        return self.out(h)


def check(config: AttentionUNetConfig) -> None:
    """Raise UserError unless each width but the first has an attention flag and the groups divide all widths."""
    if len(config.attention) != len(config.widths) - 1 or len(config.widths) < 2:
        raise UserError(
            f"attention-unet: got {len(config.attention)} attention flags for widths {config.widths}, "
            "expected one for each width after the first"
        )
    # Half of each width but the last is normalized on the way up; the last follows the same rule for simplicity.
    if any(width % (2 * GROUPS) for width in config.widths) or config.middle % GROUPS:
        raise UserError(
            f"attention-unet: got widths {config.widths} and middle {config.middle}, expected multiples of "
            f"{2 * GROUPS}, and of {GROUPS} in the middle"
        )
