"""How a run ends: its last line and its exit code."""

import logging
from pathlib import Path

from safetensors import SafetensorError

from flowferry.configs.validation import BrokenOff
from flowferry.datasets.bad_files import BadFiles
from flowferry.pipelines.training.distributed import Processes
from flowferry.pipelines.training.nonfinite import NonFinite
from flowferry.pipelines.training.progress import Progress

log = logging.getLogger("flowferry")

UNWRITABLE = (OSError, SafetensorError)  # a full disk; a folder that is gone, or read-only by now


def report_failure(problem: Exception, progress: Progress, last: Path | None, processes: Processes) -> int:
    """Log in one line what ended the run early, and return the exit code; re-raise what was not expected.

    last: the newest checkpoint.
    """
    step, saved = progress.step, last or "none"
    if isinstance(problem, NonFinite):
        processes.log_main("stopped at %s. Last checkpoint: %s", problem, saved)
    elif isinstance(problem, BadFiles):
        message = "stopped after step %d: %s. Last checkpoint: %s; the same command goes on there"
        processes.log_main(message, step, problem, saved)
    elif isinstance(problem, UNWRITABLE):
        processes.log_main("stopped at step %d: %s; last checkpoint: %s", step, problem, saved)
    elif processes.is_peer_failure(problem):
        log.error("stopped after step %d: another process is gone; last checkpoint: %s", step, saved)
    else:
        raise problem
    return BrokenOff.exit_code if isinstance(problem, UNWRITABLE) else 1


def report_finish(folder: Path, progress: Progress, processes: Processes) -> int:
    """Log where the run in `folder` ended, and return the exit code."""
    if signal := processes.leaving:
        processes.log_main("stopped by a signal: step %d is saved; the same command resumes there", progress.step)
        return 128 + signal
    paused = progress.clock.paused / 60
    message = "trained to step %d in %.1f minutes, %.1f of them for evaluations and checkpoints: weights in %s"
    processes.log_main(message, progress.step, progress.clock.seconds / 60 + paused, paused, folder / "model")
    return 0
