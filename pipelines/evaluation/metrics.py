"""Measure how alike two sets of samples are, and how much one labeling says about another. Tensors in, numbers out.

Unless stated otherwise, samples are features [N, D] that a classifier of such images gives. Each function measures the
calling process's own samples and waits for no other process. torchmetrics is imported where it is needed: it brings
torchvision and more along, which would more than double the time that a command takes to start.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 11  # pixels, in which structure is compared: images must be as large
NEIGHBORS = 5  # k of Naeem et al. 2020
HIGHER_IS_BETTER = {"psnr", "ssim"}  # of the figures of pairs
COARSE = 4  # cells, in each direction, in which images are compared to find one among others

Maps = Callable[[Tensor], list[Tensor]]
"""Images [B, C, H, W] -> activations [B, C', H', W'] at several depths of a network."""


class PrecomputedFeatures(nn.Identity):
    """The feature extractor for torchmetrics where its inputs are features already: it changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width


def frechet(real: Tensor, fake: Tensor) -> float:
    """Return the Fréchet distance of real [N, D] and generated samples [M, D] (Heusel et al. 2017, eq. 6).

    It is ‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2(Σ_r Σ_f)^½), in squared feature units: 0 for sets of equal moments.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=PrecomputedFeatures(real.shape[1]), sync_on_compute=False).to(real.device)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


def kernel(real: Tensor, fake: Tensor, *, seed: int = 0) -> float:
    """Return the kernel distance of real [N, D] and generated samples [M, D] (Bińkowski et al. 2018).

    It is the squared maximum mean discrepancy under the kernel (x·y/D + 1)³, the mean over 100 subsets that `seed`
    draws. The estimate is unbiased: for sets that are alike it scatters about 0, below it too.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(1000, len(real), len(fake))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that all features are kept in memory
        metric = KernelInceptionDistance(PrecomputedFeatures(real.shape[1]), subset_size=size, sync_on_compute=False)
    metric.to(real.device)
    metric.update(real.double(), real=True)  # in double precision: the result is a small difference of large sums
    metric.update(fake.double(), real=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return float(metric.compute()[0])


class Closeness(NamedTuple):
    """How close images are to the true ones, each to its own: means over the images."""

    psnr: float
    """Peak signal-to-noise ratio in dB; 100 at most, which equal images have."""
    ssim: float
    """Structural similarity (Wang et al. 2004) in a Gaussian window of WINDOW pixels; 1 for equal images."""
    l1: float
    """Absolute error, on the scale 0 … 255."""


def closeness(images: Tensor, truth: Tensor) -> Closeness:
    """Return how close images [N, C, H, W] in [-1, 1] are to the truth, of the same shape; H, W ≥ WINDOW."""
    return Closeness(*(float(values.mean()) for values in closeness_of_each(images, truth)))


def closeness_of_each(images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the values of `Closeness` of each image, [N] each."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    error = (images - truth).double() / 2  # black and white are 1 apart
    mse = error.square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
    ssim = structural_similarity_index_measure(images, truth, data_range=2.0, reduction="none")
    return -10 * mse.log10(), ssim.double(), 255 * error.abs().mean(dim=(1, 2, 3))  # type: ignore[union-attr]


@torch.no_grad()
def perceptual(maps: Maps, images: Tensor, others: Tensor) -> Tensor:
    """Return the perceptual distance [N] of images from others, [N, C, H, W] in [-1, 1] each.

    It is that of Zhang et al. 2018 (eq. 1) without learned weights: the squared distance of activations of unit
    length, averaged over places and depths. 0 for equal images, 2 where no activation is common.
    """
    found = []
    for pair in zip(images.split(100), others.split(100), strict=True):
        first, second = ([F.normalize(at, dim=1) for at in maps(part)] for part in pair)
        apart = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in zip(first, second, strict=True)]
        found.append(torch.stack(apart).mean(dim=0))
    return torch.cat(found)


@torch.no_grad()
def embed(maps: Maps, images: Tensor) -> Tensor:
    """Return [N, D] of images [N, C, H, W], whose distances tell which images have alike content at alike places."""
    parts = [[F.normalize(F.adaptive_avg_pool2d(at, COARSE), dim=1) for at in maps(x)] for x in images.split(100)]
    return torch.cat([torch.cat([at.flatten(1) for at in part], dim=1) for part in parts])


def retrieval(samples: Tensor, among: Tensor) -> float:
    """Return the share of samples [B, D] whose own of `among` [N, D], the one with the same number, is the nearest."""
    return (nearest(samples, among)[1] == torch.arange(len(samples), device=samples.device)).double().mean().item()


class Neighborhoods(NamedTuple):
    """Comparisons of two sets by nearest neighbors.

    Precision and recall are those of Kynkäänniemi et al. 2019, density and coverage those of Naeem et al. 2020.
    """

    precision: float
    """Share of the generated samples that lie in the ball of some real sample: do they look real?"""
    recall: float
    """Share of the real samples that lie in the ball of some generated sample: is everything generated?"""
    density: float
    """Number of real balls that a generated sample lies in, divided by k; 1 where the sets are alike."""
    coverage: float
    """Share of the real samples whose ball holds a generated one; 1 − 2^−k where the sets are alike and of one size."""


def neighborhoods(real: Tensor, fake: Tensor, k: int = NEIGHBORS) -> Neighborhoods:
    """Compare real [N, D] with generated samples [M, D].

    The ball of a sample reaches to its k-th nearest neighbor in its own set.
    """
    across = torch.cdist(real, fake)
    of_real, of_fake = radii(real, k), radii(fake, k)
    inside = across < of_real[:, None]
    return Neighborhoods(
        precision=inside.any(dim=0).double().mean().item(),
        recall=(across < of_fake[None]).any(dim=1).double().mean().item(),
        density=inside.double().sum(dim=0).mean().item() / k,
        coverage=(across.min(dim=1).values < of_real).double().mean().item(),
    )


def radii(samples: Tensor, k: int) -> Tensor:
    """Return the distance [N] of each sample to its k-th nearest other sample."""
    return torch.cdist(samples, samples).kthvalue(min(k + 1, len(samples)), dim=1).values  # the nearest is itself


def nearest(samples: Tensor, among: Tensor, *, exclude_self: bool = False) -> tuple[Tensor, Tensor]:
    """Return (distance, index) [B] of the nearest of `among` [N, …] to each of `samples` [B, …].

    exclude_self: each sample is in `among` too, and skips the nearest, which is itself.
    """
    found = []
    for part in samples.flatten(1).split(500):
        found.append(torch.cdist(part, among.flatten(1)).topk(2 if exclude_self else 1, largest=False))
    distances, indices = (torch.cat([getattr(f, name)[:, -1] for f in found]) for name in ("values", "indices"))
    return distances, indices


def memorization_rate(images: Tensor, train: Tensor) -> float:
    """Return the share of images [B, …] that are nearer to a training image than any other training image is to it.

    Distances are between pixels; train: all training images [N, …]. Copies of training images give 1, and new real
    images the rate that chance gives.
    """
    distance, index = nearest(images, train)
    apart, _ = nearest(train[index], train, exclude_self=True)
    return (distance < apart).double().mean().item()


def entropy(histogram: Tensor) -> float:
    """Return the entropy −Σ p log p, in nats, of counts or probabilities [C]: log C where all are equal."""
    p = histogram.double() / histogram.sum()
    return torch.special.entr(p).sum().item()


def mutual_information(a: Tensor, b: Tensor) -> float:
    """Return I(a; b) = H(a) + H(b) − H(a, b), in nats, of two labels per sample, int64 [N] each.

    It is estimated from the frequencies of the labels, which biases it upwards.
    """
    joint = torch.bincount(a * (int(b.max()) + 1) + b)
    return entropy(torch.bincount(a)) + entropy(torch.bincount(b)) - entropy(joint)
