"""Who is paired with whom: (source batch, target batch) -> the same batches, row i paired with row i.

A coupling sees the global batch, so the pairs do not depend on the number of processes; labels travel
with their samples.
"""

from collections.abc import Callable

from datasets.sampler import Batch


def independent(source: Batch, target: Batch) -> tuple[Batch, Batch]:
    """Pairs as drawn: x0 and x1 are independent."""
    return source, target


COUPLINGS: dict[str, Callable[[Batch, Batch], tuple[Batch, Batch]]] = {"independent": independent}
