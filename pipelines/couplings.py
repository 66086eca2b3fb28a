"""Who is paired with whom: row i of the source's batch goes with row i of the target's.

A coupling draws the global batch of one step, so the pairs do not depend on the number of processes; labels
travel with their samples.
"""

from collections.abc import Callable

from datasets import Batch, Sampler
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


COUPLINGS: dict[str, Callable[[Sampler, Sampler, int, int, int], Pairing]] = {
    "independent": independent,
    "given": given,
}
