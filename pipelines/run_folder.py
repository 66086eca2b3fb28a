"""Read back what a run left in its folder."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from flowferry.configs.components import AugmentConfig, augmentation_of
from flowferry.configs.networks import DiffusersConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_splits
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage import checkpoint, weights
from flowferry.pipelines.training.batches import steps_per_epoch
from flowferry.pipelines.training.logger import read_metrics
from flowferry.pipelines.training.teacher import Teacher
from flowferry.pipelines.training.validation import held_out_loss
from flowferry.pipelines.visualization.select import visuals


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A trained pipeline with its log and its data."""

    folder: Path
    pipeline: Pipeline
    rows: list[dict[str, float]]
    """The rows of metrics.jsonl; empty where only the weights were kept."""
    train: tuple[Sampler, Sampler]
    """Source and target, not augmented."""
    test: tuple[Sampler, Sampler]

    @classmethod
    def load(cls, folder: Path, data_root: Path, *, precision: str = "fp32") -> "RunFolder":
        """Load the run in `folder`, with its data. precision: as for `Pipeline.from_pretrained`.

        Raises UserError where there are no weights or no data.
        """
        pipeline = Pipeline.from_pretrained(folder, precision=precision)
        if isinstance(pipeline.config.model, DiffusersConfig):
            raise UserError(f"{folder}: got a pretrained pipeline, whose data are not known, expected one trained here")
        config = without_augmentation(pipeline.config)
        splits: Any = {"splits": ("train", "test"), "data_root": data_root, "device": pipeline.device}
        train, test = build_splits(config, **splits)
        return cls(folder, pipeline, read_metrics(folder / "metrics.jsonl"), train, test)

    @property
    def config(self) -> Config:
        """The pipeline's configuration."""
        return self.pipeline.config

    @property
    def steps_per_epoch(self) -> int:
        """Steps that one pass over the target takes."""
        return steps_per_epoch(self.config.train, self.train[1])

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def epochs(self) -> float:
        """Epochs that were trained."""
        return self.step / self.steps_per_epoch

    @property
    def minutes(self) -> float:
        """Minutes of training itself, without evaluation, pictures and checkpoints."""
        return next((row["perf/minutes"] for row in reversed(self.rows) if "perf/minutes" in row), 0.0)

    @property
    def final_loss(self) -> float:
        """The mean training loss of the last hundred steps; NaN where none was logged."""
        last = [row["train/loss"] for row in self.rows[-100:] if "train/loss" in row]
        return sum(last) / len(last) if last else float("nan")

    @property
    def when(self) -> str:
        """The last step in words, for captions."""
        return f"epoch {self.epochs:.3g}, step {self.step}"

    @cached_property
    def pictures(self) -> dict[str, Image.Image]:
        """The pictures by name, as training draws them."""
        return visuals(self.config).pictures(self.pipeline, *self.test, self.when)

    @cached_property
    def held_out(self) -> tuple[float, float | None]:
        """The held-out loss with these weights, and with those of the last step; None where they were not kept."""
        last, samples = self.last_weights(), self.test
        if self.config.has_teacher:
            pairs = Teacher(self.config, self.folder, self.pipeline.device).held_out(self.test[0])
            pairs.make()
            samples = pairs.load().sides
        return held_out_loss(self.pipeline, *samples), held_out_loss(last, *samples) if last else None

    def last_weights(self) -> Pipeline | None:
        """Return the pipeline with the last step's weights, not their average; None without a whole checkpoint."""
        kept = [path for path in checkpoint.published(self.folder / "checkpoints") if not checkpoint.defect(path)]
        if not kept:
            return None
        tensors, _ = checkpoint.load(kept[0])
        pipeline = Pipeline(self.config)
        weights.load_strictly(pipeline.model, tensors["model"], what=str(kept[0]))
        pipeline.model.to(self.pipeline.device)
        return pipeline


def without_augmentation(config: Config) -> Config:
    """Return `config` with training images left as they are."""
    sides: dict[str, Any] = {"source": config.source, "target": config.target}
    plain = {name: AugmentConfig(behind=augmentation_of(side).behind) for name, side in sides.items()}
    return replace(config, **{n: replace(s, augment=plain[n]) for n, s in sides.items() if hasattr(s, "augment")})
