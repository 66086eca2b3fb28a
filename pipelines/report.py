"""The verb `report`: write index.md with its pictures, a lab report of one run."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields

from flowferry.configs.diff import training_command
from flowferry.configs.options import ReportOptions, TranslateOptions
from flowferry.configs.validation import UserError
from flowferry.datasets.pixels import to_pil
from flowferry.pipelines import denoising_study, translate
from flowferry.pipelines.hardware import describe_machine
from flowferry.pipelines.report_studies import Studies, component_summary, table
from flowferry.pipelines.run_folder import RunFolder
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import copy_aside, prepare_folder, write_png, write_text
from flowferry.pipelines.storage.hub import find_weights
from flowferry.pipelines.training.validation import HELD_OUT
from flowferry.pipelines.visualization import grids
from flowferry.pipelines.visualization.plots import ERROR, OF, loss_curve
from flowferry.pipelines.visualization.select import visuals

log = logging.getLogger("flowferry")

SHOWN_EPOCHS = (1, 5, 10, 15, 20, 50, 100)  # whose sheets are shown, in addition to the last
STUDY, RUN = "denoising-study", "run"
ONLY = dict.fromkeys(("image", "drawing", "labels", "prompt", "embeddings", "guidance", "blur"), STUDY)
ONLY |= dict.fromkeys(("beside", "per_label"), RUN)  # the kind of report by options that the other one does not read
GRID = 128  # samples of an unconditional pipeline


def run(options: ReportOptions) -> int:
    """Write the report of a run; return the exit code."""
    check_options(options)
    folder = find_weights(options.pipeline)
    if options.kind == STUDY:
        out = denoising_study.write(folder, options)
        log.info("study of %s: %s", folder.name, out / "index.md")
        return 0
    loaded = RunFolder.load(folder, options.data_root)
    out = options.output or weights.results_folder(folder, loaded.config) / "report"
    report = Report(loaded, out, options)
    report.write()
    log.info("report of %s: %s", folder.name, report.out / "index.md")
    return 0


def check_options(options: ReportOptions) -> None:
    """Raise UserError for an option that only the other kind of report reads."""
    for field in fields(options):
        kind = ONLY.get(field.name, options.kind)
        if kind != options.kind and (got := getattr(options, field.name)) != field.default:
            told = " ".join(map(str, got)) if isinstance(got, tuple) else got
            raise UserError(f"--{field.name.replace('_', '-')}: got {told}, which is for --kind {kind}, expected none")


class Report(Studies):
    """The sections of a report. Each writes its pictures and returns its Markdown, or ""."""

    def write(self) -> None:
        """Write index.md and its pictures."""
        prepare_folder(self.out, "--output")
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
        write_text(self.out / "index.md", "\n\n".join(told) + "\n")

    # --- what was done -------------------------------------------------------------------------------

    def trained(self) -> str:
        """Tabulate what was trained, and how."""
        run, config = self.run, self.run.config
        parameters = sum(p.numel() for p in run.pipeline.model.parameters())
        data = weights.SYNTHETIC if config.is_synthetic else f"{config.source.kind} → {config.target.kind}"
        size = run.train[1].size
        facts = {
            "data": data + (f", {size:,} training samples" if size else ", endless"),
            "network": f"{component_summary(config.model)}, {parameters:,} parameters",
            "prediction": config.prediction,
            "objective, path, coupling": f"{config.objective}, {config.path}, {config.coupling}",
            "sampling": run.pipeline.sampling,
            "optimizer": f"{config.train.optimizer} {config.train.lr:g}, {config.train.schedule}, "
            f"batch {config.train.batch_size}, average of the weights {config.train.ema}, {config.train.precision}",
            "trained": f"{run.epochs:.3g} of {config.train.epochs} epochs, {run.step:,} steps, "
            f"{run.minutes:.1f} minutes of training",
            "final loss": f"{run.final_loss:.4f}, the mean of the last 100 steps ({ERROR[run.config.train.loss]} "
            f"{OF[config.prediction]})",
            "this report's machine": describe_machine(),
        }
        lines = [f"# {config.name}: {config.summary}", table(("", ""), facts.items())]
        again = training_command(config, run.folder)
        lines.append(f"The command that trains it, or goes on with it where it stopped:\n\n```\n{again}\n```")
        return "\n\n".join(lines)

    def losses(self) -> str:
        """Show the loss curve and the held-out losses."""
        if not self.run.rows:
            return "No metrics.jsonl lies beside these weights, so that there is no loss curve."
        self.save("loss", loss_curve(self.run.config, self.run.rows, self.run.when))
        averaged, last = self.run.held_out
        text = f"## Loss\n\n![loss](loss.png)\n\nHeld out, {HELD_OUT} test samples: {averaged:.4f} with the averaged "
        told = "." if last is None else f", {last:.4f} with the last step's."
        return f"{text}weights{told}"

    def progress(self) -> str:
        """Show the sheets that training drew after some epochs."""
        told = []
        for epoch in SHOWN_EPOCHS:
            made = self.run.folder / "samples" / f"{self.main_picture}-{epoch * self.run.steps_per_epoch:07d}.png"
            if made.is_file() and epoch < self.run.epochs:
                copy_aside(made, self.out / f"{self.main_picture}-epoch-{epoch}.png")
                told.append(f"After epoch {epoch}:\n\n![epoch {epoch}]({self.main_picture}-epoch-{epoch}.png)")
        return "## On the way\n\n" + "\n\n".join(told) if told else ""

    def results(self) -> str:
        """Show the pictures that training draws."""
        for name, picture in self.run.pictures.items():
            self.save(name, picture)
        return "## Results\n\n" + "\n\n".join(f"![{name}]({name}.png)" for name in self.run.pictures)

    def grid(self) -> str:
        """Show more samples than training does, where there are no classes to sort them by."""
        config = self.run.config
        one_step = self.run.pipeline.objective.max_steps == 1
        if not config.source.is_noise or config.num_classes or not config.is_image or one_step:
            return ""
        self.save("grid", grids.samples_sheet(self.run.pipeline, self.run.test[0], self.run.when, count=GRID))
        return f"## {GRID} samples\n\n![{GRID} samples](grid.png)"

    def animation(self) -> str:
        """Show the samples on their way."""
        grids.save_gif(visuals(self.run.config).frames(self.run.pipeline, *self.run.test), self.out / "path.gif")
        return "## From source to target\n\n![the way](path.gif)"

    def translated_folder(self) -> str:
        """Translate test images as files, with the verb `translate`."""
        source = self.run.config.source
        if source.is_noise or source.from_target or self.run.config.asked_classes:
            return ""  # noise does not fit an image file: it exceeds [-1, 1]
        given, result = self.out / "input", self.out / "translated"
        images, _ = grids.shown_sources(self.run.pipeline, self.run.test[0], 16)
        for index, image in enumerate(images):
            write_png(given / f"{index:02d}.png", to_pil(image))
        options = TranslateOptions(pipeline=str(self.run.folder), input=given, destination=str(result))
        translate.run(options)
        return (
            f"## A translated folder\n\n{len(images)} test images in [input/](input), as files, and in "
            "[translated/](translated)."
        )

    @property
    def main_picture(self) -> str:
        """The name of the picture that training draws after each epoch."""
        return "samples" if self.run.config.is_image else "trajectories"
