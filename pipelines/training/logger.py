"""The log of a run: `metrics.jsonl`, TensorBoard and a progress bar, with the same names everywhere."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from flowferry.configs.validation import UserError
from flowferry.pipelines.storage.files import write_aside, write_json, write_png

FLUSH_EVERY = 50  # steps


class RunLogger:
    """The metrics and pictures of one run folder after `step`; what a killed run logged beyond it is removed.

    unfinished: more will be logged for `step` itself, so that its line is opened again.
    """

    def __init__(self, folder: Path, description: dict[str, Any], *, step: int, unfinished: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", description)
        (folder / "samples").mkdir(exist_ok=True)
        remove_later_pictures(folder / "samples", step)
        self._path = folder / "metrics.jsonl"
        rows = [row for row in read_metrics(self._path) if row["step"] <= step]
        write_metrics(self._path, rows)
        self._metrics = self._path.open("a")
        last = next((row for row in rows if unfinished and row["step"] == step), {})
        self._opened_again = bool(last)
        self._lines = {step: {tag: last[tag] for tag in last if tag != "step"}} if last else {}
        wait_for_later_name(folder / "tensorboard")
        first = step if unfinished else step + 1
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first, flush_secs=30)
        if step == 0:
            self._writer.add_text("config", f"```json\n{json.dumps(description, indent=2)}\n```", 0)

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log tag -> value for one step: one line of `metrics.jsonl`, to which the newest step may add more."""
        if step not in self._lines and len(self._lines) >= FLUSH_EVERY:
            self.flush()
        self._lines.setdefault(step, {}).update({tag: float(value) for tag, value in values.items()})

    def log_picture(self, step: int, name: str, image: Image.Image) -> None:
        """Write a picture as `samples/NAME.png`, the newest, as `samples/NAME-STEP.png`, and to TensorBoard."""
        for file in (f"{name}-{step:07d}.png", f"{name}.png"):
            write_png(self.folder / "samples" / file, image)
        self._writer.add_image(f"samples/{name}", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def rows(self) -> list[dict[str, float]]:
        """Return all that has been logged, as it will stand in `metrics.jsonl`."""
        written = [row for row in read_metrics(self._path) if row["step"] not in self._lines]
        return written + self._unwritten()

    def _unwritten(self) -> list[dict[str, float]]:
        return [{"step": step, **values} for step, values in self._lines.items()]

    def flush(self) -> None:
        """Write what was logged, to TensorBoard first: the next run does not repeat what is in `metrics.jsonl`."""
        for step, values in self._lines.items():
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()
        if self._opened_again:  # the old line stays in the file until its replacement is whole
            write_metrics(self._path, self.rows())
            self._metrics.close()
            self._metrics, self._opened_again = self._path.open("a"), False
        else:
            self._metrics.writelines(json.dumps(row) + "\n" for row in self._unwritten())
            self._metrics.flush()
        self._lines.clear()

    def close(self) -> None:
        """Write what is left and close the files."""
        self.flush()
        self.abandon()

    def abandon(self) -> None:
        """Write what is left, if it still can be written, and close the files; a second call does nothing."""
        if self._metrics.closed:
            return
        for last in (self.flush, self._metrics.close, self._writer.close):
            with suppress(OSError):
                last()


def remove_later_pictures(folder: Path, step: int) -> None:
    """Remove the pictures NAME-STEP.png of steps after `step`, which a killed run drew and no checkpoint covers."""
    for picture in folder.glob("*-???????.png"):
        number = picture.stem.rpartition("-")[2]
        if number.isdigit() and int(number) > step:
            picture.unlink()


def open_logger(folder: Path, description: dict[str, Any], *, step: int, unfinished: bool) -> RunLogger:
    """Return the log of a run's folder. Raises UserError if it cannot be written to."""
    try:
        return RunLogger(folder, description, step=step, unfinished=unfinished)
    except OSError as error:
        raise UserError(f"--output-dir: {folder} cannot be written to ({error.strerror or error})") from error


def wait_for_later_name(folder: Path) -> None:
    """Wait until a new event file sorts last: TensorBoard orders them by name, which begins with the second."""
    while any(folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
        time.sleep(0.05)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a `metrics.jsonl`, up to the first line that is cut short or malformed."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


def last_evaluated(path: Path) -> int:
    """Return the last step with an evaluation in a `metrics.jsonl`; 0 where there is none."""
    return max((int(row["step"]) for row in read_metrics(path) if "eval/loss" in row), default=0)


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """Replace a `metrics.jsonl` atomically."""
    write_aside(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def progress_bar(total: int, start: int, *, shown: bool, name: str) -> tqdm:
    """Return the progress bar of a run, which only the main process shows."""
    return tqdm(
        total=total,
        initial=start,
        disable=not shown,
        desc=name,
        unit="step",
        dynamic_ncols=True,
        smoothing=0.05,
    )


def show_progress(bar: tqdm, step: int, expected_total: int, values: Mapping[str, float]) -> None:
    """Move the bar to `step` of `expected_total`, beside the loss and the speed of the last step."""
    bar.total = expected_total
    speed = values["perf/images_per_second"]
    bar.set_postfix_str(f"loss {values['train/loss']:.4f}, {speed:.0f} images/s", refresh=False)
    bar.update(step - bar.n)
