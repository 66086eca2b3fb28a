"""How alike two sets of samples are, and how much one class says of another. Tensors in, numbers out.

Where not said otherwise, samples are given as features [N, D]: of a classifier that knows such images. They are those
of the process that asks: nothing here waits for another one.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

NEIGHBOURS = 5  # k of Naeem et al. 2020


class Features(nn.Identity):
    """What torchmetrics puts its images through, where they are features already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width


def frechet(real: Tensor, fake: Tensor) -> float:
    """‖μ_r − μ_f‖² + tr(Σ_r + Σ_f − 2(Σ_r Σ_f)^½) (Heusel et al. 2017, eq. 6): squared units of the features."""
    metric = FrechetInceptionDistance(feature=Features(real.shape[1]), sync_on_compute=False).to(real.device)
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


def kernel(real: Tensor, fake: Tensor, *, seed: int = 0) -> float:
    """Squared maximum mean discrepancy under the kernel (x·y/D + 1)³ (Bińkowski et al. 2018), over 100 subsets."""
    size = min(1000, len(real), len(fake))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it keeps all features in memory
        metric = KernelInceptionDistance(Features(real.shape[1]), subset_size=size, sync_on_compute=False)
    metric.to(real.device)
    metric.update(real.double(), real=True)  # a small difference of large sums
    metric.update(fake.double(), real=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return float(metric.compute()[0])


class Neighbourhoods(NamedTuple):
    """Shares by nearest neighbours: Kynkäänniemi et al. 2019 for the first two, Naeem et al. 2020 for the others."""

    precision: float
    """Of the generated that lie in the ball of some real sample: do they look real?"""
    recall: float
    """Of the real that lie in the ball of some generated sample: is everything generated?"""
    density: float
    """In how many real balls a generated sample lies, by k; 1 where the sets are alike."""
    coverage: float
    """Of the real whose ball holds a generated sample; 1 − 2^−k where the sets are alike and as large."""


def neighbourhoods(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> Neighbourhoods:
    """The ball of a sample reaches to its k-th nearest neighbour in its own set."""
    across = torch.cdist(real, fake)
    of_real, of_fake = radii(real, k), radii(fake, k)
    inside = across < of_real[:, None]
    return Neighbourhoods(
        precision=inside.any(dim=0).double().mean().item(),
        recall=(across < of_fake[None]).any(dim=1).double().mean().item(),
        density=inside.double().sum(dim=0).mean().item() / k,
        coverage=(across.min(dim=1).values < of_real).double().mean().item(),
    )


def radii(samples: Tensor, k: int) -> Tensor:
    """[N]: how far the k-th nearest other sample is."""
    return torch.cdist(samples, samples).kthvalue(min(k + 1, len(samples)), dim=1).values  # the nearest is itself


def nearest(samples: Tensor, among: Tensor, *, but_itself: bool = False) -> tuple[Tensor, Tensor]:
    """(distance, index) [B] of the nearest of `among` [N, …] to each of `samples` [B, …].

    but_itself: the samples are in `among` too, and each passes over one at no distance.
    """
    found = []
    for part in samples.flatten(1).split(500):
        found.append(torch.cdist(part, among.flatten(1)).topk(2 if but_itself else 1, largest=False))
    distances, indices = (torch.cat([getattr(f, name)[:, -1] for f in found]) for name in ("values", "indices"))
    return distances, indices


def memorised(images: Tensor, train: Tensor) -> float:
    """The share of `images` [B, …] nearer to a training image than that one is to every other training image.

    In pixels. Training images [N, …] themselves would give 1; new real images give what chance gives.
    """
    distance, index = nearest(images, train)
    apart, _ = nearest(train[index], train, but_itself=True)
    return (distance < apart).double().mean().item()


def entropy(histogram: Tensor) -> float:
    """−Σ p log p in nats of counts or probabilities [C]; log C where all classes come as often."""
    p = histogram.double() / histogram.sum()
    return torch.special.entr(p).sum().item()


def mutual_information(a: Tensor, b: Tensor) -> float:
    """I(a; b) = H(a) + H(b) − H(a, b) in nats, of two classes for each sample, int64 [N]; of counts, so biased up."""
    joint = torch.bincount(a * (int(b.max()) + 1) + b)
    return entropy(torch.bincount(a)) + entropy(torch.bincount(b)) - entropy(joint)
