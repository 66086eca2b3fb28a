"""How much noise an ancestral step adds: between the two variances that suit DDPM, or what a network has learned."""

from collections.abc import Callable

from torch import Tensor

Variance = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""variance(x, t, larger, smaller) with x [B, …] at time t -> the variance of the noise to add, a scalar or [B, …].

The larger is right for images of unit Gaussian noise and the smaller for a single image (Ho et al. 2020, section 3.2).
"""


def large(x: Tensor, t: Tensor, larger: Tensor, smaller: Tensor) -> Tensor:
    """Return the larger variance."""
    return larger


def small(x: Tensor, t: Tensor, larger: Tensor, smaller: Tensor) -> Tensor:
    """Return the smaller variance."""
    return smaller


VARIANCES: dict[str, Variance] = {"large": large, "small": small}


def learned(share: Callable[[Tensor, Tensor], Tensor]) -> Variance:
    """Return the variance whose logarithm lies at share(x, t) between those of the smaller, 0, and the larger, 1.

    The share, [B, …], is what a network answers beside its prediction (Nichol & Dhariwal 2021, eq. 15).
    """

    def variance(x: Tensor, t: Tensor, larger: Tensor, smaller: Tensor) -> Tensor:
        at = share(x, t)
        return (at * larger.log() + (1 - at) * smaller.log()).exp()

    return variance


# --- a network that answers its share in further channels, beside its prediction ----------------------------


def own_channels(answer: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return those channels of answer(x, t), [B, C + …], that x has: the velocity [B, C, …]."""
    return lambda x, t: answer(x, t)[:, : x.shape[1]]


def further_channels(answer: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the channels of answer(x, t) beyond those of x."""
    return lambda x, t: answer(x, t)[:, x.shape[1] :]


def remembered(answer: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return `answer`, which is not computed again for the same two tensors as in the call before."""
    last: tuple[Tensor, Tensor, Tensor] | None = None

    def remembering(x: Tensor, t: Tensor) -> Tensor:
        nonlocal last
        if last is None or last[0] is not x or last[1] is not t:
            last = x, t, answer(x, t)
        return last[2]

    return remembering
