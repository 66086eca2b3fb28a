"""A pipeline: a network, what it is trained for, and what can be done with the velocity that follows from it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from flowferry.configs.locations import default_data_root
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_source
from flowferry.datasets.rng import derive_seed, normal_rows
from flowferry.pipelines.capabilities import Capable
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.guidance import ConditionalVelocity, autoguide, guide
from flowferry.pipelines.flow.limits import limited
from flowferry.pipelines.flow.losses import LOSSES
from flowferry.pipelines.flow.solvers import Noise, Step, Velocity, last, trajectory
from flowferry.pipelines.flow.tiling import padded, tiled
from flowferry.pipelines.flow.times import list_length
from flowferry.pipelines.flow.variances import VARIANCES, Variance, further_channels, learned, own_channels, remembered


class Pipeline(Capable):
    """Carry samples from `config.source` (t = 0) to `config.target` (t = 1).

    model: a network `model(xt, t, condition)` that predicts `config.prediction`; label_classifier: infers labels where
    `config.infer_labels`. None makes a freshly initialized one. weaker: a network like the model, which guidance leads
    away from. Raises UserError where objective, path, prediction and solver do not go together.
    """

    def loss(
        self,
        x0: Tensor,
        x1: Tensor,
        t: Tensor,
        condition: Condition = NO_CONDITION,
        judge: Callable[[Tensor], Tensor] | None = None,
        average: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Return the training loss, a scalar: see `flow/objectives.py`.

        x0, x1: [B, *shape]; t: [B] or [B, 2], as the objective draws it; condition: with the null label where the label
        is dropped. judge: a further loss, of the results [n, *shape] that the answers imply, each of which weighs 1/B.
        average: what is asked where the network learns from its own answers; None: the network.
        """
        extra: list[Tensor] = []

        def network(xt: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
            model, told = (self.model, condition) if rows is None else (average or self.model, condition.rows(rows))
            predicted: Tensor = model(xt, t, told)
            if judge is not None and rows is None:
                results = self.objective.results(self.path, self.prediction, predicted, xt, t)
                extra.append(judge(results) * (len(results) / len(xt)))
            return predicted

        distance = LOSSES[self.config.train.loss]
        return self.objective.loss(network, self.path, self.prediction, distance, x0, x1, t) + sum(extra)

    # --- running it ----------------------------------------------------------------------------------

    def using(
        self,
        *,
        solver: str | None = None,
        steps: int | None = None,
        stride: int | None = None,
        guidance: float | None = None,
        source_noise: float | None = None,
    ) -> Self:
        """Return this pipeline with another solver, grid of times, guidance w or noise on the source, unless None.

        steps without a stride are those of a grid from t = 0 to 1; a stride without steps is, on a path with levels,
        the whole list of them.
        """
        if stride is not None and steps is None and self.path.levels:
            steps = list_length(self.path.levels, stride)
        asked = {"name": solver, "num_steps": steps, "guidance": guidance, "source_noise": source_noise}
        changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        if stride is not None or steps is not None:
            changes["stride"] = stride
        config = replace(self.config, solver=replace(self.config.solver, **changes))
        return type(self)(config, self.model, self.label_classifier, self.weaker)

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
        x0 = self.draw_source(count, seed=seed, data_root=data_root)
        asked: Any = {"solver": solver, "steps": steps, "guidance": guidance}
        return self.translate(x0, labels, **asked, batch_size=batch_size, seed=seed)

    def draw_source(self, count: int, *, seed: int = 0, data_root: Path | str | None = None) -> Tensor:
        """Return the source samples [count, *shape] that `sample` starts from."""
        root = Path(data_root or default_data_root())
        source = build_source(self.config, data_root=root, split="test", device=self.device)
        return source.draw(count, seed=derive_seed(seed, "source"), step=0).samples

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
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Tensor:
        """Carry source samples [B, *shape], images in [-1, 1], to the target by integrating dx/dt = v from t = 0 to 1.

        Where the network has a `stride`, images may have any height and width; those larger than `tile` pixels a side
        go through it in tiles that overlap by `overlap` pixels; None: see `tiles`. labels: target classes, int64 [B];
        None asks for none, or for those that the label classifier infers. guidance, steps, solver: as in `using`.
        batch_size: samples at a time; None: `block_of`. reverse: see `invert`. seed, rows: of the noise on the source
        and of the ancestral solver, which for sample i is a function of (seed, rows[i]); None numbers the samples.
        Returns samples on the pipeline's device, images but not noise clipped to [-1, 1]. Raises UserError for samples
        of another shape, for tiles that do not fit and for labels that are not classes of this pipeline.
        """
        self.check_shape(images.shape)
        batch_size = self.block_of(images.shape) if batch_size is None else batch_size
        if batch_size < 1:
            raise UserError(f"batch_size: got {batch_size}, expected a number ≥ 1")
        if labels is not None:
            labels = self.check_labels(labels, len(images))
        pipeline = self.using(solver=solver, steps=steps, guidance=guidance)
        parts = [images.to(self.device)[:0]]
        rows = range(len(images)) if rows is None else rows
        which: Any = {"reverse": reverse, "seed": seed, "tile": tile, "overlap": overlap}
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            asked = None if labels is None else labels[part]
            parts.append(last(pipeline.trajectory(images[part], asked, rows=rows[part], **which)))
        clips = self.config.is_image and not (reverse and self.config.source.is_noise)
        return torch.cat(parts).clamp(-1, 1) if clips else torch.cat(parts)

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
        start: float = 0.0,
        reverse: bool = False,
        seed: int = 0,
        rows: Sequence[int] | None = None,
        image: Tensor | None = None,
        tile: int | None = None,
        overlap: int | None = None,
        edit_velocity: Callable[[Velocity], Velocity] | None = None,
        edit_step: Callable[[Step], Step] | None = None,
    ) -> Iterator[Tensor]:
        """Yield x at every time of the `grid`: num_steps + 1 tensors [B, *shape], none clipped.

        The first is x itself, with noise where the solver has `source_noise`. start: the time of x, where it is on its
        way already; it then gets no noise, and the grid is `start` and what comes after it. seed, rows, tile, overlap:
        as for `translate`. image: what a network is shown that enlarges images: see `enlarge`.
        edit_velocity, edit_step: functions that take the velocity or the step and return the one to use instead. Puts
        the network in evaluation mode. Raises UserError as `translate` does, and in a direction that is not known.
        """
        self.check_direction(reverse=reverse)
        self.check_start(start, reverse=reverse)
        solver, x = self.config.solver, x.to(self.device)
        if labels is None and not (reverse or start):
            labels = self.inferred_labels(x)
        answer = remembered(self._answer(x, labels, image, tile, overlap))
        velocity = own_channels(answer)
        velocity = velocity if edit_velocity is None else edit_velocity(velocity)
        noise = normal_rows(seed, rows := range(len(x)) if rows is None else rows)
        if solver.source_noise and not (reverse or start):
            x = x + solver.source_noise * normal_rows(derive_seed(seed, "source noise"), rows)(x)
        variance = learned(further_channels(answer)) if solver.variance == "learned" else VARIANCES[solver.variance]
        step = self.step_along(velocity, noise, variance)
        grid = self.grid(start, reverse=reverse).to(self.device)
        return trajectory(step if edit_step is None else edit_step(step), x, grid)

    def step_along(self, velocity: Velocity, noise: Noise, variance: Variance) -> Step:
        """Return the step of objective and solver along a velocity, within the solver's bounds."""
        velocity = velocity if self.limit is None else limited(velocity, self.path, self.limit)
        return self.objective.step(velocity, lambda v: self.solver.make_step(v, self.path, noise, variance))

    def velocity(
        self, x: Tensor, labels: Tensor | None = None, *, tile: int | None = None, overlap: int | None = None
    ) -> Velocity:
        """Return the velocity that a trajectory from x [B, *shape] to the classes `labels` follows, guided.

        labels: int64 [B]; None asks for none. tile, overlap: as for `translate`. Puts the network in evaluation mode.
        Raises UserError for labels that are not classes of this pipeline.
        """
        return own_channels(self._answer(x, labels, None, tile, overlap))

    def _answer(
        self, x: Tensor, labels: Tensor | None, image: Tensor | None, tile: int | None, overlap: int | None
    ) -> Velocity:
        """Return the guided velocity, in further channels with what a network that learned variances says of them."""
        self.model.eval()
        image = x.to(self.device) if self.sees_source else image
        condition = Condition(self.check_labels(labels, len(x)), image, self.config.num_classes)
        guided = guide(self._at_any_size(tile, overlap), condition, self.class_guidance(asked=labels is not None))
        # no_grad around each evaluation, not around the loop: a generator would leave it on for its caller.
        return torch.no_grad()(guided)

    def _at_any_size(self, tile: int | None, overlap: int | None) -> ConditionalVelocity:
        if self.stride is None:
            return self.conditional_velocity
        return padded(tiled(self.conditional_velocity, *self.tiles(tile, overlap)), self.stride)

    def conditional_velocity(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Return the velocity [B, C, …] at x and t, and a network's further channels, not guided towards its class.

        x: [B, *shape], of a size that the network takes; t: a scalar, or [2] from the start of a step to its end.
        """
        v: ConditionalVelocity = partial(self._velocity, self.model)
        if self.weaker is not None:
            v = autoguide(v, partial(self._velocity, self.weaker), self.config.solver.guidance)
        return v(x, t, condition)

    def _velocity(self, network: nn.Module, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        # x stays at t; the network is not asked beyond its last time. t: [B], or [B, 2].
        t = t.clamp(max=self.max_time).expand(x.shape[0], *t.shape)
        answer, own = network(x, t, condition), x.shape[1]
        velocity = self.prediction.velocity(self.path, answer[:, :own], x, t)
        return velocity if answer.shape == x.shape else torch.cat([velocity, answer[:, own:]], dim=1)
