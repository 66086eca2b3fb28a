"""The verb `train`: the loop that resumes, takes steps, reads their results, evaluates and saves."""

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from flowferry.configs.locations import classifier_folder
from flowferry.configs.options import TrainOptions
from flowferry.configs.schema import Config
from flowferry.datasets.bad_files import BadFiles
from flowferry.pipelines import inspect_pairs
from flowferry.pipelines.evaluation.classifier import label_classifier_of
from flowferry.pipelines.storage import weights
from flowferry.pipelines.training import few_images, image_lists
from flowferry.pipelines.training.batches import steps_per_epoch
from flowferry.pipelines.training.checkpoints import Checkpoints
from flowferry.pipelines.training.data import load as load_data
from flowferry.pipelines.training.distributed import Processes
from flowferry.pipelines.training.endings import UNWRITABLE, report_failure, report_finish
from flowferry.pipelines.training.folder_choices import with_folder_choices
from flowferry.pipelines.training.logger import RunLogger, open_logger, progress_bar, show_progress
from flowferry.pipelines.training.nonfinite import Metrics, NonFinite, check_finite
from flowferry.pipelines.training.pending import PendingSteps
from flowferry.pipelines.training.progress import Progress
from flowferry.pipelines.training.schedules import learning_rate
from flowferry.pipelines.training.signals import Interrupted
from flowferry.pipelines.training.step import TrainStep
from flowferry.pipelines.training.teacher import with_teacher_hash
from flowferry.pipelines.training.validation import Validation
from flowferry.pipelines.visualization.grids import save_gif
from flowferry.pipelines.visualization.plots import loss_curve
from flowferry.pipelines.visualization.select import visuals

log = logging.getLogger("flowferry")


def run(options: TrainOptions) -> int:
    """Train, inspect the pairs, or try one step; return the process's exit code."""
    if options.inspect:
        return inspect_pairs.run(options.config, options.folder, data_root=options.data_root)
    trainer = Trainer(options.config, options.folder, data_root=options.data_root, dry_run=options.dry_run)
    if options.dry_run:
        return trainer.dry_run()
    with trainer.processes.alone_in(options.folder):
        return trainer.run(allow_changed_data=options.allow_changed_data)


class Trainer:
    """The training loop of one run folder; what happens on the device is up to `TrainStep`.

    Raises UserError if the configuration, the data and the machine do not fit together.
    """

    def __init__(self, config: Config, folder: Path, *, data_root: Path, dry_run: bool = False) -> None:
        self.folder, self.data_root, self.processes = folder, data_root, Processes(config.train)
        config = with_folder_choices(config, folder, partial(self.processes.log_main, "%s"))
        self.config = config = self.processes.on_main(partial(with_teacher_hash, config))
        data = load_data(config, folder, data_root, self.processes, dry_run=dry_run)
        self.test = data.test
        self.train_step = TrainStep(config, self.processes.accelerator, *data.pairs, start=data.start, real=data.target)
        self.eval_pipeline = self.train_step.eval_pipeline
        self.validation = Validation(
            config, data.target, data.test, data_root, classifier_folder(folder), data.held_out
        )
        self.progress = Progress(config.train, steps_per_epoch(config.train, data.pairs[1]))
        self.pending = PendingSteps(config.train.batch_size)
        self.checkpoints = Checkpoints(folder, config, data.images)
        self.logger: RunLogger | None = None  # on the main process alone

    # --- the run -------------------------------------------------------------------------------------

    def run(self, *, allow_changed_data: bool = False) -> int:
        """Train to the end, or until a signal asks to stop; return the process's exit code."""
        parts = self.processes, self.train_step, self.progress
        self.checkpoints.resume(*parts, allow_changed_data=allow_changed_data)
        self.pending.clock = self.progress.clock
        self.processes.log_main("%s", self.describe())
        if note := few_images.note(self.config, self.progress, self.train_step.target.size):
            self.processes.log_main("%s", note)
        if self.progress.is_done and not self.progress.should_evaluate():
            advice = "raise --train.epochs or --train.minutes to go on"
            self.processes.log_main("%s is trained to step %d; %s", self.folder, self.progress.step, advice)
            self.processes.shutdown()
            return 0
        self.processes.signals.install()
        if self.processes.is_main:
            step, unfinished = self.progress.step, self.progress.should_evaluate()
            self.logger = open_logger(self.folder, weights.describe(self.config), step=step, unfinished=unfinished)
        bar = progress_bar(self.progress.total, self.progress.step, shown=self.processes.is_main, name=self.config.name)
        try:
            with logging_redirect_tqdm():
                self.fit_networks()
                self.loop(bar)
            if self.logger is not None:
                self.logger.close()
            self.processes.shutdown()
        except (BadFiles, RuntimeError, *UNWRITABLE) as problem:
            reason = self.rescue(problem) if isinstance(problem, BadFiles) else problem
            return report_failure(reason, self.progress, self.checkpoints.last, self.processes)
        finally:
            bar.close()
            if self.logger is not None:
                self.logger.abandon()
        return report_finish(self.folder, self.progress, self.processes)

    def loop(self, bar: tqdm) -> None:
        """Take steps to the end; read, evaluate and save when due. Raises NonFinite."""
        progress = self.progress
        self.pending.restart_clock()
        if progress.should_evaluate():  # a signal left it to this run
            self.evaluate()
            self.pending.pause()
            if self.config.train.best and progress.is_done:
                self.save()
        while not (progress.is_done or self.processes.leaving):
            self.advance()
            save = progress.should_save()
            if not (self.pending.is_readable or save or progress.should_evaluate()):
                continue
            values = self.read_steps()
            show_progress(bar, progress.step, progress.expected_total, values)
            save = save or progress.is_done
            if progress.should_evaluate():
                self.evaluate()
                self.pending.pause()
            if save or self.processes.leaving:
                self.save()
            self.pending.pause()
        progress.clock = self.pending.clock

    def advance(self) -> None:
        """Take one step, whose result stays on the device until `read_steps`."""
        lr = learning_rate(self.config.train, self.progress.step, self.progress.fraction)
        result = self.train_step.take(self.progress.step, lr=lr)
        self.progress.step += 1
        if 0 < self.config.train.weaker_share <= self.progress.fraction and self.eval_pipeline.weaker is None:
            self.train_step.keep_weaker()
        self.pending.add(self.progress.step, lr, result)

    def read_steps(self) -> Metrics:
        """Read and log the pending steps, and agree on whether to stop; return the last one's metrics."""
        rows = self.pending.pop_metrics()
        self.sync_state()
        self.log_steps(rows)
        return rows[-1][1]

    def log_steps(self, rows: list[tuple[int, Metrics]]) -> None:
        """Log steps by their numbers. Raises NonFinite where one ends the run."""
        train, scales_loss, progress = self.config.train, self.train_step.scales_loss, self.progress
        for step, values in rows:
            checked = check_finite(step, values, train, scales_loss=scales_loss, skipped=progress.skipped)
            if checked is not values:
                progress.skipped += 1
                result = values["train/loss"], values["train/grad_norm"]
                message = "step %d skipped (%d so far): loss %g, gradient norm %g"
                self.processes.log_main(message, step, progress.skipped, *result)
            if self.logger is not None:
                self.logger.log_metrics(step, checked)

    def sync_state(self) -> None:
        """Agree with the other processes on whether to stop, and on the time so far."""
        self.progress.clock = self.processes.sync_state(self.pending.clock)

    def dry_run(self) -> int:
        """Take one step in memory and log what `run` would train. Writes nothing. Returns the exit code."""
        self.advance()
        values = self.read_steps()
        self.processes.log_main("%s", self.describe())
        result = values["train/loss"], values["train/grad_norm"]
        self.processes.log_main("one step: loss %.4f, gradient norm %.4f; nothing was written", *result)
        return 0

    # --- evaluating, saving, resuming ----------------------------------------------------------------

    def evaluate(self) -> None:
        """Measure and draw, always the same samples; at the end a GIF, too. A signal leaves this to the next run."""
        if self.logger is not None and not self.processes.leaving:
            step, when = self.progress.step, self.progress.when
            draw, subject = visuals(self.config), (self.eval_pipeline, *self.test)
            with suppress(Interrupted), self.processes.signals.interruptible():
                figures = self.validation.measure(self.eval_pipeline)
                pictures = draw.pictures(*subject, when)
                frames = draw.frames(*subject) if self.progress.is_done else []
                self.progress.evaluated_at = step
            if self.progress.evaluated_at == step:
                self.logger.log_metrics(step, figures)
                self.checkpoints.best.keep(figures, self.eval_pipeline, step)
                pictures["loss"] = loss_curve(self.config, self.logger.rows(), when)
                for name, picture in pictures.items():
                    self.logger.log_picture(step, name, picture)
                if frames:
                    save_gif(frames, self.folder / "samples" / "path.gif")
                self.logger.flush()  # last, because the next run does not draw again what was logged here
        self.train_step.model.train()
        self.sync_state()
        if not self.processes.leaving:
            self.progress.evaluated_at = self.progress.step  # on all processes, which evaluate together

    def fit_networks(self) -> None:
        """Load or train the label classifier, and the network that evaluations see by. A signal interrupts it."""
        if self.processes.is_main:
            with suppress(Interrupted), self.processes.signals.interruptible():
                if self.config.infer_labels:
                    where: Any = {"data_root": self.data_root, "device": self.eval_pipeline.device}
                    resumed = self.progress.step > 0
                    classifier = label_classifier_of(self.config, self.folder, resumed=resumed, **where)
                    self.eval_pipeline.label_classifier = classifier
                self.validation.prepare()
        self.sync_state()

    def save(self) -> None:
        """Save the run, and wait until that is done."""
        if self.processes.is_main:
            self.write()
        self.processes.accelerator.wait_for_everyone()

    def write(self) -> None:
        """Write the log, the weights, and last the checkpoint, whose presence means that all of them are complete."""
        if self.logger is not None:
            self.logger.flush()
        self.eval_pipeline.save_pretrained(self.folder / "model", step=self.progress.step)
        self.checkpoints.save(self.train_step, replace(self.progress, clock=self.pending.clock))

    def rescue(self, problem: BadFiles) -> Exception:
        """Save the steps that were taken before `problem` came up; return it, or what prevented that.

        The other processes are not waited for: maybe the file can be read on their disks, and they train on.
        """
        try:
            self.log_steps(self.pending.pop_metrics())
            self.progress.clock = self.pending.clock
            image_lists.forget_sizes(self.checkpoints.images, self.config, problem.folders)
            if self.processes.is_main and self.progress.step > 0:
                self.write()
        except (NonFinite, *UNWRITABLE) as worse:
            return worse
        return problem

    def describe(self) -> str:
        """Return what is about to be trained, in one line."""
        data_and_network, length = self.train_step.describe(), self.progress.describe()
        return f"{self.config.name}: {data_and_network}; {length}; {self.processes.describe()}"
