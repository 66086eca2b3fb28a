"""A run in its folder: what is done when. Knows neither devices nor processes, which are the trainer's."""

import logging
import math
from contextlib import suppress

from safetensors import SafetensorError
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from configs.checks import UserError
from pipelines import checkpoint, weights
from pipelines.figures import loss_curve
from pipelines.pictures import drawing
from pipelines.reading import reader_of
from pipelines.record import Record, progress_bar
from pipelines.sheets import save_gif
from pipelines.stop import Asked
from pipelines.trainer import Trainer

log = logging.getLogger("flowferry")

UNWRITABLE = (OSError, SafetensorError)  # a full disk; a folder that is gone, or read-only by now


class NotFinite(RuntimeError):
    """The loss or the gradient is NaN or infinite; the weights were not touched."""


def run(trainer: Trainer) -> int:
    """Trains to the end or until asked to leave; returns the process's exit code."""
    trainer.resume()
    trainer.tell("%s", trainer.describe())
    unshown = to_be_shown(trainer)
    if trainer.progress >= 1 and not unshown:
        trainer.tell(
            "%s is trained to step %d; raise --train.epochs or --train.minutes to go on", trainer.folder, trainer.step
        )
        trainer.part()
        return 0
    trainer.stop.install()
    record = begun(trainer, unfinished=unshown) if trainer.main else None
    bar = progress_bar(trainer.total, trainer.step, shown=trainer.main, name=trainer.config.name)
    try:
        with logging_redirect_tqdm():
            if trainer.config.read_labels:
                learn_to_read(trainer, main=record is not None)
            loop(trainer, record, bar)
        if record is not None:
            record.close()
        trainer.part()
    except (RuntimeError, *UNWRITABLE) as problem:
        return stopped(trainer, problem)
    finally:
        bar.close()
        if record is not None:
            record.abandon()
    return ended(trainer)


def stopped(trainer: Trainer, problem: Exception) -> int:
    """Says in one line what ended the run before its time; raises what was not foreseen. Returns the exit code."""
    step, last = trainer.step, last_checkpoint(trainer)
    if isinstance(problem, NotFinite):
        trainer.tell("stopped at %s", problem)
    elif isinstance(problem, UNWRITABLE):
        trainer.tell("stopped at step %d: %s; last checkpoint: %s", step, problem, last)
    elif isinstance(problem, RuntimeError) and trainer.left_alone(problem):
        log.error("stopped after step %d: another process is gone; last checkpoint: %s", step, last)
    else:
        raise problem
    return 1


def ended(trainer: Trainer) -> int:
    """Says where the run ended. Returns the exit code."""
    if trainer.leaving:
        trainer.tell("stopped by a signal: step %d is saved; the same command goes on from there", trainer.step)
        return 128 + trainer.leaving
    trainer.tell(
        "trained to step %d in %.1f minutes: weights in %s",
        trainer.step,
        trainer.seconds / 60,
        trainer.folder / "model",
    )
    return 0


def begun(trainer: Trainer, *, unfinished: bool) -> Record:
    """The record of the run's folder. Raises UserError where nothing can be written there."""
    told = weights.describe(trainer.config)
    try:
        return Record(trainer.folder, told, step=trainer.step, unfinished=unfinished)
    except OSError as error:
        raise UserError(f"--output-dir: {trainer.folder} cannot be written to ({error.strerror or error})") from error


def last_checkpoint(trainer: Trainer) -> str:
    return str(next(iter(checkpoint.published(trainer.folder / "checkpoints")), "none"))


def dry_run(trainer: Trainer) -> int:
    """One step in memory; says what `run` would train. Writes nothing."""
    trainer.train_step()
    ((_, values),) = trainer.read()
    trainer.tell("%s", trainer.describe())
    told = values["train/loss"], values["train/grad_norm"]
    trainer.tell("one step: loss %.4f, gradient norm %.4f; nothing was written", *told)
    return 0


def learn_to_read(trainer: Trainer, *, main: bool) -> None:
    """What is shown and kept reads labels. Asked to leave while a classifier is trained for it, it breaks off."""
    if main:
        with suppress(Asked), trainer.stop.breaking_off():
            trainer.shown.reader = reader_of(
                trainer.config,
                trainer.folder,
                goes_on=trainer.step > 0,
                data_root=trainer.data_root,
                device=trainer.shown.device,
            )
    trainer.agree()


def loop(trainer: Trainer, record: Record | None, bar: tqdm) -> None:
    """Step by step to the end; reads, shows and saves when it is time to. Raises NotFinite."""
    if to_be_shown(trainer):
        show(trainer, record)
    trainer.start_clock()
    while trainer.progress < 1 and not trainer.leaving:
        trainer.train_step()
        save = due(trainer, trainer.train.checkpoint_epochs) or due_by_step(trainer)
        if not (trainer.readable or save or to_be_shown(trainer)):
            continue
        for step, values in trainer.read():
            told = accepted(trainer, step, values)
            if record is not None:
                record.scalars(step, told)
        done = trainer.progress >= 1
        if to_be_shown(trainer):
            show(trainer, record)
        if done or save or trainer.leaving:
            trainer.save(record)
        bar.total = max(trainer.step, round(trainer.step / trainer.progress))
        bar.set_postfix_str(
            f"loss {values['train/loss']:.4f}, {values['perf/images_per_second']:.0f} images/s",
            refresh=False,
        )
        bar.update(trainer.step - bar.n)
        trainer.start_clock()


def accepted(trainer: Trainer, step: int, values: dict[str, float]) -> dict[str, float]:
    """What is logged of a step; of one that was refused its number is counted. Raises NotFinite if that ends it."""
    loss, norm = values["train/loss"], values["train/grad_norm"]
    # Under fp16 an infinite gradient is how the loss scaler finds its scale: it skips the step by itself.
    if math.isfinite(loss) and (math.isfinite(norm) or trainer.scales_loss):
        return values
    if trainer.train.on_nonfinite == "skip":
        trainer.skipped += 1
        trainer.tell("step %d left out, the %d. so far: loss %g, gradient norm %g", step, trainer.skipped, loss, norm)
        kept = {tag: value for tag, value in values.items() if math.isfinite(value)}
        return kept | {"train/skipped": trainer.skipped}
    raise NotFinite(
        f"step {step}: loss {loss}, gradient norm {norm}; the weights were not touched. "
        f"Last checkpoint: {last_checkpoint(trainer)}. "
        f"Try --train.on-nonfinite skip; or, in another --output-dir, a lower --train.lr (found {trainer.train.lr}) or "
        "--train.clip-norm 1"
    )


def due(trainer: Trainer, epochs: int, *, first: bool = False) -> bool:
    """Whether an epoch has just ended that is a multiple of `epochs`, or the first."""
    epoch, rest = divmod(trainer.step, trainer.steps_per_epoch)
    return rest == 0 and epochs > 0 and (epoch % epochs == 0 or (first and epoch == 1))


def to_be_shown(trainer: Trainer) -> bool:
    """Whether where training is now is to be measured and drawn, and was not yet."""
    last = trainer.progress >= 1 or due(trainer, trainer.train.show_epochs, first=True)
    return last and trainer.step > trainer.shown_at


def due_by_step(trainer: Trainer) -> bool:
    every = trainer.train.checkpoint_steps
    return every > 0 and trainer.step % every == 0


def show(trainer: Trainer, record: Record | None) -> None:
    """Measures, and draws the sheets, always of the same samples; at the end the path too.

    Asked to leave meanwhile, it breaks off, and the next run begins with it.
    """
    if record is not None and not trainer.leaving:
        when = f"epoch {trainer.step / trainer.steps_per_epoch:.3g}, step {trainer.step}"
        shown, what = drawing(trainer.config), (trainer.shown, trainer.test_source, trainer.test_target)
        with suppress(Asked), trainer.stop.breaking_off():
            measured = trainer.validation.measured(trainer.shown)
            pictures = shown.pictures(*what, when)
            frames = shown.frames(*what) if trainer.progress >= 1 else []
            trainer.shown_at = trainer.step
        if trainer.shown_at == trainer.step:
            record.scalars(trainer.step, measured)
            pictures["loss"] = loss_curve(trainer.config, record.rows(), when)
            for name, picture in pictures.items():
                record.picture(trainer.step, name, picture)
            if frames:
                save_gif(frames, trainer.folder / "samples" / "path.gif")
            record.flush()  # last: what is measured is not drawn again
        trainer.model.train()
    trainer.agree()
