"""Randomness that is keyed, not consumed: each draw has a name, and the same name draws the same numbers.

So a resumed run needs no replay, and one process and N processes see the same global batch.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor


def key(*name: int | str) -> int:
    """A 63-bit seed for the draw called `name`, e.g. `key(seed, "noise", step)`."""
    digest = blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(device: torch.device | str, *name: int | str) -> torch.Generator:
    """A generator at the start of the draw called `name`. The CPU's and a GPU's give different numbers."""
    return torch.Generator(device).manual_seed(key(*name))


@lru_cache(maxsize=4)  # source and target, each at most in two epochs at once
def permutation(size: int, device: torch.device, *name: int | str) -> Tensor:
    """The order of `size` items in the epoch called `name`: int64 [size] on `device`, drawn on the CPU."""
    return torch.randperm(size, generator=generator("cpu", *name)).to(device)


def normal_rows(seed: int, rows: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """noise(x): standard normal values in the shape of x [len(rows), …], new ones at each call.

    Each row has a stream of its own, so what a row gets does not depend on its neighbours, nor on the device.
    """
    streams = [generator("cpu", seed, "row", row) for row in rows]

    def noise(x: Tensor) -> Tensor:
        drawn = [torch.randn(x.shape[1:], generator=stream, dtype=x.dtype) for stream in streams]
        return torch.stack(drawn).to(x.device)

    return noise
