"""What a pipeline can do, as its network, objective, path, prediction and solver say: in which directions, for whom."""

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from flowferry.configs.recipe import OdeSolverName, SolverConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.models import sees_source
from flowferry.models.classifier import Classifier
from flowferry.pipelines.flow.limits import Limit, clipped, dynamic
from flowferry.pipelines.flow.objectives import OBJECTIVES
from flowferry.pipelines.flow.paths import PATHS, Path
from flowferry.pipelines.flow.predictions import PREDICTIONS
from flowferry.pipelines.flow.solvers import SOLVERS
from flowferry.pipelines.flow.times import list_length, rest_of, strided_grid, time_grid
from flowferry.pipelines.flow.variances import VARIANCES
from flowferry.pipelines.pretrained import Pretrained

BLOCK, BLOCK_OF_IMAGES_ON_CPU = 256, 32  # samples that go through the network at a time
LARGE = 64 * 64  # pixels: of larger images a block holds fewer, so that it takes no more memory
TILE, OVERLAP = 512, 64  # pixels


class Capable(Pretrained):
    """A pretrained pipeline with the mathematics that its configuration names, and what follows from them.

    Raises UserError where objective, path, prediction and solver do not go together.
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module | None = None,
        label_classifier: Classifier | None = None,
        weaker: nn.Module | None = None,
    ) -> None:
        super().__init__(config, model, label_classifier, weaker)
        own_path: Path | None = getattr(self.model, "trained_path", None)
        self.objective, self.path = OBJECTIVES[config.objective], own_path or PATHS[config.path]
        self.prediction, self.solver = PREDICTIONS[config.prediction], SOLVERS[config.solver.name]
        self.limit = limit_of(config.solver) if self.solver.has_ends else None
        self._check()

    @property
    def max_time(self) -> float:
        """The last time at which the network is asked: trained there, and the velocity can be computed."""
        of_prediction = 1.0 if self.path.levels else self.prediction.max_time  # its last level is before t = 1
        return min(self.path.max_time, of_prediction, self.objective.max_time)

    @property
    def sees_source(self) -> bool:
        """Whether the network is shown the source sample beside x_t."""
        return sees_source(self.config)

    @property
    def stride(self) -> int | None:
        """What height and width are padded to multiples of, where the network takes images of any size; else None."""
        return getattr(self.model, "stride", None)

    @property
    def block_size(self) -> int:
        """Samples that go through the network at a time where no number is given (docs/PERFORMANCE.md)."""
        if own := getattr(self.model, "block_size", None):
            return int(own)
        if not self.config.is_image:
            return BLOCK
        most = BLOCK_OF_IMAGES_ON_CPU if self.device.type == "cpu" else BLOCK
        return max(1, most * LARGE // max(LARGE, math.prod(self.config.shape[1:])))

    def block_of(self, shape: Sequence[int]) -> int:
        """Return how many samples of a `shape` (B, …) go through it at a time: one by one of another size than its."""
        return self.block_size if tuple(shape[1:]) == self.config.shape else 1

    @property
    def nfe(self) -> int:
        """Forward evaluations per sample of one translation, to an asked class where there are any."""
        return self.forwards(asked=self.config.num_classes > 0) * self.evaluations()

    def forwards(self, *, asked: bool) -> int:
        """Return the forward evaluations that one of the velocity takes; asked: whether a class is asked for."""
        w = self.class_guidance(asked=asked) if self.weaker is None else self.config.solver.guidance
        return 1 if w in (0, 1) else 2

    def class_guidance(self, *, asked: bool) -> float:
        """Return the weight w of guidance towards a class: 1, none, where it leads away from a weaker network."""
        return self.config.solver.guidance if asked and self.weaker is None else 1.0

    def evaluations(self, start: float = 0.0, repeats: int = 1) -> int:
        """Return evaluations of the velocity from `start` on, where each step but the last is taken `repeats` times."""
        steps, own = len(self.grid(start)) - 1, self.objective.nfe  # its own of one step, whatever the solver
        if own is not None or not steps:
            return (own or 0) * steps
        return (self.solver.nfe(steps) - self.solver.last_step) * repeats + self.solver.last_step

    def grid(self, start: float = 0.0, *, reverse: bool = False) -> Tensor:
        """Return the times [steps + 1] of a trajectory, on the CPU: from `start` on to 1; in reverse from 1 to 0."""
        solver = self.config.solver
        if solver.stride is None:
            grid = time_grid(solver.num_steps, power=solver.grid_power, reverse=reverse)
        else:
            grid = strided_grid(solver.num_steps, solver.stride, levels=self.path.levels)
            grid = grid.flip(0) if reverse else grid
        return grid if reverse else rest_of(grid, start)

    @property
    def sampling(self) -> str:
        """Its solver, steps, NFE, noise on the source and guidance weight, in a few words."""
        return self.sampling_at(self.nfe)

    def sampling_at(self, nfe: int) -> str:
        """Return the same of what takes another number of evaluations."""
        solver, steps = self.config.solver, self.config.solver.num_steps
        told = f"{solver.name}, {steps} step{'s' if steps > 1 else ''}"
        told += f" of stride {solver.stride}" if solver.stride else ""
        told += f", NFE {nfe}"
        told += f", noise of {solver.source_noise:g}" if solver.source_noise else ""
        return told + (f", w = {solver.guidance:g}" if self.config.num_classes or self.weaker else "")

    @property
    def is_invertible(self) -> bool:
        """Whether its ODE can be run backwards; a student in one step learned the way there alone."""
        config = self.config
        is_one_step = self.objective.max_steps == 1 or (config.has_teacher and config.solver.num_steps == 1)
        return config.solver.is_reversible and not (self.sees_source or is_one_step)

    def check_direction(self, *, reverse: bool) -> None:
        """Raise UserError where the pipeline can be run in one direction only."""
        if reverse and not self.config.solver.is_reversible:
            name, odes = self.config.solver.name, ", ".join(get_args(OdeSolverName))
            raise UserError(f"solver {name} runs from source to target only: expected in reverse {odes}")
        if reverse and not self.is_invertible:
            why = f"its network {self.config.model.kind} sees the source" if self.sees_source else "it takes one step"
            raise UserError(f"{self.config.name} runs from source to target only, because {why}")

    def check_start(self, start: float, *, reverse: bool = False) -> None:
        """Raise UserError for a time that is none, or that a trajectory cannot start at."""
        if not 0 <= start <= 1:
            raise UserError(f"start: got {start:g}, expected a time from 0 to 1")
        if start and (self.objective.max_steps == 1 or self.sees_source or reverse):
            why = "in reverse" if reverse else f"for {self.config.name}, whose network "
            why += "" if reverse else "sees the source" if self.sees_source else "was trained at 0 alone"
            raise UserError(f"start: got {start:g} {why}, expected 0")

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raise UserError for samples of a `shape` (B, …) that the network does not take."""
        own = self.config.shape
        any_size = self.stride is not None and len(shape) == 4 and shape[1] == own[0] and min(shape[2:]) > 0
        if tuple(shape[1:]) != own and not any_size:
            sides = ("H", "W") if self.stride else own[1:]
            raise UserError(f"samples: got shape {tuple(shape)}, expected (B, {', '.join(map(str, (own[0], *sides)))})")

    def tiles(self, tile: int | None = None, overlap: int | None = None) -> tuple[int, int]:
        """Return the side and the overlap of the tiles that larger images go through the network in, in pixels.

        tile: None takes TILE, or the pipeline's longer side if that is more; overlap: None takes OVERLAP, or a quarter
        of the tile if that is less. Raises UserError unless both are multiples of the stride and 0 ≤ overlap < tile.
        """
        stride = self.stride or 1
        tile = max((TILE, *self.config.shape[1:])) if tile is None else tile
        overlap = min(OVERLAP, tile // 4 // stride * stride) if overlap is None else overlap
        if not 0 <= overlap < tile:
            raise UserError(f"overlap: got {overlap} pixels of tiles of {tile}, expected 0 ≤ overlap < tile")
        for name, side in (("tile", tile), ("overlap", overlap)):
            if side % stride:
                raise UserError(f"{name}: got {side} pixels, expected a multiple of {stride}")
        return tile, overlap

    def check_labels(self, labels: Tensor | None, count: int) -> Tensor | None:
        """Return labels as int64 [count] on the device, all null for None; None for a pipeline without classes.

        Raises UserError for labels that are not `count` whole numbers in [0, num_classes].
        """
        null = self.config.num_classes
        if labels is None:
            return torch.full((count,), null, device=self.device) if null else None
        if not null:
            raise UserError(f"{self.config.name} has no classes: got labels, expected None")
        labels = torch.as_tensor(labels)
        expected = f"expected {count} whole numbers from 0 to {null - 1}, or {null} for no class"
        if labels.shape != (count,) or labels.is_floating_point():
            raise UserError(f"labels: got {labels.dtype} of shape {tuple(labels.shape)}, {expected}")
        if wrong := [label for label in labels.tolist() if label < 0 or label > null]:
            raise UserError(f"labels: got {wrong[0]}, {expected}")
        return labels.to(self.device, torch.long)

    def _check(self) -> None:
        """Raise UserError for what the configuration alone cannot know of objective, path and prediction."""
        config, most = self.config, self.objective.max_steps or self.path.levels
        where = f"objective {config.objective}" if self.objective.max_steps else f"path {config.path}"
        if most and config.solver.num_steps > most:
            raise UserError(f"solver steps: got {config.solver.num_steps}, expected at most {most} for the {where}")
        self._check_stride()
        self._check_variance()
        if self.prediction.needs_signal and not self.path.has_signal:
            able = ", ".join(name for name, path in PATHS.items() if path.has_signal)
            raise UserError(f"prediction {config.prediction}: got the path {config.path}, expected {able}")
        self._check_two_times()

    def _check_variance(self) -> None:
        """Raise UserError where a variance is asked for that the network has not learned."""
        if self.config.solver.variance == "learned" and not getattr(self.model, "learns_variance", False):
            got = f"learned of the network {self.config.model.kind}, which answers none"
            raise UserError(f"solver variance: got {got}, expected {' or '.join(VARIANCES)}")

    def _check_stride(self) -> None:
        """Raise UserError for a strided list of levels that is not the whole list, down from the noise."""
        solver, levels = self.config.solver, self.path.levels
        if solver.stride is None or levels is None:
            return
        if solver.num_steps != (whole := list_length(levels, solver.stride)):
            got = f"{solver.num_steps} of stride {solver.stride}"
            raise UserError(f"solver steps: got {got}, expected {whole} for the {levels} levels of {self.config.path}")

    def _check_two_times(self) -> None:
        """Raise UserError unless objective, network, prediction, path and solver all know two times, or none does."""
        config, by_two = self.config, self.objective.two_times
        if getattr(config.model, "two_times", False) != by_two:
            got = "a network of one time" if by_two else "model.two-times"
            expected = "--model patch-unet --model.two-times" if by_two else "the objective map"
            raise UserError(f"objective {config.objective}: got {got}, expected {expected}")
        if by_two and (config.prediction != "velocity" or self.path.levels):
            got = f"the prediction {config.prediction} on the path {config.path}"
            raise UserError(f"objective {config.objective}: got {got}, expected velocity on linear or cosine")
        if self.solver.two_times and not by_two:
            raise UserError(f"solver {config.solver.name}: got the objective {config.objective}, expected map")


def limit_of(solver: SolverConfig) -> Limit | None:
    """Return how the image that the velocity implies is kept within bounds at each step; None: it is not."""
    if solver.threshold is not None:
        return dynamic(solver.threshold, solver.clip or math.inf)
    return None if solver.clip is None else clipped(solver.clip)
