"""What `list` prints."""

import json
from pathlib import Path

from configs.places import RUNS, SHIPPED
from configs.presets import PIPELINES


def table() -> str:
    """A line for each named pipeline, then one for each run in `runs/` with weights."""
    rows = [("pipeline", "source → target", "network", "")]
    rows += [(c.name, f"{c.source.kind} → {c.target.kind}", c.model.kind, c.summary) for c in PIPELINES.values()]
    trained = sorted(path.parent.parent for path in RUNS.glob("*/model/model.safetensors"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows
    ]
    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/model.safetensors"))
    lines += ["", "shipped with trained weights: " + ", ".join(shipped)]
    lines += [
        f"trained in {RUNS}/ (used before shipped weights): "
        + (", ".join(told(path) for path in trained) or "none yet")
    ]
    return "\n".join(lines)


def told(run: Path) -> str:
    """The run's name, and whether its data was drawn."""
    try:
        real = json.loads((run / "config.json").read_text())["data"] == "real"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{run.name} (config.json unreadable)"
    return run.name if real else f"{run.name} (drawn data)"
