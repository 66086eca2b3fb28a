"""The contract of every network: `model(xt, t, condition) -> prediction`."""

from typing import ClassVar

from torch import Tensor, nn

from flowferry.configs.validation import UserError
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.paths import Path


class Network(nn.Module):
    """Base class of all networks, with their capabilities; a subclass sets those that differ from the defaults.

    A subclass is constructed as `Subclass(config, shape=(C, H, W) or (n,), num_classes=K)` and raises UserError for a
    shape or options that do not fit.
    """

    takes_classes: ClassVar[bool] = False
    """Whether it reads `condition.label`."""
    sees_source: ClassVar[bool] = False
    """Whether it reads `condition.image`, the source sample. Where its configuration has an option of this name, that
    decides."""
    stride: int | None = None
    """It takes images of any height and width that are multiples of this; None: only of the shape it was made for."""
    trained_path: Path | None = None
    """The path that it was trained on, where that is not its pipeline's `path`."""
    learns_variance: bool = False
    """Whether it answers, in as many channels after its prediction, where from 0 to 1 the logarithm of the variance of
    an ancestral step lies between its two bounds."""
    block_size: ClassVar[int | None] = None
    """Samples that go through it at a time where no number is given; None: as for any network."""
    trains_contiguous: ClassVar[bool] = False
    """Whether contiguous kernels are faster on a CPU than channels last, to train it and to run it in bf16."""

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return the prediction, in the shape of xt [B, C, H, W] or [B, n], for t [B] in [0, 1]."""
        raise NotImplementedError


def image_channels(kind: str, shape: tuple[int, ...], *, multiple: int = 1, side: int | None = None) -> int:
    """Return C of `shape` (C, H, W), for a network that needs H = W = `side`, or else multiples of `multiple`.

    Raises UserError for any other shape.
    """
    fits = len(shape) == 3 and all(length == side if side else length % multiple == 0 for length in shape[1:])
    if not fits:
        expected = f"(C, {side}, {side})" if side else "(C, H, W)"
        expected += f" with H and W multiples of {multiple}" if multiple > 1 else ""
        raise UserError(f"{kind}: got samples of shape {shape}, expected {expected}")
    return shape[0]
