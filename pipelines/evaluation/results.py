"""Show and save what `evaluate` measured: a table, `evaluation.json` with its figure, and TensorBoard's scalars."""

import json
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from flowferry.pipelines.storage.files import write_json, write_png, writing
from flowferry.pipelines.storage.weights import EVALUATION

FIGURE = "evaluation.png"
TAGS = {
    "target": "evaluation",
    "translation": "evaluation",
    "real": "evaluation of real samples",
    "shuffled": "evaluation of shuffled pairs",
}


def save(result: dict[str, Any], picture: Image.Image | None, output: Path) -> None:
    """Write the result to `evaluation.json`, its figure and TensorBoard. Raises BrokenOff where that fails."""
    write_json(output / EVALUATION, result)
    (output / FIGURE).unlink(missing_ok=True)  # of an earlier evaluation
    if picture:
        write_png(output / FIGURE, picture)
    step, events = result["step"], output / "tensorboard"
    with writing(events), SummaryWriter(str(events)) as writer:
        writer.add_text("evaluation", indent(json.dumps(result, indent=2), " " * 4), step)
        for group, tag in TAGS.items():
            for name, value in result.get(group, {}).items():
                writer.add_scalar(f"{tag}/{name.replace(' ', '_')}", value, step)
        if picture:
            writer.add_image("evaluation/cost", np.asarray(picture), step, dataformats="HWC")


def table(result: dict[str, Any]) -> str:
    """Return the figures as text, each beside that of real samples or of shuffled pairs."""
    features = result.get("features")
    through = (
        f"classifier {features['sha256'][:8]}, right on {features['accuracy']:.2%}"
        if isinstance(features, dict)
        else features
    )
    lines = [
        f"{result['pipeline']}: {result['count']:,} samples, {result['sampling']}, "
        f"{result['timing']['milliseconds an image']:.2f} ms an image",
        f"features: {through or 'the points themselves'}",
    ]
    for title, group, other in (
        ("target", "target", "real"),
        ("translation", "translation", "shuffled"),
    ):
        if group in result:
            lines.append(f"\n{title:<22}{'results':>12}{other:>12}")
            lines += [f"{name:<22}{value:>12.4g}{result[other][name]:>12.4g}" for name, value in result[group].items()]
    if "cost" in result:
        lines.append(f"\n{'cost':<12}{'steps':>6}{'NFE':>6}{'Fréchet':>12}")
        lines += [f"{c['solver']:<12}{c['steps']:>6}{c['nfe']:>6}{c['frechet']:>12.4g}" for c in result["cost"]]
    return "\n".join(lines)
