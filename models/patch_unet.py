"""A UNet on patches of 2×2 pixels, whose residual blocks are modulated by time and class: the fastest here to train.

Made of known parts: pixel (un)shuffle (Shi et al. 2016), residual blocks with GroupNorm that start as the identity,
and a scale and a shift from the conditioning after the second norm (Dhariwal & Nichol 2021, section 3.1).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowferry.configs.networks import PatchUNetConfig
from flowferry.configs.validation import UserError
from flowferry.models.base import Network, image_channels
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.tiling import padded

GROUPS, EMBEDDING, FREQUENCIES, HIGHEST = 8, 128, 32, 200.0


def zeroed(layer: nn.Module) -> nn.Module:
    """Return the layer with all parameters set to zero, so that it adds nothing at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ModulatedBlock(nn.Module):
    """A residual block: x [B, cin, H, W], embedding [B, 128] -> [B, cout, H, W]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, cout), zeroed(nn.Conv2d(cout, cout, 3, padding=1))
        self.modulation = zeroed(nn.Linear(EMBEDDING, 2 * cout))
        self.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))
        return self.skip(x) + h


class Levels(nn.Module):
    """The blocks at one resolution and, between those down and those up, the ones at the next lower resolution."""

    def add_levels(self, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        """Make the parts: widths and numbers of blocks from this resolution down to the lowest, two at least."""
        (fine, coarse), (at_fine, at_coarse) = widths[:2], blocks[:2]
        self.down = nn.ModuleList(ModulatedBlock(fine, fine) for _ in range(at_fine))
        self.shrink = nn.Conv2d(fine, coarse, 3, 2, 1)
        lowest = len(widths) == 2
        below = (
            [ModulatedBlock(coarse, coarse) for _ in range(at_coarse)] if lowest else [Lower(widths[1:], blocks[1:])]
        )
        self.middle = nn.ModuleList(below)
        self.grow = nn.ConvTranspose2d(coarse, fine, 2, 2)
        self.up = nn.ModuleList(ModulatedBlock(fine if i else 2 * fine, fine) for i in range(at_fine))

    def through(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Return h [B, widths[0], H, W] after all levels, for an embedding [B, 128]."""
        for block in self.down:
            h = block(h, embedding)
        skipped, h = h, self.shrink(h)
        for block in self.middle:
            h = block(h, embedding)
        h = torch.cat([self.grow(h), skipped], dim=1)
        for block in self.up:
            h = block(h, embedding)
        return h


class Lower(Levels):
    """All levels below one, called as a block is."""

    def __init__(self, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.add_levels(widths, blocks)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.through(h, embedding)


class PatchUNet(Levels, Network):
    """`model(xt, t, condition)` with xt [B, C, H, W].

    Images whose H and W are no multiples of 2^L, for L levels, are continued by reflection, and what comes out is cut.
    Time enters as sinusoids of √t, which resolve the times near 0: with images as the source, x_t shows two images at
    once there, and most of what the network has to learn lies there.
    """

    takes_classes = True
    trains_contiguous = True
    stride: int

    def __init__(self, config: PatchUNetConfig, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        check(config)
        self.stride, width = 2 ** len(config.widths), config.widths[0]
        self.adds_source = config.adds_source
        patch = 4 * image_channels("patch-unet", shape)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.length = step_length() if config.two_times else None
        self.label = nn.Embedding(num_classes + 1, EMBEDDING) if num_classes else None
        self.stem = nn.Conv2d(2 * patch if config.sees_source else patch, width, 3, padding=1)
        self.add_levels(config.widths, config.blocks)
        self.norm, self.out = nn.GroupNorm(GROUPS, width), zeroed(nn.Conv2d(width, patch, 3, padding=1))

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        return padded(self.evaluate, self.stride)(xt, t, condition)

    def evaluate(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Return the prediction for xt [B, C, H, W], with H and W multiples of the stride."""
        seen = xt if condition.image is None else torch.cat([xt, condition.image], dim=1)
        h = self.through(self.stem(F.pixel_unshuffle(seen, 2)), self.embed(t, condition.label))
        out = F.pixel_shuffle(self.out(F.silu(self.norm(h))), 2)
        return out if not self.adds_source or condition.image is None else out + condition.image

    def embed(self, t: Tensor, label: Tensor | None) -> Tensor:
        """Return the embedding of times [B], or [B, 2] from start to end, and labels int64 [B]: [B, 128]."""
        start = t if t.ndim == 1 else t[:, 0]
        embedding = self.time(sinusoids(start))
        if t.ndim > 1 and self.length is not None:
            # Less the sinusoids of 0, so that a step without length is not told apart from its start.
            embedding = embedding + self.length(sinusoids(t[:, 1] - start) - sinusoids(torch.zeros_like(start)))
        if self.label is not None:
            null = self.label.num_embeddings - 1
            label = torch.full_like(start, null, dtype=torch.long) if label is None else label
            embedding = embedding + self.label(label)
        return F.silu(embedding)


def sinusoids(t: Tensor) -> Tensor:
    """Return the sines and cosines of √t for times [B] in [0, 1]: [B, 64]."""
    steps = torch.arange(FREQUENCIES, device=t.device, dtype=t.dtype) / (FREQUENCIES - 1)
    angles = t.sqrt()[:, None] * torch.exp(math.log(HIGHEST) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def step_length() -> nn.Module:
    """Return the layers that embed the length of a step, without biases: 0 stays 0. They add nothing at first."""
    last = zeroed(nn.Linear(EMBEDDING, EMBEDDING, bias=False))
    return nn.Sequential(nn.Linear(2 * FREQUENCIES, EMBEDDING, bias=False), nn.SiLU(), last)


def check(config: PatchUNetConfig) -> None:
    """Raise UserError for widths and numbers of blocks that do not go together, and for a source added but not seen."""
    widths, blocks = config.widths, config.blocks
    if len(widths) < 2 or len(widths) != len(blocks) or any(width % GROUPS for width in widths):
        raise UserError(
            f"patch-unet: got widths {widths} and blocks {blocks}, expected as many of each, at least two, the "
            f"widths multiples of {GROUPS}"
        )
    if config.adds_source and not config.sees_source:
        raise UserError("patch-unet: got adds_source without sees_source, expected both or neither")
