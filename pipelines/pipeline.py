"""A pipeline: a network, what it is trained for, and what can be done with the velocity that follows from it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Self

from flowferry.configs.locations import default_data_root
from flowferry.configs.schema import Config, OdeSolverName
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_source
from flowferry.datasets.rng import derive_seed, normal_rows
from flowferry.models import sees_source
from flowferry.models.classifier import Classifier
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.guidance import guide
from flowferry.pipelines.flow.losses import LOSSES
from flowferry.pipelines.flow.objectives import OBJECTIVES
from flowferry.pipelines.flow.paths import PATHS
from flowferry.pipelines.flow.predictions import PREDICTIONS
from flowferry.pipelines.flow.solvers import SOLVERS, Step, Velocity, trajectory
from flowferry.pipelines.flow.times import time_grid
from flowferry.pipelines.pretrained import Pretrained

BLOCK, BLOCK_OF_IMAGES_ON_CPU = 256, 32  # samples that go through the network at a time


class Pipeline(Pretrained):
    """Carry samples from `config.source` (t = 0) to `config.target` (t = 1).

    model: a network `model(xt, t, condition)` that predicts `config.prediction`; label_classifier: infers labels where
    `config.infer_labels`. None makes a freshly initialized one. Raises UserError where objective, path, prediction and
    solver do not go together.
    """

    def __init__(
        self, config: Config, model: nn.Module | None = None, label_classifier: Classifier | None = None
    ) -> None:
        super().__init__(config, model, label_classifier)
        self.objective, self.path = OBJECTIVES[config.objective], PATHS[config.path]
        self.prediction, self.solver = PREDICTIONS[config.prediction], SOLVERS[config.solver.name]
        self._check()

    def loss(self, x0: Tensor, x1: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        """Return the training loss, a scalar: see `flow/objectives.py`.

        x0, x1: [B, *shape]; t: [B] in [0, 1]; condition: with the null label where the label is dropped.
        """
        network = partial(self.model, condition=condition)
        distance = LOSSES[self.config.train.loss]
        return self.objective.loss(network, self.path, self.prediction, distance, x0, x1, t)

    # --- running it ----------------------------------------------------------------------------------

    def using(
        self,
        *,
        solver: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        source_noise: float | None = None,
    ) -> Self:
        """Return this pipeline with another solver, number of steps, guidance w or noise on the source, unless None."""
        asked = {"name": solver, "num_steps": steps, "guidance": guidance, "source_noise": source_noise}
        changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        config = replace(self.config, solver=replace(self.config.solver, **changes))
        return type(self)(config, self.model, self.label_classifier)

    def sample(
        self,
        count: int,
        labels: Tensor | None = None,
        *,
        guidance: float | None = None,
        steps: int | None = None,
        solver: str | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        data_root: Path | str | None = None,
    ) -> Tensor:
        """Return `count` new target samples [count, *shape], images in [-1, 1], from source samples that `seed` draws.

        labels: int64 [count], for class-conditioned pipelines; None as for `translate`. guidance, steps, solver: as in
        `using`. data_root: where a source of images is read from, its test split; None: $FLOWFERRY_DATA or data/.
        """
        root = Path(data_root or default_data_root())
        source = build_source(self.config, data_root=root, split="test", device=self.device)
        x0 = source.draw(count, seed=derive_seed(seed, "source"), step=0).samples
        asked: Any = {"solver": solver, "steps": steps, "guidance": guidance}
        return self.translate(x0, labels, **asked, batch_size=batch_size, seed=seed)

    def translate(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        guidance: float | None = None,
        steps: int | None = None,
        solver: str | None = None,
        batch_size: int | None = None,
        reverse: bool = False,
        seed: int = 0,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Carry source samples [B, *shape], images in [-1, 1], to the target by integrating dx/dt = v from t = 0 to 1.

        labels: target classes, int64 [B]; None asks for none, or for those that the label classifier infers. guidance,
        steps, solver: as in `using`. batch_size: samples at a time; None: `block_size`. reverse: see `invert`.
        seed, rows: of the noise on the source and of the ancestral solver, which for sample i is a function of
        (seed, rows[i]); None numbers the samples.
        Returns samples on the pipeline's device, images but not noise clipped to [-1, 1]. Raises UserError for samples
        of another shape and for labels that are not classes of this pipeline.
        """
        shape = self.config.shape
        if tuple(images.shape[1:]) != shape:
            raise UserError(f"samples: got shape {tuple(images.shape)}, expected (B, {', '.join(map(str, shape))})")
        batch_size = self.block_size if batch_size is None else batch_size
        if batch_size < 1:
            raise UserError(f"batch_size: got {batch_size}, expected a number ≥ 1")
        if labels is not None:
            labels = self.check_labels(labels, len(images))
        pipeline = self.using(solver=solver, steps=steps, guidance=guidance)
        parts = [images.to(self.device)[:0]]
        rows = range(len(images)) if rows is None else rows
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            asked = None if labels is None else labels[part]
            for x in pipeline.trajectory(images[part], asked, reverse=reverse, seed=seed, rows=rows[part]):
                end = x
            parts.append(end)
        result = torch.cat(parts)
        ends_in_noise = reverse and self.config.source.is_noise
        return result.clamp(-1, 1) if self.config.is_image and not ends_in_noise else result

    def invert(self, samples: Tensor, labels: Tensor | None = None, **options: Any) -> Tensor:
        """Carry target samples back to the source: the same ODE from t = 1 to 0.

        Options as for `translate`; labels are never inferred, because the source is not known.
        """
        return self.translate(samples, labels, reverse=True, **options)

    def trajectory(
        self,
        x: Tensor,
        labels: Tensor | None = None,
        *,
        reverse: bool = False,
        seed: int = 0,
        rows: Sequence[int] | None = None,
        edit_velocity: Callable[[Velocity], Velocity] | None = None,
        edit_step: Callable[[Step], Step] | None = None,
    ) -> Iterator[Tensor]:
        """Yield x at every time of the grid: num_steps + 1 tensors [B, *shape], none clipped.

        The first is x itself, with noise where the solver has `source_noise`. seed, rows: as for `translate`.
        edit_velocity, edit_step: functions that take the velocity or the step and return the one to use instead. Puts
        the network in evaluation mode. Raises UserError as `translate` does, and in a direction that is not known.
        """
        self.check_direction(reverse=reverse)
        solver, x = self.config.solver, x.to(self.device)
        grid = time_grid(solver.num_steps, power=solver.grid_power, device=self.device, reverse=reverse)
        self.model.eval()
        if labels is None and not reverse:
            labels = self.inferred_labels(x)
        guidance = 1.0 if labels is None else solver.guidance  # without a class there is nothing to guide towards
        image = x if self.sees_source else None
        condition = Condition(self.check_labels(labels, len(x)), image, self.config.num_classes)
        # no_grad around each evaluation, not around the loop: a generator would leave it on for its caller.
        velocity: Velocity = torch.no_grad()(guide(self._velocity, condition, guidance))
        velocity = velocity if edit_velocity is None else edit_velocity(velocity)
        noise = normal_rows(seed, rows := range(len(x)) if rows is None else rows)
        if solver.source_noise and not reverse:
            x = x + solver.source_noise * normal_rows(derive_seed(seed, "source noise"), rows)(x)
        step = self.objective.step(velocity, lambda v: self.solver.make_step(v, self.path, noise))
        return trajectory(step if edit_step is None else edit_step(step), x, grid)

    def _velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        t = t.clamp(max=self.max_time).expand(len(x))  # x stays at t; the network is not asked beyond its last time
        return self.prediction.velocity(self.path, self.model(x, t, condition), x, t)

    # --- what it can do ------------------------------------------------------------------------------

    @property
    def max_time(self) -> float:
        """The last time at which the network is asked: trained there, and the velocity can be computed."""
        return min(self.path.max_time, self.prediction.max_time, self.objective.max_time)

    @property
    def sees_source(self) -> bool:
        """Whether the network is shown the source sample beside x_t."""
        return sees_source(self.config)

    @property
    def block_size(self) -> int:
        """Samples that go through the network at a time where no number is given (docs/PERFORMANCE.md)."""
        return BLOCK_OF_IMAGES_ON_CPU if self.device.type == "cpu" and self.config.is_image else BLOCK

    @property
    def nfe(self) -> int:
        """Forward evaluations per sample of one translation, to an asked class where there are any."""
        solver = self.config.solver
        forwards = 2 if self.config.num_classes and solver.guidance not in (0, 1) else 1
        return forwards * (self.objective.nfe or self.solver.nfe) * solver.num_steps

    @property
    def is_invertible(self) -> bool:
        """Whether its ODE can be run backwards."""
        return not (self.config.solver.adds_noise or self.sees_source or self.objective.max_steps == 1)

    def check_direction(self, *, reverse: bool) -> None:
        """Raise UserError where the pipeline can be run in one direction only."""
        if reverse and self.config.solver.adds_noise:
            name, odes = self.config.solver.name, ", ".join(get_args(OdeSolverName))
            raise UserError(f"solver {name} runs from source to target only: expected in reverse {odes}")
        if reverse and not self.is_invertible:
            why = f"its network {self.config.model.kind} sees the source" if self.sees_source else "it takes one step"
            raise UserError(f"{self.config.name} runs from source to target only, because {why}")

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
        if self.prediction.needs_signal and not self.path.has_signal:
            able = ", ".join(name for name, path in PATHS.items() if path.has_signal)
            raise UserError(f"prediction {config.prediction}: got the path {config.path}, expected {able}")
