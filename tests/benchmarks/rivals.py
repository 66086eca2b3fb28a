"""What people train on pairs of images today: pix2pix (Isola et al. 2017), and its generator by plain L1 regression.

Written from the paper, sections 3 and 6.1, for images smaller than its 256 pixels: the U-Net halves them down to one
pixel, and a patch of the discriminator is about half a picture wide (34 of 64 pixels, 16 of 28). Unlike there, a batch
has more than one image, so that BatchNorm translates with the statistics of training; and the learning rate is
constant for the first half of the time and then falls to zero, as in the authors' code. Dropout stays on when pix2pix
translates: it is the noise of that model. The regression has none.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowferry.configs.recipe import TrainConfig
from flowferry.datasets.base import Sampler
from flowferry.datasets.couplings import given
from flowferry.datasets.rng import derive_seed, generator
from flowferry.pipelines.hardware import best_device, keep_freed_memory, use_cores
from flowferry.pipelines.training.distributed import precision

WIDEST = 8  # times the first width
BATCH = 64  # images translated at a time


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the rivals are trained."""

    width: int = 32
    """Channels after the first layer of both networks (the paper: 64, for larger images)."""
    batch_size: int = 16
    lr: float = 2e-4
    l1_weight: float = 100.0
    """λ of pix2pix's L1 term."""
    shifted: int = 4
    """Training pairs are mirrored with probability ½ and shifted by up to this many pixels, for the paper's jitter."""


def halving(cin: int, cout: int, *, norm: bool = True) -> nn.Sequential:
    """Return a layer of the encoder: [B, cin, H, W] -> [B, cout, H/2, W/2], without activation."""
    convolution = nn.Conv2d(cin, cout, 4, 2, 1, bias=not norm)
    return nn.Sequential(convolution, nn.BatchNorm2d(cout)) if norm else nn.Sequential(convolution)


def doubling(cin: int, cout: int, *, dropout: bool) -> nn.Sequential:
    """Return a layer of the decoder: [B, cin, H, W] -> [B, cout, 2H, 2W], with its activation before it."""
    layer = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False), nn.BatchNorm2d(cout))
    return layer.append(nn.Dropout(0.5)) if dropout else layer


class UNet(nn.Module):
    """The generator: images [B, C, side, side] in [-1, 1] -> the same shape and range.

    dropout: in the innermost layers of the decoder. Images are padded to a power of two by repeating their borders.
    """

    def __init__(self, channels: int, side: int, width: int, *, dropout: bool) -> None:
        super().__init__()
        levels = math.ceil(math.log2(side))
        self.side, self.padding = side, 2**levels - side
        widths = [width * min(2**level, WIDEST) for level in range(levels)]
        inner = max(1, sum(w == WIDEST * width for w in widths) - 2)  # as many layers as the authors' code drops out
        last = levels - 1  # has one pixel, which BatchNorm would wash out in a small batch
        self.down = nn.ModuleList(
            halving(cin, cout, norm=0 < level < last)
            for level, (cin, cout) in enumerate(zip([channels, *widths], widths, strict=False))
        )
        self.up = nn.ModuleList(
            doubling(
                widths[level] * (1 if level == last else 2), widths[level - 1], dropout=dropout and last - level < inner
            )
            for level in range(last, 0, -1)
        )
        self.out = nn.ConvTranspose2d(2 * widths[0], channels, 4, 2, 1)
        self.apply(initialize)

    def forward(self, x: Tensor) -> Tensor:
        before = self.padding // 2
        h = F.pad(x, (before, self.padding - before) * 2, mode="replicate")
        skipped = []
        for level, layer in enumerate(self.down):
            h = layer(F.leaky_relu(h, 0.2) if level else h)
            skipped.append(h)
        h = skipped.pop()
        for layer in self.up:
            h = torch.cat([layer(h), skipped.pop()], dim=1)
        h = self.out(F.relu(h)).float().tanh()
        return h[..., before : before + self.side, before : before + self.side]


class PatchGAN(nn.Module):
    """The discriminator: source and image [B, C, side, side] -> logits [B, 1, h, w], a patch each: real or not?"""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        halvings = min(3, max(1, math.ceil(math.log2(side)) - 4))
        widths = [width * min(2**level, WIDEST) for level in range(halvings + 1)]
        layers: list[nn.Module] = []
        for level, (cin, cout) in enumerate(zip([2 * channels, *widths], widths, strict=False)):
            layers.append(nn.Conv2d(cin, cout, 4, 2 if level < halvings else 1, 1, bias=level == 0))
            layers += [nn.BatchNorm2d(cout)] if level else []
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))
        self.apply(initialize)

    def forward(self, source: Tensor, image: Tensor) -> Tensor:
        return self.layers(torch.cat([source, image], dim=1)).float()


def initialize(module: nn.Module) -> None:
    """Draw the weights of a layer from N(0, 0.02²), or N(1, 0.02²) in BatchNorm."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def real(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def fake(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


# --- training -------------------------------------------------------------------------------------------

Step = Callable[[Tensor, Tensor, float], None]
"""step(source, target, learning rate)"""


def minimize(loss: Tensor, optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def l1_step(network: UNet, recipe: Recipe, autocast: Any) -> Step:
    """Return a step of plain regression."""
    optimizer = torch.optim.Adam(network.parameters(), betas=(0.5, 0.999), fused=True)

    def step(x0: Tensor, x1: Tensor, lr: float) -> None:
        with autocast():
            answer = network(x0)
        minimize(F.l1_loss(answer, x1), optimizer, lr)

    return step


def pix2pix_step(network: UNet, recipe: Recipe, autocast: Any) -> Step:
    """Return a step of both networks (the paper's eq. 4, the generator by −log D instead of log(1 − D))."""
    parameter = next(network.parameters())
    critic = PatchGAN(parameter.shape[1], network.side, recipe.width).to(parameter.device).train()
    of_network, of_critic = (
        torch.optim.Adam(module.parameters(), betas=(0.5, 0.999), fused=True) for module in (network, critic)
    )

    def step(x0: Tensor, x1: Tensor, lr: float) -> None:
        with autocast():
            answer = network(x0)
            told_real, told_fake = critic(x0, x1), critic(x0, answer.detach())
        minimize((real(told_real) + fake(told_fake)) / 2, of_critic, lr)
        critic.requires_grad_(False)
        with autocast():
            judged = critic(x0, answer)
        minimize(real(judged) + recipe.l1_weight * F.l1_loss(answer, x1), of_network, lr)
        critic.requires_grad_(True)

    return step


RIVALS: dict[str, tuple[Callable[[UNet, Recipe, Any], Step], bool]] = {
    "l1": (l1_step, False),
    "pix2pix": (pix2pix_step, True),
}
"""The step of each, and whether its generator has dropout."""


def jittered(x0: Tensor, x1: Tensor, most: int, *key: int | str) -> tuple[Tensor, Tensor]:
    """Return pairs [B, C, H, W], both mirrored and shifted alike, with their borders repeated behind."""
    both = torch.stack([x0, x1], dim=1)
    drawn = generator("cpu", "jitter", *key)
    flips = torch.rand(len(both), generator=drawn) < 0.5
    both = torch.where(flips.to(both.device)[:, None, None, None, None], both.flip(-1), both)
    if most:
        height, width = both.shape[-2:]
        padded = F.pad(both.flatten(1, 2), (most,) * 4, mode="replicate").unflatten(1, both.shape[1:3])
        at = torch.randint(2 * most + 1, (len(both), 2), generator=drawn).tolist()
        both = torch.stack([pair[..., y : y + height, x : x + width] for pair, (y, x) in zip(padded, at, strict=True)])
    return both[:, 0], both[:, 1]


class Trained(NamedTuple):
    """A trained generator, and what its training took."""

    network: UNet
    figures: dict[str, float]


def train(
    name: str, source: Sampler, target: Sampler, recipe: Recipe, *, minutes: float, threads: int, seed: int
) -> Trained:
    """Train a rival on pairs for some minutes, on so many threads; 0: all cores."""
    use_cores(threads)
    keep_freed_memory()
    device, (make_step, dropout) = best_device(), RIVALS[name]
    torch.manual_seed(derive_seed(seed, "weights"))
    channels, _, side = source.shape
    network = UNet(channels, side, recipe.width, dropout=dropout).to(device).train()
    bf16 = precision(TrainConfig()) == "bf16"  # as the project's own entries train
    step = make_step(network, recipe, lambda: torch.autocast(device.type, torch.bfloat16, enabled=bf16))
    number, began, passed = 0, time.perf_counter(), 0.0
    while passed < 60 * minutes:
        x0, x1 = (batch.samples for batch in given(source, target, recipe.batch_size, seed, number))
        done = passed / (60 * minutes)
        step(*jittered(x0, x1, recipe.shifted, seed, number), recipe.lr * min(1.0, 2 * (1 - done)))
        number, passed = number + 1, time.perf_counter() - began
    figures = {
        "minutes": passed / 60,
        "training steps": number,
        "images/s": number * recipe.batch_size / passed,
        "parameters": sum(p.numel() for p in network.parameters()),
        "nfe": 1,
    }
    return Trained(network, figures)


def kept(file: Path, name: str, source: Sampler, target: Sampler, recipe: Recipe, **how: Any) -> Trained:
    """Return the rival that `file` holds, if it was trained so; else train it as `train` does, and write it there."""
    settings = {"name": name, **vars(recipe), **how}
    if file.exists() and (held := torch.load(file, weights_only=True))["settings"] == settings:
        network = UNet(source.shape[0], source.shape[-1], recipe.width, dropout=RIVALS[name][1])
        network.load_state_dict(held["weights"])
        return Trained(network.to(best_device()), held["figures"])
    done = train(name, source, target, recipe, **how)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"settings": settings, "weights": done.network.state_dict(), "figures": done.figures}, file)
    return done


@torch.no_grad()
def translate(network: UNet, images: Tensor, *, seed: int) -> Tensor:
    """Return the translations of images [N, C, H, W] in [-1, 1]; seed: of dropout, where the generator has it."""
    network.eval()
    for layer in network.up:
        layer[-1].train(isinstance(layer[-1], nn.Dropout))
    device = next(network.parameters()).device
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.cat([network(part.to(device)).cpu() for part in images.split(BATCH)])
