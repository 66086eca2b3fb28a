"""The verb `report`: an index.md with its pictures, which reads as a lab report of one run."""

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from PIL import Image

from configs.cli import ReportOptions, TranslateOptions
from configs.commands import training_command
from configs.places import classifiers_of
from datasets.pixels import to_pil
from pipelines import denoising, machine, sheets, translate, weights
from pipelines.classifier import TrainedClassifier, accuracy, trained_classifier
from pipelines.figures import ERROR, OF, loss_curve
from pipelines.measures import HELD_OUT, asked_share
from pipelines.notes import BESIDE, NOTES
from pipelines.pictures import drawing
from pipelines.runs import Run

log = logging.getLogger("flowferry")

TOLD_EPOCHS = (1, 5, 10, 15, 20, 50, 100)  # whose sheets are shown, and the last
GRID = 128  # samples of an unconditional pipeline
GUIDANCE = (1.0, 5.0)  # at which the asked class is looked for


def run(options: ReportOptions, folder: Path) -> int:
    """Writes the report of the run in `folder`."""
    loaded = Run.load(folder, options.data_root)
    out = options.output or weights.results_folder(folder, loaded.config) / "report"
    report = Report(loaded, out, options)
    report.write()
    log.info("report of %s: %s", folder.name, report.out / "index.md")
    return 0


@dataclass(frozen=True, eq=False)
class Report:
    """A run and the folder its report goes to. Each section writes its pictures and returns its Markdown, or ""."""

    run: Run
    out: Path
    options: ReportOptions

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        sections: Sequence[Callable[[], str]] = (
            self.trained,
            self.losses,
            self.progress,
            self.results,
            self.grid,
            self.animation,
            self.translated_folder,
            self.denoising_errors,
            self.mean_image,
            self.asked_classes,
            self.beside,
            self.note,
        )
        told = [text for text in (section() for section in sections) if text]
        (self.out / "index.md").write_text("\n\n".join(told) + "\n")

    # --- what was done -------------------------------------------------------------------------------

    def trained(self) -> str:
        run, config = self.run, self.run.config
        parameters = sum(p.numel() for p in run.pipeline.model.parameters())
        data = weights.DRAWN if config.drawn else f"{config.source.kind} → {config.target.kind}"
        size = run.train[1].size
        facts = {
            "data": data + (f", {size:,} training samples" if size else ", endless"),
            "network": f"{written(config.model)}, {parameters:,} parameters, predicts the {config.prediction}",
            "path, coupling": f"{config.path}, {config.coupling}",
            "sampling": sheets.how(run.pipeline),
            "optimiser": f"{config.train.optimizer} {config.train.lr:g}, {config.train.schedule}, "
            f"batch {config.train.batch_size}, average of the weights {config.train.ema}, {config.train.precision}",
            "trained": f"{run.epochs:.3g} of {config.train.epochs} epochs, {run.step:,} steps, "
            f"{run.minutes:.1f} minutes of training",
            "final loss": f"{run.final_loss:.4f}, the mean of the last 100 steps ({ERROR[run.config.train.loss]} "
            f"{OF[config.prediction]})",
            "this report's machine": machine.described(),
        }
        lines = [f"# {config.name}: {config.summary}", table(("", ""), facts.items())]
        again = training_command(config, run.folder)
        lines.append(f"The command that trains it, or goes on with it where it stopped:\n\n```\n{again}\n```")
        return "\n\n".join(lines)

    def losses(self) -> str:
        if not self.run.rows:
            return "No metrics.jsonl lies beside these weights, so that there is no loss curve."
        self.save("loss", loss_curve(self.run.config, self.run.rows, self.run.when))
        averaged, last = self.run.held_out
        text = f"## Loss\n\n![loss](loss.png)\n\nHeld out, {HELD_OUT} test samples: {averaged:.4f} with the averaged "
        told = "." if last is None else f", {last:.4f} with the last step's."
        return f"{text}weights{told}"

    def progress(self) -> str:
        """The sheets that training made after some epochs."""
        told = []
        for epoch in TOLD_EPOCHS:
            made = self.run.folder / "samples" / f"{self.main_picture}-{epoch * self.run.steps_per_epoch:07d}.png"
            if made.is_file() and epoch < self.run.epochs:
                shutil.copyfile(made, self.out / f"{self.main_picture}-epoch-{epoch}.png")
                told.append(f"After epoch {epoch}:\n\n![epoch {epoch}]({self.main_picture}-epoch-{epoch}.png)")
        return "## On the way\n\n" + "\n\n".join(told) if told else ""

    def results(self) -> str:
        for name, picture in self.run.pictures.items():
            self.save(name, picture)
        return "## Results\n\n" + "\n\n".join(f"![{name}]({name}.png)" for name in self.run.pictures)

    def grid(self) -> str:
        """More samples than training shows, where there are no classes to sort them by."""
        config = self.run.config
        if config.source.kind != "gaussian" or config.classes or len(config.shape) == 1 or config.path == "one-step":
            return ""
        self.save("grid", sheets.samples_sheet(self.run.pipeline, self.run.test[0], self.run.when, count=GRID))
        return f"## {GRID} samples\n\n![{GRID} samples](grid.png)"

    def animation(self) -> str:
        sheets.save_gif(drawing(self.run.config).frames(self.run.pipeline, *self.run.test), self.out / "path.gif")
        return "## From source to target\n\n![the way](path.gif)"

    def translated_folder(self) -> str:
        """Test images as files, and what the verb `translate` makes of them."""
        if self.run.config.source.kind in ("gaussian", "noisy") or self.run.config.asked_classes:
            return ""  # noise fits no image file: it leaves [0, 1]
        given, result = self.out / "input", self.out / "translated"
        given.mkdir(exist_ok=True)
        for index, image in enumerate(sheets.shown_sources(self.run.pipeline, self.run.test[0], 16)[0]):
            to_pil(image).save(given / f"{index:02d}.png")
        options = TranslateOptions(pipeline=str(self.run.folder), input=given, output=result)
        translate.run(options, self.run.folder)
        return (
            "## A translated folder\n\n16 test images in [input/](input), as files, and in [translated/](translated)."
        )

    # --- figures -------------------------------------------------------------------------------------

    def denoising_errors(self) -> str:
        if self.run.config.source.kind != "noisy":
            return ""
        found = denoising.denoising_errors(self.run.pipeline, self.run.test[1], self.options.images)
        rows = [(f"{e.sigma:g}", f"{e.noisy:.5f}", f"{e.denoised:.5f}", f"{e.noisy / e.denoised:.3g}") for e in found]
        heading = ("σ", "mean squared error, noisy", "denoised", "lowered by the factor")
        text = f"## Errors\n\nOver {self.options.images} test images, where black is 0 and white is 1.\n\n"
        return text + table(heading, rows)

    def mean_image(self) -> str:
        config = self.run.config
        if config.source.kind != "gaussian" or config.path != "one-step":
            return ""
        found = denoising.compare_with_mean(self.run.pipeline, self.run.test[0], self.run.train[1])
        rows: list[sheets.Row] = [("mean training image", found.mean), ("from noise", found.outputs)]
        self.save("mean", sheets.sheet(rows, sheets.caption(config, self.run.when)))
        figures = {
            "outputs from the mean training image": f"{found.to_mean:.4f}",
            "outputs from their own mean": f"{found.among:.4f}",
            "training images from their mean, for scale": f"{found.digits:.4f}",
        }
        heading = ("root mean square difference, black 0 and white 1", "")
        return f"## The mean image\n\n![mean image](mean.png)\n\n{table(heading, figures.items())}"

    def asked_classes(self) -> str:
        if not self.run.config.asked_classes:
            return ""
        rows = [(f"{w:g}", f"{share:.1%}") for w, share in self.accuracies(self.run)]
        count = self.options.per_label * self.run.config.classes
        text = (
            f"The share of {count} samples, {self.options.per_label} of each class, that a classifier takes for the "
            f"class that was asked; it is right on {self.classifier.accuracy:.2%} of the test images."
        )
        return f"## Is it what was asked?\n\n{text}\n\n{table(('w', 'share'), rows)}"

    def accuracies(self, run: Run) -> list[tuple[float, float]]:
        """(w, share), measured once for each run."""
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
        """Of the target's classes, and the share of the test images that it is right on."""
        config = self.run.config
        return trained_classifier(
            config.target,
            config.shape,
            classes=self.run.train[1].classes,
            data_root=self.options.data_root,
            folder=classifiers_of(weights.results_folder(self.run.folder, config)),
            device=self.run.pipeline.device,
        )

    # --- beside another run --------------------------------------------------------------------------

    def beside(self) -> str:
        """The same source samples through another run, and both runs' figures."""
        usual = BESIDE.get(self.run.config.name)
        other_folder = self.options.beside or (self.run.folder.parent / usual if usual else None)
        if other_folder is None:
            return ""
        if not (other_folder / "model").is_dir():
            return f"## Beside {other_folder.name}\n\nNot shown: {other_folder.name} has not been trained here."
        other = Run.load(other_folder, self.options.data_root)
        self.save("beside", sheets.stacked([next(iter(run.pictures.values())) for run in (other, self.run)]))
        heading = ["run", "epochs", "training minutes", "held-out loss", "last step's weights"]
        heading += [f"asked class, w = {w:g}" for w in GUIDANCE if self.run.config.asked_classes]
        rows = [self.compared(run) for run in (other, self.run)]
        return f"## Beside {other_folder.name}\n\n![beside](beside.png)\n\n{table(heading, rows)}"

    def compared(self, run: Run) -> list[str]:
        row = [run.folder.name, f"{run.epochs:.3g}", f"{run.minutes:.1f}"]
        row += ["" if loss is None else f"{loss:.4f}" for loss in run.held_out]
        if self.run.config.asked_classes:
            asks = run.config.asked_classes
            row += [f"{share:.1%}" for _, share in self.accuracies(run)] if asks else [""] * len(GUIDANCE)
        return row

    def note(self) -> str:
        text = NOTES.get(self.run.config.name)
        return f"## Why\n\n{text}" if text else ""

    # --- helpers -------------------------------------------------------------------------------------

    @property
    def main_picture(self) -> str:
        return "trajectories" if len(self.run.config.shape) == 1 else "samples"

    def save(self, name: str, picture: Image.Image) -> None:
        picture.save(self.out / f"{name}.png")


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def written(config: Any) -> str:
    """A part of the configuration in a line: its kind, then its fields."""
    return ", ".join([config.kind, *(f"{f.name} {getattr(config, f.name)}" for f in fields(config) if f.init)])
