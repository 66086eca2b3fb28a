"""A UNet on patches of 2×2 pixels, with residual blocks that time and class modulate: the fastest one here to train.

Made of known parts: pixel (un)shuffle (Shi et al. 2016), residual blocks with GroupNorm that open as the identity,
and a scale and a shift from the conditioning after the second norm (Dhariwal & Nichol 2021, section 3.1).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.checks import UserError
from configs.parts import PatchUNetConfig
from models.shapes import image_channels

GROUPS, CONDITION, FREQUENCIES, HIGHEST = 8, 128, 32, 200.0


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer, answering nothing yet."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ModulatedBlock(nn.Module):
    """x [B, cin, H, W], condition [B, 128] -> [B, cout, H, W]"""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, cout), zeroed(nn.Conv2d(cout, cout, 3, padding=1))
        self.modulation = zeroed(nn.Linear(CONDITION, 2 * cout))
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))
        return self.skip(x) + h


class PatchUNet(nn.Module):
    """`model(xt, t, label)` with xt [B, C, H, W], H and W multiples of 4; label int64 [B], or None without classes.

    Time enters as sinusoids of √t, which tell times near 0 apart: where the source is an image, x_t still shows two
    images there and most is to be learned.
    """

    def __init__(self, config: PatchUNetConfig, *, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        check(config)
        patch = 4 * image_channels("patch-unet", shape, multiple=4)
        fine, coarse = config.widths
        at_fine, at_coarse = config.blocks
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION))
        self.label = nn.Embedding(classes + 1, CONDITION) if classes else None
        self.stem = nn.Conv2d(patch, fine, 3, padding=1)
        self.down = nn.ModuleList(ModulatedBlock(fine, fine) for _ in range(at_fine))
        self.shrink = nn.Conv2d(fine, coarse, 3, 2, 1)
        self.middle = nn.ModuleList(ModulatedBlock(coarse, coarse) for _ in range(at_coarse))
        self.grow = nn.ConvTranspose2d(coarse, fine, 2, 2)
        self.up = nn.ModuleList(ModulatedBlock(fine if i else 2 * fine, fine) for i in range(at_fine))
        self.norm, self.out = nn.GroupNorm(GROUPS, fine), zeroed(nn.Conv2d(fine, patch, 3, padding=1))

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        condition = self.condition(t, label)
        h = self.stem(F.pixel_unshuffle(xt, 2))
        for block in self.down:
            h = block(h, condition)
        skipped, h = h, self.shrink(h)
        for block in self.middle:
            h = block(h, condition)
        h = torch.cat([self.grow(h), skipped], dim=1)
        for block in self.up:
            h = block(h, condition)
        return F.pixel_shuffle(self.out(F.silu(self.norm(h))), 2)

    def condition(self, t: Tensor, label: Tensor | None) -> Tensor:
        """[B, 128]"""
        steps = torch.arange(FREQUENCIES, device=t.device, dtype=t.dtype) / (FREQUENCIES - 1)
        angles = t.sqrt()[:, None] * torch.exp(math.log(HIGHEST) * steps)
        told = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        return F.silu(told if self.label is None else told + self.label(label))


def check(config: PatchUNetConfig) -> None:
    """Raises UserError where widths or blocks do not fit."""
    if len(config.widths) != 2 or len(config.blocks) != 2 or any(width % GROUPS for width in config.widths):
        raise UserError(
            f"patch-unet: found widths {config.widths} and blocks {config.blocks}, accepted are two of each, the "
            f"widths multiples of {GROUPS}"
        )
