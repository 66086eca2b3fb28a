"""Edit images with a trained pipeline: each edit yields images on their way, and the last are the results.

The formulas are in flow/edits.py; here they get a pipeline's velocity, guided towards classes, and noise that is each
image's own. Results are not clipped to [-1, 1].
"""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from flowferry.configs.recipe import OdeSolverName
from flowferry.configs.validation import UserError
from flowferry.datasets.rng import derive_seed, normal_rows
from flowferry.pipelines.flow import edits
from flowferry.pipelines.flow.solvers import Noise, last
from flowferry.pipelines.pipeline import Pipeline

Rows = Sequence[int] | None


def sdedit(
    pipeline: Pipeline, images: Tensor, labels: Tensor | None = None, *, start: float, seed: int = 0, rows: Rows = None
) -> Iterator[Tensor]:
    """Noise images [B, C, H, W] in [-1, 1] to the time `start`, and go on from there: SDEdit (Meng et al. 2021).

    labels: the classes to go on to, int64 [B]; None: none. start: 0 keeps nothing of the images, 1 all of them. seed,
    rows: the noise of image i is a function of (seed, rows[i]); None numbers the images. Raises UserError for a
    pipeline that does not start from unit Gaussian noise, and as `Pipeline.trajectory` does.
    """
    x = started(pipeline, "sdedit", images, start, seed, rows)
    return pipeline.trajectory(x, labels, start=start, seed=seed, rows=rows)


def inpaint(
    pipeline: Pipeline,
    images: Tensor,
    mask: Tensor,
    labels: Tensor | None = None,
    *,
    start: float = 0.0,
    resample: int = 1,
    seed: int = 0,
    rows: Rows = None,
) -> Iterator[Tensor]:
    """Make the pixels anew where the mask is True, and keep all others: RePaint (Lugmayr et al. 2022).

    mask: bool [H, W], or of the shape of images [B, C, H, W]. resample: how often each step is taken, with a jump back
    in between; more makes the new pixels agree with the known ones. start: more than 0 keeps something of what was in
    the mask. The rest is as for `sdedit`.
    """
    x = started(pipeline, "inpaint", images, start, seed, rows)
    known, mask, noise = images.to(x), mask.to(x.device), noise_of("known", seed, rows, len(x))
    how: Any = {"noise": noise, "resample": resample}
    return pipeline.trajectory(
        *(x, labels), start=start, seed=seed, rows=rows,
        edit_step=lambda step: edits.inpaint(step, pipeline.path, known, mask, **how),
    )  # fmt: skip


def flow_edit(
    pipeline: Pipeline,
    images: Tensor,
    old: Tensor | None,
    new: Tensor | None,
    *,
    start: float = 0.0,
    seed: int = 0,
    rows: Rows = None,
) -> Iterator[Tensor]:
    """Carry images of the classes `old` to what they are as the classes `new`: FlowEdit (Kulikov et al. 2024).

    old, new: int64 [B]; None: no class. start: more than 0 leaves out the steps with the most noise, which change most.
    The rest is as for `sdedit`; also raises UserError for a solver that adds noise of its own.
    """
    check(pipeline, "flowedit", images, start)
    if not pipeline.config.solver.is_reversible:
        odes = ", ".join(get_args(OdeSolverName))
        raise UserError(f"flowedit: got the solver {pipeline.config.solver.name}, expected {odes}")
    x, noise = images.to(pipeline.device), noise_of("noised", seed, rows, len(images))
    v_old = pipeline.velocity(x, old)
    return pipeline.trajectory(
        *(x, new), start=start, edit_velocity=lambda v_new: edits.flow_edit(pipeline.path, v_old, v_new, x, noise)
    )


def denoise(
    pipeline: Pipeline, images: Tensor, labels: Tensor | None = None, *, start: float, seed: int = 0, rows: Rows = None
) -> Iterator[Tensor]:
    """Noise images to the time `start`, and yield them; then what one evaluation says that they were.

    At `start` 1, where nothing is left to say, the images alone. The rest is as for `sdedit`.
    """
    x = started(pipeline, "denoise", images, start, seed, rows)
    velocity, t = pipeline.velocity(x, labels), torch.tensor(start, dtype=x.dtype, device=x.device)
    states = (lambda: x, lambda: edits.denoised(pipeline.path, velocity, x, t))
    return (state() for state in states[: 2 if start < 1 else 1])


def anagram(
    pipeline: Pipeline,
    x: Tensor,
    labels: Sequence[Tensor | None],
    views: Sequence[edits.View | str],
    *,
    seed: int = 0,
    rows: Rows = None,
) -> Iterator[Tensor]:
    """Carry source samples x [B, C, H, W] to images that are of another class in each view (Geng et al. 2024).

    labels: for each view int64 [B], or None for no class. views: keys of `edits.VIEWS`, or views. seed, rows: as for
    `Pipeline.trajectory`.
    """
    maps = [edits.VIEWS[view] if isinstance(view, str) else view for view in views]
    # A network that sees its source sees it in the same view.
    velocities = [pipeline.velocity(view.see(x), label) for label, view in zip(labels, maps, strict=True)]
    return pipeline.trajectory(x, seed=seed, rows=rows, edit_velocity=lambda v: edits.anagram(velocities, maps))


def hybrid(
    pipeline: Pipeline,
    x: Tensor,
    far: Tensor | None,
    near: Tensor | None,
    *,
    sigma: float | None = None,
    seed: int = 0,
    rows: Rows = None,
) -> Iterator[Tensor]:
    """Carry source samples x [B, C, H, W] to images of one class from afar and of another from nearby.

    far, near: int64 [B]; None: no class. sigma: as for `edits.lowpass`. seed, rows: as for `Pipeline.trajectory`.
    """
    v_far, v_near = pipeline.velocity(x, far), pipeline.velocity(x, near)
    mixed = edits.hybrid(v_far, v_near, sigma=sigma)
    return pipeline.trajectory(x, seed=seed, rows=rows, edit_velocity=lambda v: mixed)


def result_of(states: Iterator[Tensor]) -> Tensor:
    """Return the images [B, C, H, W] that an edit ends in, clipped to [-1, 1]; the others are not kept in memory."""
    return last(states).clamp(-1, 1)


def started(pipeline: Pipeline, what: str, images: Tensor, start: float, seed: int, rows: Rows) -> Tensor:
    """Return images [B, C, H, W] noised to the time `start`. Raises UserError where an edit cannot start so."""
    check(pipeline, what, images, start)
    return noised(pipeline, images, start, seed=seed, rows=rows)


def noised(pipeline: Pipeline, images: Tensor, t: float, *, seed: int = 0, rows: Rows = None) -> Tensor:
    """Return images [B, C, H, W] at the time t of the pipeline's path, on its device; at every time the same noise."""
    x = images.to(pipeline.device)
    noise = noise_of("noised", seed, rows, len(x))
    return edits.noised(pipeline.path, x, torch.tensor(t, dtype=x.dtype, device=x.device), noise)


def noise_of(name: str, seed: int, rows: Rows, count: int) -> Noise:
    """Return the noise called `name` of images, a stream of its own for each and beside that of the solver."""
    return normal_rows(derive_seed(seed, name), range(count) if rows is None else rows)


def check(pipeline: Pipeline, what: str, images: Tensor, start: float) -> None:
    """Raise UserError for a pipeline, images or a start that the edit `what` cannot take."""
    config = pipeline.config
    if not (config.is_image and config.starts_from_unit_noise):
        got = f"{config.name}, which starts from {config.source.kind}"
        raise UserError(f"{what}: got {got}, expected a pipeline of images that starts from unit Gaussian noise")
    pipeline.check_shape(images.shape)
    pipeline.check_start(start)
