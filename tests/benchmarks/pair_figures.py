"""What the benchmark of pairs measures beside `closeness`. Images are [N, C, H, W] in [-1, 1]."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.models.encoder import Encoder
from flowferry.pipelines.evaluation import metrics
from flowferry.pipelines.evaluation.metrics import closeness, closeness_of_each, frechet, perceptual

THUMBNAIL, EDGES = 8, 16  # pixels


def mean_gradient(images: Tensor) -> float:
    """Return the mean absolute difference of neighboring pixels, across and down."""
    across, down = images.diff(dim=-1).abs().mean(), images.diff(dim=-2).abs().mean()
    return ((across + down) / 2).item()


def mean_saturation(images: Tensor) -> float:
    """Return the mean difference between the largest and the smallest channel of a pixel: 0 for gray."""
    return (images.amax(dim=1) - images.amin(dim=1)).mean().item()


def best_psnr(results: Sequence[Tensor], truth: Tensor) -> float:
    """Return the PSNR in dB of the best of several results for each truth [N, C, H, W]."""
    return torch.stack([closeness_of_each(images, truth)[0] for images in results]).amax(dim=0).mean().item()


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
    return metrics.retrieval(*features)


def distances(images: Tensor, truth: Tensor, encoder: Encoder) -> dict[str, float]:
    """Return Fréchet distances of two sets of images, which need not be pairs."""
    return {
        "frechet of thumbnails": frechet(thumbnails(truth), thumbnails(images)),
        "frechet of features": frechet(encoder.extract(truth), encoder.extract(images)),
    }


def figures_of(results: Tensor, truth: Tensor, encoder: Encoder) -> dict[str, float]:
    """Return all figures of the results for each truth."""
    figures = {
        **closeness(results, truth)._asdict(),
        "perceptual": perceptual(encoder.maps, results, truth).mean().item(),
        "sharpness": mean_gradient(results) / mean_gradient(truth),
        **distances(results, truth, encoder),
        "retrieval": retrieval(results, truth),
    }
    if (of_truth := mean_saturation(truth)) > 0:
        figures["saturation"] = mean_saturation(results) / of_truth
    return figures
