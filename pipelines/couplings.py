"""Who is paired with whom: row i of the source's batch goes with row i of the target's.

A coupling draws and pairs a whole pool: the global batch of one step, or of several. So the pairs do not depend on
the number of processes. Labels travel with their samples.
"""

from collections.abc import Callable

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from configs.checks import UserError
from datasets import Batch, Labelled, Sampler
from datasets.keyed import key

Pairing = tuple[Batch, Batch]


def independent(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """x0 and x1 are independent."""
    return (
        source.draw(count, seed=key(seed, "source"), step=step),
        target.draw(count, seed=key(seed, "target"), step=step),
    )


def given(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Each sample comes with its own partner: item i of the one data set belongs to item i of the other."""
    same = key(seed, "target")
    return source.draw(count, seed=same, step=step), target.draw(count, seed=same, step=step)


def by_label(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """x1 is any target sample with x0's label: garment class k with digit k."""
    if not source.classes or source.classes != target.classes or not isinstance(target, Labelled):
        raise UserError(
            f"coupling label: found {source.classes} classes in the source and {target.classes} in the target, "
            "accepted are labelled images of as many classes"
        )
    x0 = source.draw(count, seed=key(seed, "source"), step=step)
    assert x0.labels is not None, "it has classes"
    return x0, target.of_labels(x0.labels, seed=key(seed, "target"), step=step)


def transport(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Minibatch optimal transport (Pooladian et al. 2023; Tong et al. 2023): the permutation of least total ‖x1 − x0‖².

    It knows no labels: those of the target are no longer independent of the source, which a network that is told
    them would exploit in training and miss in sampling. With classes take `label_transport`.
    """
    x0, x1 = independent(source, target, count, seed, step)
    return x0, x1.at(best_permutation(x0.samples, x1.samples))


def label_transport(source: Sampler, target: Sampler, count: int, seed: int, step: int) -> Pairing:
    """Optimal transport within each class of the target, so that a class says as little of x0 as without transport.

    Where the source is labelled too, pairs agree in their labels, as in `by_label`.
    """
    if not target.classes:
        raise UserError("coupling label-ot: found a target without labels, accepted is one with them, or coupling ot")
    pairing = by_label if source.classes == target.classes and isinstance(target, Labelled) else independent
    x0, x1 = pairing(source, target, count, seed, step)
    assert x1.labels is not None, "it has classes"
    chosen = torch.arange(count, device=x1.labels.device)
    for label in x1.labels.unique():
        rows = (x1.labels == label).nonzero()[:, 0]
        chosen[rows] = rows[best_permutation(x0.samples[rows], x1.samples[rows])]
    return x0, x1.at(chosen)


def best_permutation(x0: Tensor, x1: Tensor) -> Tensor:
    """π that minimises Σ ‖x1_π(i) − x0_i‖², exactly; x0 and x1 [B, …] -> int64 [B].

    That is to maximise Σ x0_i·x1_π(i), because the sum of all squares is the same for each permutation.
    """
    products = x0.flatten(1).double() @ x1.flatten(1).double().T
    return torch.as_tensor(linear_sum_assignment(products.cpu().numpy(), maximize=True)[1], device=x1.device)


COUPLINGS: dict[str, Callable[[Sampler, Sampler, int, int, int], Pairing]] = {
    "independent": independent,
    "given": given,
    "label": by_label,
    "ot": transport,
    "label-ot": label_transport,
}
