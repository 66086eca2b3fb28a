"""What a run left in its folder, read back."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from configs.schema import Config, as_it_is
from datasets import Sampler, build_samplers
from pipelines import checkpoint, weights
from pipelines.batches import steps_per_epoch
from pipelines.measures import held_out_loss
from pipelines.pictures import drawing
from pipelines.pipeline import Pipeline
from pipelines.record import read_metrics


@dataclass(frozen=True, eq=False)
class Run:
    """A trained pipeline with its log and its data."""

    folder: Path
    pipeline: Pipeline
    rows: list[dict[str, float]]
    """Of metrics.jsonl; none where only the weights were kept."""
    train: tuple[Sampler, Sampler]
    """Not augmented."""
    test: tuple[Sampler, Sampler]

    @classmethod
    def load(cls, folder: Path, data_root: Path) -> "Run":
        pipeline = Pipeline.from_pretrained(folder)
        config = as_it_is(pipeline.config)
        train, test = (
            build_samplers(config, data_root=data_root, split=split, device=pipeline.device)
            for split in ("train", "test")
        )
        return cls(folder, pipeline, read_metrics(folder / "metrics.jsonl"), train, test)

    @property
    def config(self) -> Config:
        return self.pipeline.config

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.config.train, self.train[1])

    @property
    def step(self) -> int:
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def epochs(self) -> float:
        return self.step / self.steps_per_epoch

    @property
    def minutes(self) -> float:
        """Of training itself: without evaluation, pictures and checkpoints."""
        return next((row["perf/minutes"] for row in reversed(self.rows) if "perf/minutes" in row), 0.0)

    @property
    def final_loss(self) -> float:
        """Mean over the last hundred steps."""
        last = [row["train/loss"] for row in self.rows[-100:] if "train/loss" in row]
        return sum(last) / len(last) if last else float("nan")

    @property
    def when(self) -> str:
        return f"epoch {self.epochs:.3g}, step {self.step}"

    @cached_property
    def pictures(self) -> dict[str, Image.Image]:
        """By name, as training draws them."""
        return drawing(self.config).pictures(self.pipeline, *self.test, self.when)

    @cached_property
    def held_out(self) -> tuple[float, float | None]:
        """The held-out loss with these weights, and with those of the last step if they were kept."""
        last = self.last_weights()
        return held_out_loss(self.pipeline, *self.test), held_out_loss(last, *self.test) if last else None

    def last_weights(self) -> Pipeline | None:
        """With the weights of the last step, not their average; None where no whole checkpoint was kept."""
        kept = [path for path in checkpoint.published(self.folder / "checkpoints") if not checkpoint.defect(path)]
        if not kept:
            return None
        tensors, _ = checkpoint.load(kept[0])
        pipeline = Pipeline(self.config)
        weights.load_strictly(pipeline.model, tensors["model"], what=str(kept[0]))
        pipeline.model.to(self.pipeline.device)
        return pipeline
