"""The contract of every source and target: what step s sees is a function of (seed, s) alone."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class Batch(NamedTuple):
    """Samples [B, *shape], images in [-1, 1]; their labels int64 [B], or None where there are none."""

    samples: Tensor
    labels: Tensor | None

    def at(self, rows: Tensor | slice) -> "Batch":
        """Return the chosen rows, labels with their samples."""
        return Batch(self.samples[rows], None if self.labels is None else self.labels[rows])


class Sampler(Protocol):
    """An endless stream of batches that can be entered at any step."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        ...

    @property
    def num_classes(self) -> int:
        """The number of labels; 0: unlabeled."""
        ...

    @property
    def size(self) -> int | None:
        """The number of samples in one epoch; None: endless."""
        ...

    def draw(self, count: int, *, seed: int, step: int) -> Batch:
        """Return batch number `step`, of `count` samples, of the stream that `seed` names."""
        ...


@runtime_checkable
class Labeled(Sampler, Protocol):
    """A sampler that can be asked for given labels."""

    def sample_by_label(self, labels: Tensor, *, seed: int, step: int) -> Batch:
        """Return a random sample of each of the labels int64 [B], as batch number `step` of the stream of `seed`.

        A label's samples are all different, as far as there are enough. Raises UserError for a label without samples.
        """
        ...
