"""Print what `list` shows: the named pipelines, and which of them have trained weights."""

import json
from pathlib import Path

from flowferry.configs.locations import RUNS, SHIPPED
from flowferry.configs.presets import PIPELINES
from flowferry.configs.terminal import escaped


def table() -> str:
    """Return a line for each named pipeline, then which are shipped with weights and which are trained here."""
    rows = [("pipeline", "source → target", "network", "")]
    rows += [(c.name, f"{c.source.kind} → {c.target.kind}", c.model.kind, c.summary) for c in PIPELINES.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows
    ]
    shipped = sorted(path.parent for path in SHIPPED.glob("*/model.safetensors"))
    trained = sorted(path.parent.parent for path in RUNS.glob("*/model/model.safetensors"))
    lines += ["", "shipped with trained weights: " + ", ".join(path.name + cost_label(path) for path in shipped)]
    runs = ", ".join(run_label(path) + cost_label(path) for path in trained) or "none yet"
    lines.append(f"trained in {RUNS}/ (used before shipped weights): {runs}")
    return "\n".join(lines)


def cost_label(folder: Path) -> str:
    """Return what a result costs, as `evaluate` found it; empty where it did not."""
    try:
        return f" (NFE {json.loads((folder / 'evaluation.json').read_text())['nfe']:d})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def run_label(run: Path) -> str:
    """Return the run's name, with a remark where its data is synthetic."""
    try:
        real = json.loads((run / "config.json").read_text())["data"] == "real"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{escaped(run.name)} (config.json unreadable)"
    return escaped(run.name) if real else f"{escaped(run.name)} (synthetic data)"
