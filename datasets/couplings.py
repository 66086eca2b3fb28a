"""Couplings: which source sample is paired with which target sample.

A coupling draws `count` samples of each side and returns them so that row i of one batch belongs to row i of the other,
labels with their samples. It is given a whole pool, the global batch of one step or of several, so the pairs do not
depend on the number of processes. They are a function of (seed, step).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.base import Batch, Labeled, Sampler
from flowferry.datasets.content import content
from flowferry.datasets.registration import registered
from flowferry.datasets.rng import derive_seed
from flowferry.datasets.wrappers import Augmented

Pairing = tuple[Batch, Batch]
"""(x0, x1): source and target samples, paired row by row."""


def independent(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Draw x0 and x1 independently of each other."""
    return (
        source.draw(count, seed=derive_seed(seed, "source"), step=step),
        target.draw(count, seed=derive_seed(seed, "target"), step=step),
    )


def given(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Draw each sample with its own partner: item i of the source belongs to item i of the target."""
    same = derive_seed(seed, "target")
    return source.draw(count, seed=same, step=step), target.draw(count, seed=same, step=step)


def by_label(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Draw x0, and as x1 a random target sample with x0's label: garment class k with digit k.

    Raises UserError where the two do not have the same classes, or where the target has no samples of a label.
    """
    if not source.num_classes or source.num_classes != target.num_classes or not isinstance(target, Labeled):
        raise UserError(
            f"coupling label: got {source.num_classes} classes in the source and {target.num_classes} in the target, "
            "expected labeled images with as many classes in both"
        )
    x0 = source.draw(count, seed=derive_seed(seed, "source"), step=step)
    assert x0.labels is not None, "a sampler with classes draws labels"
    return x0, target.sample_by_label(x0.labels, seed=derive_seed(seed, "target"), step=step)


def transport(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Draw both independently, then pair them by minibatch optimal transport: with the least total ‖x1 − x0‖².

    Source: Pooladian et al. 2023, Tong et al. 2023. Labels are ignored, so those of the target come to depend on the
    source sample. A network that is conditioned on them would rely on this in training, and it does not hold in
    sampling: use `label_transport` with classes.
    """
    x0, x1 = independent(source, target, count, seed, step)
    return x0, x1.at(best_permutation(x0.samples, x1.samples))


def content_transport(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Draw both independently, pair them by the optimal transport of what they show, and keep the surer half, twice.

    What images show is `content.content`; labels are ignored, as by `transport`. The more there are to choose from, the
    more likely the pool holds a true partner. What x1 shows is moved to where x0 shows it, so that the network learns
    the look and not a blur of all places where partners may have it. Images are augmented when they have their
    partners, both alike. Raises UserError for samples that are no images.
    """
    if len(source.shape) != 3:
        raise UserError(f"coupling content-ot: got samples of shape {source.shape}, expected images")
    a, b = (side.plain if isinstance(side, Augmented) else side for side in (source, target))
    x0, x1 = independent(a, b, count, seed, step)
    shown = content(x0.samples), content(x1.samples)
    partner = best_permutation(*shown)
    surest = ambiguity(torch.cdist(*shown), partner, *map(copies, shown)).argsort()[: -(-count // 2)]
    x0, x1 = x0.at(surest), x1.at(partner[surest])
    x1 = x1._replace(samples=registered(x1.samples, x0.samples))
    twice = torch.arange(len(surest), device=surest.device).repeat(2)[:count]
    x0, x1 = (
        side.change(batch.at(twice), seed=seed, step=step) if isinstance(side, Augmented) else batch.at(twice)
        for side, batch in ((source, x0), (target, x1))
    )
    return x0, x1


def ambiguity(cost: Tensor, partner: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Return for each row i of `cost` [N, N] the cost of its partner ÷ that of the next best of either of the two, [N].

    It is below 1 where each is the other's best, and small where nothing else comes near (the ratio test of Lowe 2004,
    7.1, in both directions); 0 where there is nothing else.

    sources, targets: which image the rows and the columns are, [N] each. A pool that is larger than a folder has each
    of its images several times, and a copy of an image's own partner, which costs the same, is no rival.
    """
    own = cost[torch.arange(len(cost), device=cost.device), partner]
    of_source = cost.masked_fill(targets == targets[partner, None], torch.inf).amin(dim=1)
    of_target = cost.T[partner].masked_fill(sources == sources[:, None], torch.inf).amin(dim=1)
    return own / torch.minimum(of_source, of_target)


def copies(features: Tensor) -> Tensor:
    """Return a number for each row of `features` [N, D], int64 [N]: the same for rows that are equal."""
    return features.unique(dim=0, return_inverse=True)[1]


def label_transport(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Pair by optimal transport within each class of the target, which keeps x0 independent of the class.

    Where the source has the same classes, pairs agree in their labels, as in `by_label`. Raises UserError for a target
    without labels.
    """
    if not target.num_classes:
        raise UserError("coupling label-ot: got a target without labels, expected one with labels, or the coupling ot")
    pairing = by_label if source.num_classes == target.num_classes and isinstance(target, Labeled) else independent
    x0, x1 = pairing(source, target, count, seed, step)
    assert x1.labels is not None, "a sampler with classes draws labels"
    chosen = torch.arange(count, device=x1.labels.device)
    for label in x1.labels.unique():
        rows = (x1.labels == label).nonzero()[:, 0]
        chosen[rows] = rows[best_permutation(x0.samples[rows], x1.samples[rows])]
    return x0, x1.at(chosen)


def best_permutation(x0: Tensor, x1: Tensor) -> Tensor:
    """Return the permutation π, int64 [B], that minimizes Σ ‖x1_π(i) − x0_i‖² exactly, for x0 and x1 [B, …].

    It maximizes Σ x0_i·x1_π(i), because the sum of the squares is the same for every permutation.
    """
    from scipy.optimize import linear_sum_assignment  # most commands need no transport

    products = x0.flatten(1).double() @ x1.flatten(1).double().T
    return torch.as_tensor(linear_sum_assignment(products.cpu().numpy(), maximize=True)[1], device=x1.device)


COUPLINGS: dict[str, Callable[[Sampler, Sampler, int, int, int], Pairing]] = {
    "independent": independent,
    "given": given,
    "label": by_label,
    "ot": transport,
    "content-ot": content_transport,
    "label-ot": label_transport,
    "teacher": given,  # between the two sides of the pairs that the teacher made
}

MATCHES_LABELS = ("given", "label", "label-ot")
"""The couplings whose pairs have equal labels, where source and target have the same classes."""
