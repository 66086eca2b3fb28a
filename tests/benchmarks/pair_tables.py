"""What the benchmark of pairs writes: results.json, table.md, the held-out names and a sheet of results."""

from argparse import Namespace
from typing import Any

import torch
from pair_tasks import Data, spaced
from torch import Tensor

from flowferry.pipelines.hardware import describe_machine
from flowferry.pipelines.storage.files import write_json, write_png, write_text
from flowferry.pipelines.visualization.grids import sheet

SHOWN = 12  # pairs on the sheet
TILE = 128  # pixels, which images on the sheet are about as large as, at least
COLUMNS = {
    "psnr": ("PSNR", ".2f"),
    "psnr of the best": ("best of {variants}", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "l1": ("L1", ".2f"),
    "perceptual": ("perceptual", ".3f"),
    "sharpness": ("sharpness", ".2f"),
    "saturation": ("saturation", ".2f"),
    "frechet of thumbnails": ("Fréchet, 8×8", ".3f"),
    "frechet of features": ("Fréchet, encoder", ".3f"),
    "retrieval": ("own truth nearest", ".1%"),
    "nfe": ("NFE", ".0f"),
    "minutes": ("minutes", ".1f"),
    "training steps": ("steps", ",.0f"),
    "images/s": ("images/s", ",.0f"),
    "parameters": ("parameters", ",.0f"),
}
"""The columns of the table: of each figure, its heading and its form."""


def cell(values: list[float], form: str) -> str:
    """Return the mean of a figure over the seeds, and its least and largest value; nothing for no values."""
    if not values:
        return ""
    mean, *ends = (f"{value:{form}}" for value in (sum(values) / len(values), min(values), max(values)))
    return mean if ends[0] == ends[1] else f"{mean} ({ends[0]}–{ends[1]})"


class Results:
    """The rows of a comparison, which are written whenever one is added."""

    def __init__(self, options: Namespace, everything: Data, data: Data) -> None:
        self.options, self.data = options, data
        self.folder = options.output / options.task
        self.rows: list[dict[str, Any]] = []
        self.pictures: list[tuple[str, Tensor]] = [("source", self.shown(data.source))]
        self.folder.mkdir(parents=True, exist_ok=True)
        held_out = self.folder / "held-out.txt"
        write_text(held_out, "".join(f"{name}\n" for name in everything.names))
        self.about = {
            "command": options.command,
            "machine": describe_machine(),
            "threads": options.threads or "all cores",
            "minutes": options.minutes,
            "training pairs": everything.train[0].size,
            "held-out pairs": len(everything.names),
            "held-out targets nearly alike to one that is trained on": everything.twins(),
            "measured pairs": len(data.names),
        }
        for name, value in self.about.items():
            print(f"{name}: {value}")
        print(f"held out are the names in {held_out}", flush=True)

    def shown(self, images: Tensor) -> Tensor:
        """Return those of the held-out images that are on the sheet."""
        return images[spaced(len(images), SHOWN)]

    def add(self, label: str, seed: int, figures: dict[str, float], results: Tensor | None = None) -> None:
        """Add a row, and a row of pictures if it is of the first seed; write all files."""
        self.rows.append({"entry": label, "seed": seed, **figures})
        print(f"{label}, seed {seed}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)
        if results is not None and seed == self.options.seeds[0] and not torch.equal(results, self.data.source):
            self.pictures.append((label, self.shown(results)))
        write_json(self.folder / "results.json", {**self.about, "rows": self.rows})
        write_text(self.folder / "table.md", self.markdown())
        told = f"{self.options.task}: {SHOWN} held-out pairs, evenly spaced; {self.options.minutes:g} minutes each"
        rows = [*self.pictures, ("truth", self.shown(self.data.truth))]
        write_png(self.folder / "sheet.png", sheet(rows, told, scale=max(2, TILE // self.data.truth.shape[-1])))

    def markdown(self) -> str:
        """Return the table: the mean over the seeds, and the least and largest value where they differ."""
        by_label: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            by_label.setdefault(row["entry"], []).append(row)
        known = {name: told for name, told in COLUMNS.items() if any(name in row for row in self.rows)}
        lines = ["| | " + " | ".join(heading.format(**vars(self.options)) for heading, _ in known.values()) + " |"]
        lines.append("|---" * (1 + len(known)) + "|")
        for label, rows in by_label.items():
            cells = [cell([row[name] for row in rows if name in row], form) for name, (_, form) in known.items()]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        told = ", ".join(f"{name} {value}" for name, value in self.about.items() if name != "command")
        return "\n".join([f"    {self.options.command}", "", told, "", *lines, ""])
