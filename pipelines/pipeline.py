"""A pipeline: a network, the path it was trained on, and what can be done with the velocity it predicts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import Config, UserError
from datasets import build_sampler
from datasets.keyed import key
from models import build_model
from pipelines import weights
from pipelines.guidance import guide
from pipelines.paths import PATHS
from pipelines.solvers import SOLVERS, Velocity, trajectory, uniform_grid


class Pipeline:
    """Carries samples from `config.source` (t = 0) to `config.target` (t = 1).

    model(xt, t, label) predicts the velocity; without one, a freshly initialised network is made.
    """

    def __init__(self, config: Config, model: nn.Module | None = None) -> None:
        self.config = config
        self.path = PATHS[config.path]
        self.model = build_model(config) if model is None else model

    def loss(self, x0: Tensor, x1: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Flow matching: E‖u(x_t, t, label) − v‖² over samples and elements (Lipman et al. 2022, eq. 6).

        x0, x1: [B, …]; t: [B] in [0, 1]; label: int64 [B], the null label where it is dropped. Returns a scalar.
        """
        xt = self.path.interpolate(x0, x1, t)
        v = self.path.velocity(x0, x1, t)
        return F.mse_loss(self.model(xt, t, label), v)

    # --- running it ----------------------------------------------------------------------------------

    def using(
        self, *, solver: str | None = None, steps: int | None = None, guidance: float | None = None
    ) -> "Pipeline":
        """The same pipeline with another solver, number of steps or guidance weight w; None leaves it as it is."""
        asked = {"name": solver, "steps": steps, "guidance": guidance}
        changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        return Pipeline(replace(self.config, solver=replace(self.config.solver, **changes)), self.model)

    def sample(
        self,
        count: int,
        labels: Tensor | None = None,
        *,
        guidance: float | None = None,
        steps: int | None = None,
        solver: str | None = None,
        seed: int = 0,
        batch_size: int = 256,
        data_root: Path | str = "data",
    ) -> Tensor:
        """`count` new target samples [count, *shape] in [-1, 1], from source samples that `seed` draws.

        labels: int64 [count], for class-conditioned pipelines; None leaves them untold. guidance, steps and
        solver as in `using`. A source of images is read from `data_root`: its test split.
        """
        config, root = self.config, Path(data_root)
        source = build_sampler(config.source, config.shape, data_root=root, split="test", device=self.device)
        x0 = source.draw(count, seed=key(seed, "source"), step=0).samples
        pipeline = self.using(solver=solver, steps=steps, guidance=guidance)
        return pipeline.translate(x0, labels, batch_size=batch_size)

    def translate(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        guidance: float | None = None,
        steps: int | None = None,
        solver: str | None = None,
        batch_size: int = 256,
        reverse: bool = False,
    ) -> Tensor:
        """Source samples [B, *shape] in [-1, 1] -> target samples, by integrating dx/dt = v from t = 0 to 1.

        labels: of the target, int64 [B]; guidance, steps and solver as in `using`. The result is on the
        pipeline's device; images, but not recovered noise, are clipped to [-1, 1]. reverse: see `invert`.
        Raises UserError for samples of another shape and for labels that are not classes of this pipeline.
        """
        shape = self.config.shape
        if tuple(images.shape[1:]) != shape:
            raise UserError(f"samples of shape {tuple(images.shape)}: accepted is (B, {', '.join(map(str, shape))})")
        if batch_size < 1:
            raise UserError(f"batch_size: found {batch_size}, accepted is a number ≥ 1")
        labels = self.checked_labels(labels, len(images))
        pipeline = self.using(solver=solver, steps=steps, guidance=guidance)
        parts = [images.to(self.device)[:0]]
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            *_, end = pipeline.trajectory(images[rows], None if labels is None else labels[rows], reverse=reverse)
            parts.append(end)
        result = torch.cat(parts)
        end_is_noise = reverse and self.config.source.kind == "gaussian"
        return result if end_is_noise or len(shape) < 3 else result.clamp(-1, 1)

    def invert(self, samples: Tensor, labels: Tensor | None = None, **options: Any) -> Tensor:
        """Target samples -> source samples: the same ODE from t = 1 to 0. Options as for `translate`."""
        return self.translate(samples, labels, reverse=True, **options)

    def trajectory(self, x: Tensor, labels: Tensor | None = None, *, reverse: bool = False) -> Iterator[Tensor]:
        """x at every point of the time grid: steps + 1 tensors [B, *shape], the first is x itself, none clipped.

        Puts the network in evaluation mode.
        """
        solver = self.config.solver
        grid = uniform_grid(solver.steps, device=self.device, reverse=reverse)
        self.model.eval()
        # no_grad around each evaluation, not around the loop: a generator would leave it on for its caller.
        v = torch.no_grad()(self.velocity(len(x), labels))
        return trajectory(SOLVERS[solver.name].step, v, x.to(self.device), grid)

    def velocity(self, count: int, labels: Tensor | None) -> Velocity:
        """v(x, t) for `count` samples: plain for an unconditional pipeline, guided for one that knows classes."""
        labels = self.checked_labels(labels, count)
        if labels is None:
            return lambda x, t: self.model(x, t.expand(len(x)), None)
        w, null = self.config.solver.guidance, self.config.classes
        return guide(lambda x, t, label: self.model(x, t.expand(len(x)), label), labels, null, w)

    def checked_labels(self, labels: Tensor | None, count: int) -> Tensor | None:
        """int64 [count] on the device, all untold for None; None for a pipeline that knows no classes."""
        null = self.config.classes
        if labels is None:
            return torch.full((count,), null, device=self.device) if null else None
        if not null:
            raise UserError(f"{self.config.name} knows no classes: found labels, accepted is None")
        labels = torch.as_tensor(labels)
        fits = labels.shape == (count,) and not labels.is_floating_point()
        if not fits or any(label < 0 or label > null for label in labels.tolist()):
            raise UserError(
                f"labels: found {labels.dtype} {labels.tolist()}; "
                f"accepted are {count} whole numbers from 0 to {null - 1}, or {null} for untold"
            )
        return labels.to(self.device, torch.long)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def evaluations(self) -> int:
        """Forward evaluations per sample (NFE) of one translation."""
        solver = self.config.solver
        forwards = 2 if self.config.classes and solver.guidance not in (0, 1) else 1
        return forwards * SOLVERS[solver.name].evaluations * solver.steps

    # --- keeping it ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path | str, *, step: int = 0) -> None:
        """Writes `config.json` and `model.safetensors` with metadata that describes itself into `folder`."""
        weights.save(Path(folder), self.config, self.model.state_dict(), step=step)

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, device: torch.device | str | None = None) -> "Pipeline":
        """The pipeline saved in `folder`, a run's or its `model/`, ready to use on `device` (a GPU if there is one).

        Raises UserError where there are no weights, or where they do not fit the configuration beside them.
        """
        config, tensors = weights.load(Path(folder))
        pipeline = cls(config)
        weights.load_strictly(pipeline.model, tensors, what=str(folder))
        if device is None:
            device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
        pipeline.model.to(device).eval()
        return pipeline
