"""What a run tells: `metrics.jsonl`, TensorBoard and a progress bar, with the same names everywhere."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from pipelines.weights import write_json

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
        first = step if unfinished else step + 1
        self._lines = taken_back(folder / "metrics.jsonl", first, until=step)
        self._metrics = (folder / "metrics.jsonl").open("a")
        wait_for_a_later_name(folder / "tensorboard")
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
        """All lines of `metrics.jsonl` so far."""
        self.flush()
        return read_metrics(self.folder / "metrics.jsonl")

    def flush(self) -> None:
        for step, values in self._lines.items():
            self._metrics.write(json.dumps({"step": step, **values}) + "\n")
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
        self._lines.clear()
        self._metrics.flush()
        self._writer.flush()

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


def taken_back(path: Path, step: int, *, until: int) -> dict[int, dict[str, float]]:
    """Takes the lines of `step` and later out of a `metrics.jsonl`; returns those of them up to `until`."""
    rows = read_metrics(path)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] < step))
    os.replace(part, path)
    held = [row for row in rows if step <= row["step"] <= until]
    return {int(row["step"]): {tag: value for tag, value in row.items() if tag != "step"} for row in held}


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
