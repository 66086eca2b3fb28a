"""Edits of image files: the rows of what each one needs, and the transform that runs them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from flowferry.pipelines import editing
from flowferry.pipelines.translation.transforms import Transform, noise_rows

EVERYWHERE = torch.ones(1, 1, dtype=torch.bool)
Labels = list[Tensor | None]
"""The classes of B images, int64 [B], for each condition; None for no class."""


@dataclass(frozen=True, kw_only=True)
class Edit(Transform):
    """Edit images, each variant from a start of its own."""

    verb: ClassVar[str] = "edit"
    done: ClassVar[str] = "edited"
    name: str
    """A key of `EDITS`."""
    starts: tuple[float, ...] = (0.0,)
    """The times from which the variants go on; 0: the source."""
    classes: tuple[int | None, ...] = (None,)
    """What to ask for: a class for each condition; None: no class."""
    mask: Tensor = EVERYWHERE
    """Of inpaint: bool [H, W], or what expands to it, True where pixels are made anew."""
    resample: int = 1
    """Of inpaint: how often each step is taken."""
    views: tuple[str, ...] = ()
    """Of an anagram: keys of `flow.edits.VIEWS`, one for each condition."""
    sigma: float | None = None
    """Of a hybrid: as for `flow.edits.lowpass`."""

    def batch_of(self, variant: int) -> int:
        """Return the variant itself, whose states are at other times than those of the others."""
        return variant

    def name_of(self, variant: int) -> str:
        """Return where a variant starts."""
        return f"from t = {self.starts[variant - 1]:g}"

    def grid(self, variant: int = 1) -> Tensor:
        """Return the times of a variant's `trajectory`."""
        grid = self.pipeline.grid(self.starts[variant - 1])
        return grid[[0, -1]] if EDITS[self.name].in_one_step and len(grid) > 1 else grid

    @property
    def nfe(self) -> int:
        """Forward evaluations of the network for the variant that takes most."""
        forwards = sum(self.pipeline.forwards(asked=label is not None) for label in self.classes)
        start = min(self.starts)
        return forwards * (
            start < 1 if EDITS[self.name].in_one_step else self.pipeline.evaluations(start, self.resample)
        )

    @property
    def told(self) -> str:
        """What is done, in a few words."""
        asked = ", ".join(str(label) for label in self.classes if label is not None)
        return f"{self.name}{asked and f' ({asked})'}, {self.pipeline.sampling_at(self.nfe)}"

    def results(self, images: Tensor, variants: Sequence[int]) -> Tensor:
        """Return these variants, of one start, of the edited images [B, C, H, W] in [-1, 1]."""
        return editing.result_of(self.trajectory(images, variants))

    def trajectory(self, images: Tensor, variants: Sequence[int]) -> Iterator[Tensor]:
        """Yield images at every time of the grid, under the same noise from each start."""
        labels: Labels = [None if label is None else torch.full((len(images),), label) for label in self.classes]
        own: Any = {"seed": self.seed, "rows": noise_rows(images, [1] * len(images))}
        kind = EDITS[self.name]
        own |= {} if kind.start is None else {"start": self.starts[variants[0] - 1]}
        return kind.run(self, images, labels, own)


class Kind(NamedTuple):
    """A sort of edit."""

    run: Callable[[Edit, Tensor, Labels, dict[str, Any]], Iterator[Tensor]]
    """(edit, images [B, C, H, W], labels, the start, the seed and the rows of the noise) -> images on their way."""
    start: float | None = None
    """Where images go on from, unless asked otherwise; None: it starts from the source, at 0."""
    takes: tuple[str, ...] = ()
    """The options that only some edits take, besides."""
    in_one_step: bool = False
    """Whether one evaluation leads from the start to the result."""
    labels: tuple[int, ...] = (0, 1)
    """How many classes may be asked for; of an anagram more, one for each view."""


EDITS = {
    "sdedit": Kind(lambda edit, x, labels, own: editing.sdedit(edit.pipeline, x, *labels, **own), 0.5),
    "inpaint": Kind(
        lambda edit, x, labels, own: editing.inpaint(
            edit.pipeline, x, edit.mask, *labels, resample=edit.resample, **own
        ),
        0.0,
        takes=("mask", "resample"),
    ),
    "flowedit": Kind(
        lambda edit, x, labels, own: editing.flow_edit(edit.pipeline, x, *labels, **own), 0.2, labels=(1, 2)
    ),
    "denoise": Kind(
        lambda edit, x, labels, own: editing.denoise(edit.pipeline, x, *labels, **own), 0.5, in_one_step=True
    ),
    "anagram": Kind(
        lambda edit, x, labels, own: editing.anagram(edit.pipeline, x, labels, edit.views, **own), takes=("view",)
    ),
    "hybrid": Kind(
        lambda edit, x, labels, own: editing.hybrid(edit.pipeline, x, *labels, sigma=edit.sigma, **own),
        takes=("sigma",),
        labels=(2,),
    ),
}
