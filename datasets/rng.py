"""Randomness that is keyed, not consumed: each draw has a name, and the same name draws the same numbers.

So a resumed run needs no replay, and one process and N processes see the same global batch.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from hashlib import blake2b

import torch
from torch import Tensor


def derive_seed(*name: int | str) -> int:
    """Return a 63-bit seed for the draw called `name`, e.g. `derive_seed(seed, "noise", step)`."""
    digest = blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(device: torch.device | str, *name: int | str) -> torch.Generator:
    """Return a generator at the start of the draw called `name`. A CPU's and a GPU's give different numbers."""
    return torch.Generator(device).manual_seed(derive_seed(*name))


@lru_cache(maxsize=4)  # source and target, each at most in two epochs at once
def permutation(size: int, device: torch.device, *name: int | str) -> Tensor:
    """Return the order of `size` items in the epoch called `name`: int64 [size] on `device`, drawn on the CPU."""
    return torch.randperm(size, generator=generator("cpu", *name)).to(device)


def content_rows(samples: Tensor) -> list[int]:
    """Return the number of a stream of noise for each of B samples [B, …], a function of its values alone."""
    return [derive_seed(blake2b(one.numpy().tobytes(), digest_size=16).hexdigest()) for one in samples.cpu()]


def normal_rows(seed: int, rows: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Return noise(x): standard normal values in the shape of x [len(rows), …], new ones at each call.

    Each row has a stream of its own, so that its noise does not depend on its neighbors, nor on the device.
    """

    @cache  # made where noise is drawn, which many solvers never do
    def streams() -> list[torch.Generator]:
        return [generator("cpu", seed, "row", row) for row in rows]

    def noise(x: Tensor) -> Tensor:
        drawn = [torch.randn(x.shape[1:], generator=stream, dtype=x.dtype) for stream in streams()]
        return torch.stack(drawn).to(x.device)

    return noise
