"""Conditions: what a network gets besides x_t and t, namely class labels and source images."""

from typing import NamedTuple

import torch
from torch import Tensor


class Condition(NamedTuple):
    """The third argument of `model(xt, t, condition)`, for a batch of B samples; a part that is None is left out."""

    label: Tensor | None = None
    """The class of each sample, int64 [B] in [0, num_classes]; num_classes is the null label, "no class"."""
    image: Tensor | None = None
    """The source sample of each result, [B, *shape], images in [-1, 1]; only for networks with `sees_source`."""
    num_classes: int = 0
    """The number of classes; 0: none."""

    def unconditional(self) -> "Condition":
        """Return the condition with all labels null and the same images: the unconditional side of guidance."""
        if self.label is None:
            return self
        return self._replace(label=torch.full_like(self.label, self.num_classes))

    def rows(self, rows: slice | Tensor) -> "Condition":
        """Return the condition of the samples in `rows`, such as the shard of one process."""
        return self._replace(
            label=None if self.label is None else self.label[rows],
            image=None if self.image is None else self.image[rows],
        )

    def window(self, rows: slice | Tensor, columns: slice | Tensor) -> "Condition":
        """Return the condition of a part of the samples [B, C, H, W]: the same classes, that part of the images."""
        return self if self.image is None else self._replace(image=self.image[..., rows, columns])

    def followed_by(self, other: "Condition") -> "Condition":
        """Concatenate two conditions, for one forward over both batches; `other` must have the same parts."""
        return self._replace(label=concatenate(self.label, other.label), image=concatenate(self.image, other.image))


NO_CONDITION = Condition()


def concatenate(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return two tensors [B, …] and [B', …] as one [B + B', …], or None if there are none."""
    return None if first is None and second is None else torch.cat([first, second])  # type: ignore[list-item]
