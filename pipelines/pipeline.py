"""A pipeline: a network, its path, what it predicts there, and what can be done with the velocity that follows."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from configs.checks import UserError
from configs.places import data_root as default_data_root
from configs.schema import Config
from datasets import build_source
from datasets.keyed import key, normal_rows
from models import build_model, placed
from pipelines import hub, weights
from pipelines.classifier import Classifier, extract, halved
from pipelines.guidance import guide
from pipelines.losses import LOSSES
from pipelines.machine import best_device
from pipelines.paths import PATHS, PREDICTIONS
from pipelines.solvers import ODES, SOLVERS, Velocity, time_grid, trajectory

READER = "reader."  # what the names of its tensors begin with, beside the network's
BLOCK = 256  # samples that go through the network at a time
BLOCK_OF_IMAGES_ON_A_CPU = 32


class Pipeline:
    """Carries samples from `config.source` (t = 0) to `config.target` (t = 1).

    model(xt, t, label) predicts what `config.prediction` says; without one, a freshly initialised network is made.
    reader: where `config.read_labels`, the classifier that tells what is not asked for; likewise.
    Raises UserError where path, prediction and solver do not go together.
    """

    def __init__(self, config: Config, model: nn.Module | None = None, reader: Classifier | None = None) -> None:
        self.config = config
        self.path, self.prediction = PATHS[config.path], PREDICTIONS[config.prediction]
        self._check()
        self.model = build_model(config) if model is None else model
        self.reader = build_reader(config) if reader is None else reader

    def loss(self, x0: Tensor, x1: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """E‖model(x_t, t, label) − what it is to predict‖² over samples and elements, or another of `LOSSES`.

        Of the velocity: flow matching (Lipman et al. 2022, eq. 6). Of the source, which is noise: DDPM (Ho et al.
        2020, eq. 14). Of the target at t = 0: a denoiser in one step.
        x0, x1: [B, …]; t: [B] in [0, 1]; label: int64 [B], the null label where it is dropped. Returns a scalar.
        """
        xt = self.path.interpolate(x0, x1, t)
        distance = LOSSES[self.config.train.loss]
        return distance(self.model(xt, t, label), self.prediction.of(self.path, x0, x1, t))

    # --- running it ----------------------------------------------------------------------------------

    def using(
        self, *, solver: str | None = None, steps: int | None = None, guidance: float | None = None
    ) -> "Pipeline":
        """The same pipeline with another solver, number of steps or guidance weight w; None leaves it as it is."""
        asked = {"name": solver, "steps": steps, "guidance": guidance}
        changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        return Pipeline(replace(self.config, solver=replace(self.config.solver, **changes)), self.model, self.reader)

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
        """`count` new target samples [count, *shape] in [-1, 1], from source samples that `seed` draws.

        labels: int64 [count], for class-conditioned pipelines; None as for `translate`. guidance, steps and
        solver as in `using`. A source of images is read from `data_root`, its test split; None:
        $FLOWFERRY_DATA or data/.
        """
        config = self.config
        source = build_source(
            config, data_root=Path(data_root or default_data_root()), split="test", device=self.device
        )
        x0 = source.draw(count, seed=key(seed, "source"), step=0).samples
        pipeline = self.using(solver=solver, steps=steps, guidance=guidance)
        return pipeline.translate(x0, labels, batch_size=batch_size, seed=seed)

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
    ) -> Tensor:
        """Source samples [B, *shape] in [-1, 1] -> target samples, by integrating dx/dt = v from t = 0 to 1.

        labels: of the target, int64 [B]; None leaves them untold, or to the reader where there is one. guidance,
        steps and solver as in `using`. The result is on the pipeline's device; images, but not recovered noise, are
        clipped to [-1, 1]. batch_size: samples at a time; None: `block`. reverse: see `invert`.
        seed: of the noise that the ancestral solver adds, which for sample i is a function of (seed, i).
        Raises UserError for samples of another shape and for labels that are not classes of this pipeline.
        """
        shape = self.config.shape
        if tuple(images.shape[1:]) != shape:
            raise UserError(f"samples of shape {tuple(images.shape)}: accepted is (B, {', '.join(map(str, shape))})")
        batch_size = self.block if batch_size is None else batch_size
        if batch_size < 1:
            raise UserError(f"batch_size: found {batch_size}, accepted is a number ≥ 1")
        if labels is not None:
            labels = self.checked_labels(labels, len(images))
        pipeline = self.using(solver=solver, steps=steps, guidance=guidance)
        parts = [images.to(self.device)[:0]]
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            part = None if labels is None else labels[rows]
            for x in pipeline.trajectory(images[rows], part, reverse=reverse, seed=seed, first=start):
                end = x  # the points before are let go
            parts.append(end)
        result = torch.cat(parts)
        end_is_noise = reverse and self.config.source.kind == "gaussian"
        return result if end_is_noise or len(shape) < 3 else result.clamp(-1, 1)

    def invert(self, samples: Tensor, labels: Tensor | None = None, **options: Any) -> Tensor:
        """Target samples -> source samples: the same ODE from t = 1 to 0. Options as for `translate`; none are read."""
        return self.translate(samples, labels, reverse=True, **options)

    def trajectory(
        self, x: Tensor, labels: Tensor | None = None, *, reverse: bool = False, seed: int = 0, first: int = 0
    ) -> Iterator[Tensor]:
        """x at every point of the time grid: steps + 1 tensors [B, *shape], the first is x itself, none clipped.

        seed, first: the noise of the ancestral solver is that of samples first … first + B − 1. Puts the network in
        evaluation mode.
        """
        solver = self.config.solver
        self.check_direction(reverse=reverse)
        grid = time_grid(solver.steps, power=solver.grid_power, device=self.device, reverse=reverse)
        self.model.eval()
        if labels is None and not reverse:
            labels = self.read(x)
        # no_grad around each evaluation, not around the loop: a generator would leave it on for its caller.
        v = torch.no_grad()(self.velocity(len(x), labels))
        step = SOLVERS[solver.name].step(self.path, normal_rows(seed, range(first, first + len(x))))
        return trajectory(step, v, x.to(self.device), grid)

    def read(self, samples: Tensor) -> Tensor | None:
        """The classes int64 [B] that the reader takes source samples [B, *shape] for; None without a reader."""
        return None if self.reader is None else extract(self.reader, samples.to(self.device))[1].argmax(dim=1)

    def check_direction(self, *, reverse: bool) -> None:
        """Raises UserError where the solver knows one direction only."""
        if reverse and self.config.solver.name == "ancestral":
            raise UserError(f"solver ancestral runs from source to target only; accepted in reverse: {', '.join(ODES)}")

    def velocity(self, count: int, labels: Tensor | None) -> Velocity:
        """v(x, t) for `count` samples: guided where classes are asked for, otherwise plain."""
        checked = self.checked_labels(labels, count)
        if labels is None or checked is None:
            return lambda x, t: self._velocity(x, t, checked)
        return guide(self._velocity, checked, self.config.classes, self.config.solver.guidance)

    def _velocity(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        t = t.clamp(max=self.latest).expand(len(x))
        return self.prediction.velocity(self.path, self.model(x, t, label), x, t)

    @property
    def latest(self) -> float:
        """The last time at which the network is asked: of those it was trained at, and where v can be had."""
        if self.path.levels:
            return 1 - 1 / self.path.levels
        return 1.0 if self.config.prediction == "velocity" else 0.999  # both ends would be x_1: 0/0

    def checked_labels(self, labels: Tensor | None, count: int) -> Tensor | None:
        """int64 [count] on the device, all untold for None; None for a pipeline that knows no classes."""
        null = self.config.classes
        if labels is None:
            return torch.full((count,), null, device=self.device) if null else None
        if not null:
            raise UserError(f"{self.config.name} knows no classes: found labels, accepted is None")
        labels = torch.as_tensor(labels)
        accepted = f"accepted are {count} whole numbers from 0 to {null - 1}, or {null} for untold"
        if labels.shape != (count,) or labels.is_floating_point():
            raise UserError(f"labels: found {labels.dtype} of shape {tuple(labels.shape)}, {accepted}")
        if wrong := [label for label in labels.tolist() if label < 0 or label > null]:
            raise UserError(f"labels: found {wrong[0]}, {accepted}")
        return labels.to(self.device, torch.long)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def block(self) -> int:
        """Samples that go through the network at a time where no number is asked for (docs/PERFORMANCE.md)."""
        return BLOCK_OF_IMAGES_ON_A_CPU if self.device.type == "cpu" and len(self.config.shape) == 3 else BLOCK

    @property
    def evaluations(self) -> int:
        """Forward evaluations per sample (NFE) of one translation, to an asked class where there are any."""
        solver = self.config.solver
        forwards = 2 if self.config.classes and solver.guidance not in (0, 1) else 1
        return forwards * SOLVERS[solver.name].evaluations * solver.steps

    def _check(self) -> None:
        """What the configuration alone cannot know of the path."""
        config, levels = self.config, self.path.levels
        if levels and config.solver.steps > levels:
            raise UserError(
                f"solver steps: found {config.solver.steps}, accepted are at most {levels} on the path {config.path}"
            )
        if config.prediction == "source" and self.path.beta(torch.zeros(())) == 0:
            raise UserError(
                f"prediction source: found the path {config.path}, where x_0 says nothing of the target; accepted: ddpm"
            )

    # --- keeping it ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path | str, *, step: int = 0) -> None:
        """Writes `config.json` and `model.safetensors` with metadata that describes itself into `folder`."""
        tensors = self.model.state_dict()
        if self.reader is not None:
            tensors |= halved(self.reader.state_dict(prefix=READER))
        weights.save(Path(folder), self.config, tensors, step=step)

    def push_to_hub(
        self,
        name: str,
        *,
        results: Mapping[str, float | str] | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Uploads weights, configuration and a model card with the `results` as "user/name" of the Hugging Face hub.

        token: None takes the one of `hf auth login`. Returns the address. Raises UserError where that fails.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            weights.write_aside(Path(folder, hub.CARD), hub.card(self.config, results or {}, name).encode())
            return hub.push(Path(folder), name, private=private, token=token)

    @classmethod
    def from_pretrained(cls, name: Path | str, *, device: torch.device | str | None = None) -> "Pipeline":
        """A trained pipeline, ready to use on `device` (a GPU if there is one).

        name: one from `launch.py list`, of which a run of one's own comes before the shipped weights; the folder of a
        run or of weights; or "user/name" of the Hugging Face hub, from where it is fetched. Raises UserError where
        there are no weights, or where they do not fit the configuration beside them.
        """
        folder = hub.local(name)
        config, tensors = weights.load(folder)
        device = device or best_device()
        with torch.device("meta"):  # no memory is taken before the weights are known to fit
            model, reader = build_model(config), build_reader(config)
        pipeline = cls(config, model, reader)
        if pipeline.reader is not None:
            own = {name.removeprefix(READER): tensors.pop(name) for name in list(tensors) if name.startswith(READER)}
            weights.load_strictly(pipeline.reader, own, what=f"{folder} (the reader's)")
            pipeline.reader.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        weights.load_strictly(pipeline.model, tensors, what=str(folder))
        placed(pipeline.model, config, device).eval()
        return pipeline


def build_reader(config: Config) -> Classifier | None:
    """A freshly initialised classifier of the source, for a pipeline that reads its labels."""
    return Classifier(channels=config.shape[0], classes=config.classes) if config.read_labels else None
