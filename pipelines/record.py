"""What a run tells: `metrics.jsonl`, TensorBoard and a progress bar, with the same names everywhere."""

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

from pipelines.weights import write_aside, write_json

FLUSH_EVERY = 50  # steps


class Record:
    """The scalars and pictures of one run folder, from `step` on: what a killed run wrote past it is taken back.

    unfinished: more will be told of `step` itself, whose line is opened again.
    """

    def __init__(self, folder: Path, description: dict[str, Any], *, step: int, unfinished: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", description)
        (folder / "samples").mkdir(exist_ok=True)
        self._path = folder / "metrics.jsonl"
        rows = [row for row in read_metrics(self._path) if row["step"] <= step]
        write_metrics(self._path, rows)
        self._metrics = self._path.open("a")
        last = next((row for row in rows if unfinished and row["step"] == step), {})
        self._opened_again = bool(last)
        self._lines = {step: {tag: last[tag] for tag in last if tag != "step"}} if last else {}
        wait_for_a_later_name(folder / "tensorboard")
        first = step if unfinished else step + 1
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first, flush_secs=30)
        if step == 0:
            self._writer.add_text("config", f"```json\n{json.dumps(description, indent=2)}\n```", 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Tag -> value, for one step: one line of `metrics.jsonl`, to which the newest step may be given more."""
        if step not in self._lines and len(self._lines) >= FLUSH_EVERY:
            self.flush()
        self._lines.setdefault(step, {}).update({tag: float(value) for tag, value in values.items()})

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """As `samples/NAME.png`, the newest, `samples/NAME-STEP.png`, and in TensorBoard."""
        image.save(self.folder / "samples" / f"{name}-{step:07d}.png")
        image.save(self.folder / "samples" / f"{name}.png")
        self._writer.add_image(f"samples/{name}", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def rows(self) -> list[dict[str, float]]:
        """All that was told so far, as `metrics.jsonl` will have it."""
        written = [row for row in read_metrics(self._path) if row["step"] not in self._lines]
        return written + self._unwritten()

    def _unwritten(self) -> list[dict[str, float]]:
        return [{"step": step, **values} for step, values in self._lines.items()]

    def flush(self) -> None:
        """To TensorBoard first: what `metrics.jsonl` has is not told again by the next run."""
        for step, values in self._lines.items():
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()
        if self._opened_again:  # the line stays in the file until the one that is to replace it is whole
            write_metrics(self._path, self.rows())
            self._metrics.close()
            self._metrics, self._opened_again = self._path.open("a"), False
        else:
            self._metrics.writelines(json.dumps(row) + "\n" for row in self._unwritten())
            self._metrics.flush()
        self._lines.clear()

    def close(self) -> None:
        self.flush()
        self.abandon()

    def abandon(self) -> None:
        """Writes what is left, if it still can be written, and lets go of the files. Once."""
        if self._metrics.closed:
            return
        for last in (self.flush, self._metrics.close, self._writer.close):
            with suppress(OSError):
                last()


def wait_for_a_later_name(folder: Path) -> None:
    """TensorBoard reads its files in the order of their names, which begin with the second they were made in."""
    while any(folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
        time.sleep(0.05)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, up to one that was cut short by a kill or is none."""
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


def last_measured(path: Path) -> int:
    """The last step with an evaluation in a `metrics.jsonl`; 0: none."""
    return max((int(row["step"]) for row in read_metrics(path) if "eval/loss" in row), default=0)


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """In place of what is there, at once."""
    write_aside(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def progress_bar(total: int, start: int, *, shown: bool, name: str) -> tqdm:
    return tqdm(
        total=total,
        initial=start,
        disable=not shown,
        desc=name,
        unit="step",
        dynamic_ncols=True,
        smoothing=0.05,
    )
