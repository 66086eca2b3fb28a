"""The studies of a report that only some pipelines have: denoising errors, the mean image, asked classes, two runs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flowferry.configs.locations import classifier_folder
from flowferry.configs.options import ReportOptions
from flowferry.models.classifier import accuracy
from flowferry.pipelines.evaluation.classifier import TrainedClassifier, trained_classifier
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.run_folder import RunFolder
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import write_png
from flowferry.pipelines.visualization import denoising, grids

IMAGES = 2000  # that a denoiser's errors are measured on
GUIDANCE = (1.0, 5.0)  # weights at which asked classes are counted

BESIDE = {  # the run to show beside another, by pipeline name
    "fashion2mnist": "fashion2mnist-published",
    "noise2mnist-cfg-constant": "noise2mnist-cfg-published",
    "noise2mnist-wide": "noise2mnist-published",
}

NOTES = {  # explanations, by pipeline name
    "denoise-noise": """\
The network sees noise that was drawn independently of the digit it is scored against, so the noise tells it nothing of
that digit. Whatever it answers, the expected squared error is E‖D(z) − x‖² = ‖D(z) − E[x]‖² + E‖x − E[x]‖²: the second
term is the same for every network, and the first vanishes for the constant answer E[x], the mean of all training
images. That is what the sheets show, and the table says how near it comes: the outputs differ from the mean image and
from each other by far less than any digit does. One step from noise therefore cannot give a digit; many steps can,
because after the first small one the input is no longer independent of where the path leads.""",
    "noise2mnist-cfg-constant": """\
A schedule lowers the learning rate so that the weights stop jumping about their optimum. A constant rate gets the same
in two other ways: it is half the scheduled one's first rate, so that the jumps are smaller, and what is shown is an
exponential moving average of the weights, in which the jumps of the last thousand steps cancel. The evidence is in the
two held-out losses above: what the average takes off the loss of the last step's weights, under either rate.""",
    "gaussian2d": """\
x0 and x1 are independent with variance 1 in each coordinate, so that x_t = α·x0 + β·x1 has variance α² + β². On the
linear path that is (1 − t)² + t², which dips to ½ at t = ½; on the cosine path it is cos² + sin² = 1 throughout. The
mean moves from 0 to 1 as β does, on either. The dotted line is the variance of what the trained network carries.""",
    "noise2mnist-wide": """\
The published rate is 5e-2. In a short trial at D = 32 it trained worse than the narrower model's 1e-2, which this
pipeline therefore uses; `--train.lr 5e-2` is the published one.""",
}


@dataclass(frozen=True, eq=False)
class Studies:
    """A run and the folder its report goes to. Each study writes its pictures and returns its Markdown, or ""."""

    run: RunFolder
    out: Path
    options: ReportOptions

    def denoising_errors(self) -> str:
        """Tabulate a denoiser's errors at each noise level."""
        if not self.run.config.source.from_target:
            return ""
        count = self.options.images or IMAGES
        found = denoising.denoising_errors(self.run.pipeline, self.run.test[1], count)
        rows = [(f"{e.sigma:g}", f"{e.noisy:.5f}", f"{e.denoised:.5f}", f"{e.noisy / e.denoised:.3g}") for e in found]
        heading = ("σ", "mean squared error, noisy", "denoised", "lowered by the factor")
        text = f"## Errors\n\nOver {count} test images, where black is 0 and white is 1.\n\n"
        return text + table(heading, rows)

    def mean_image(self) -> str:
        """Compare the results of pure noise in one step with the mean training image."""
        config = self.run.config
        if not config.source.is_noise or self.run.pipeline.objective.max_steps != 1:
            return ""
        found = denoising.compare_with_mean(self.run.pipeline, self.run.test[0], self.run.train[1])
        rows: list[grids.Row] = [("mean training image", found.mean), ("from noise", found.outputs)]
        self.save("mean", grids.sheet(rows, grids.caption(config, self.run.when)))
        figures = {
            "outputs from the mean training image": f"{found.to_mean:.4f}",
            "outputs from their own mean": f"{found.among:.4f}",
            "training images from their mean, for scale": f"{found.digits:.4f}",
        }
        heading = ("root mean square difference, black 0 and white 1", "")
        return f"## The mean image\n\n![mean image](mean.png)\n\n{table(heading, figures.items())}"

    def asked_classes(self) -> str:
        """Tabulate how often a result shows the class that was asked for."""
        if not self.run.config.asked_classes:
            return ""
        rows = [(f"{w:g}", f"{share:.1%}") for w, share in self.accuracies(self.run)]
        count = self.options.per_label * self.run.config.num_classes
        text = (
            f"The share of {count} samples, {self.options.per_label} of each class, that a classifier takes for the "
            f"class that was asked for; it is correct on {self.classifier.accuracy:.2%} of the test images."
        )
        return f"## Is it what was asked?\n\n{text}\n\n{table(('w', 'share'), rows)}"

    def accuracies(self, run: RunFolder) -> list[tuple[float, float]]:
        """Return (w, share) for each guidance weight, measured once for each run."""
        if run.folder not in self._accuracies:
            per_label, root = self.options.per_label, self.options.data_root
            right = partial(accuracy, self.classifier.classifier)
            self._accuracies[run.folder] = [
                (w, asked_share(run.pipeline, right, per_label, guidance=w, data_root=root)) for w in GUIDANCE
            ]
        return self._accuracies[run.folder]

    @cached_property
    def _accuracies(self) -> dict[Path, list[tuple[float, float]]]:
        return {}

    @cached_property
    def classifier(self) -> TrainedClassifier:
        """The classifier of the target's classes."""
        config = self.run.config
        return trained_classifier(
            config.target,
            config.shape,
            num_classes=self.run.train[1].num_classes,
            data_root=self.options.data_root,
            folder=classifier_folder(weights.results_folder(self.run.folder, config)),
            device=self.run.pipeline.device,
        )

    def beside(self) -> str:
        """Show the results of another run for the same source samples, and both runs' figures."""
        usual = BESIDE.get(self.run.config.name)
        other_folder = self.options.beside or (self.run.folder.parent / usual if usual else None)
        if other_folder is None:
            return ""
        if not (other_folder / "model").is_dir():
            return f"## Beside {other_folder.name}\n\nNot shown: {other_folder.name} has not been trained here."
        other = RunFolder.load(other_folder, self.options.data_root)
        self.save("beside", grids.stacked([next(iter(run.pictures.values())) for run in (other, self.run)]))
        heading = ["run", "epochs", "training minutes", "held-out loss", "last step's weights"]
        heading += [f"asked class, w = {w:g}" for w in GUIDANCE if self.run.config.asked_classes]
        rows = [self.compared(run) for run in (other, self.run)]
        return f"## Beside {other_folder.name}\n\n![beside](beside.png)\n\n{table(heading, rows)}"

    def compared(self, run: RunFolder) -> list[str]:
        """Return a run's row of the table."""
        row = [run.folder.name, f"{run.epochs:.3g}", f"{run.minutes:.1f}"]
        row += ["" if loss is None else f"{loss:.4f}" for loss in run.held_out]
        if self.run.config.asked_classes:
            asks = run.config.asked_classes
            row += [f"{share:.1%}" for _, share in self.accuracies(run)] if asks else [""] * len(GUIDANCE)
        return row

    def note(self) -> str:
        """Explain what the pictures show, where there is a note on the pipeline."""
        text = NOTES.get(self.run.config.name)
        return f"## Why\n\n{text}" if text else ""

    def save(self, name: str, picture: Image.Image) -> None:
        """Write a picture beside the report."""
        write_png(self.out / f"{name}.png", picture)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def component_summary(config: Any) -> str:
    """Return a component of the configuration in a line: its kind, then its fields."""
    return ", ".join([config.kind, *(f"{f.name} {getattr(config, f.name)}" for f in fields(config) if f.init)])


def asked_share(
    pipeline: Pipeline,
    accuracy: Callable[[Tensor, Tensor], float],
    per_label: int,
    *,
    guidance: float,
    data_root: Path,
) -> float:
    """Return the share of samples, `per_label` of each class, that show the class that was asked for.

    accuracy(images [B, C, H, W], labels [B]) returns the share of the images that a classifier takes for their labels.
    """
    labels = torch.arange(pipeline.config.num_classes).repeat(per_label)
    samples = pipeline.sample(len(labels), labels, guidance=guidance, data_root=data_root)
    return accuracy(samples, labels.to(samples.device))
