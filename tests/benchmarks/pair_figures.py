"""What the benchmark of pairs measures beside `closeness`. Images are [N, C, H, W] in [-1, 1]."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowferry.datasets.rng import generator
from flowferry.pipelines.evaluation.metrics import closeness, frechet, nearest

THUMBNAIL, EDGES = 8, 16  # pixels


def mean_gradient(images: Tensor) -> float:
    """Return the mean absolute difference of neighboring pixels, across and down."""
    across, down = images.diff(dim=-1).abs().mean(), images.diff(dim=-2).abs().mean()
    return ((across + down) / 2).item()


def mean_saturation(images: Tensor) -> float:
    """Return the mean difference between the largest and the smallest channel of a pixel: 0 for gray."""
    return (images.amax(dim=1) - images.amin(dim=1)).mean().item()


def squared_errors(images: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error [N] of each image."""
    return (images - truth).square().mean(dim=(1, 2, 3))


def best_of(results: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Return of several results for each truth [N, C, H, W] the one with the highest PSNR."""
    errors = torch.stack([squared_errors(images, truth) for images in results])
    return torch.stack(list(results))[errors.argmin(dim=0), torch.arange(len(truth))]


def thumbnails(images: Tensor, side: int = THUMBNAIL) -> Tensor:
    """Return the images as side × side pixels, each the mean of its area, as features [N, C·side²]."""
    return F.adaptive_avg_pool2d(images, side).flatten(1)


def content(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return (edges, colors): features of what a picture shows and where, [N, EDGES²] and [N, C·THUMBNAIL²].

    Edges are the magnitude of the gradient of the brightness, as a mean over small areas.
    """
    gray = F.pad(images.mean(dim=1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    gradient = torch.hypot(gray[..., :-1, :-1] - gray[..., :-1, 1:], gray[..., :-1, :-1] - gray[..., 1:, :-1])
    return thumbnails(gradient, EDGES), thumbnails(images)


def retrieval(results: Tensor, truth: Tensor) -> float:
    """Return the share of results whose own truth is the nearest of all N in edges and colors.

    The two weigh alike: each is divided by its spread over the truth.
    """
    found, wanted = content(results), content(truth)
    spreads = [(part - part.mean(dim=0)).square().sum(dim=1).mean().sqrt() for part in wanted]
    features = [
        torch.cat([part / spread for part, spread in zip(parts, spreads, strict=True)], dim=1)
        for parts in (found, wanted)
    ]
    return (nearest(*features)[1].cpu() == torch.arange(len(truth))).double().mean().item()


class Autoencoder(nn.Module):
    """A small convolutional autoencoder of images, through whose features results are compared without any labels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels, 16, 32, 64]
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(cin, cout, 3, 2, 1) for cin, cout in pairs)
        self.up = nn.ModuleList(nn.Conv2d(cout, cin, 3, padding=1) for cin, cout in reversed(pairs))

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the activations of each stage of the encoder, at half, a quarter and an eighth of the size."""
        found = []
        for layer in self.down:
            x = F.silu(layer(x))
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        sizes, stages = [x.shape[-2:]], self.stages(x)
        sizes += [stage.shape[-2:] for stage in stages[:-1]]
        h = stages[-1]
        for layer, size in zip(self.up, reversed(sizes), strict=True):
            h = layer(F.interpolate(h, size=tuple(size)))
            h = h if layer is self.up[-1] else F.silu(h)
        return h

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the mean of each channel of each stage, [N, 112]."""
        parts = images.split(256)
        return torch.cat([torch.cat([s.mean(dim=(2, 3)) for s in self.stages(part)], dim=1) for part in parts])


def trained_autoencoder(images: Tensor, *, steps: int, batch: int = 32) -> Autoencoder:
    """Train an autoencoder to remove noise from the images, always in the same way."""
    torch.manual_seed(0)
    network = Autoencoder(images.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        drawn = generator("cpu", "autoencoder", step)
        clean = images[torch.randint(len(images), (batch,), generator=drawn)]
        noisy = clean + 0.2 * torch.randn(clean.shape, generator=drawn)
        optimizer.zero_grad()
        F.mse_loss(network(noisy), clean).backward()
        optimizer.step()
    return network.eval()


def distances(images: Tensor, truth: Tensor, network: Autoencoder) -> dict[str, float]:
    """Return Fréchet distances of two sets of images, which need not be pairs."""
    return {
        "frechet of thumbnails": frechet(thumbnails(truth), thumbnails(images)),
        "frechet of features": frechet(network.features(truth), network.features(images)),
    }


def figures_of(results: Tensor, truth: Tensor, network: Autoencoder) -> dict[str, float]:
    """Return all figures of the results for each truth."""
    figures = {
        **closeness(results, truth)._asdict(),
        "sharpness": mean_gradient(results) / mean_gradient(truth),
        **distances(results, truth, network),
        "retrieval": retrieval(results, truth),
    }
    if (of_truth := mean_saturation(truth)) > 0:
        figures["saturation"] = mean_saturation(results) / of_truth
    return figures
