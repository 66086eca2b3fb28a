"""Show and save what `evaluate` measured: a table, `evaluation.json` with its figure, and TensorBoard's scalars."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from flowferry.pipelines.evaluation.pairs import OF_SOURCE
from flowferry.pipelines.storage.files import copy_aside, write_json, write_png
from flowferry.pipelines.storage.weights import EVALUATION

FIGURE = "evaluation.png"
NEARER = 0.95  # an error counts as less than another below this share of it
TAGS = {
    "target": "evaluation",
    "translation": "evaluation",
    "real": "evaluation of real samples",
    "shuffled": "evaluation of shuffled pairs",
    "untranslated": "evaluation of the source",
    "variants": "evaluation of variants",
}
SECTIONS = {"target": ("real", "untranslated"), "translation": ("shuffled",), "variants": ("beside",)}
"""Each section of the table, and what stands beside its figures."""


def save(result: dict[str, Any], picture: Image.Image | None, output: Path) -> None:
    """Write the result to `evaluation.json`, its figure and TensorBoard. Raises BrokenOff where that fails.

    TensorBoard writes in a thread of its own, which cannot tell of a full disk. So it writes elsewhere first.
    """
    write_json(output / EVALUATION, result)
    (output / FIGURE).unlink(missing_ok=True)  # of an earlier evaluation
    if picture:
        write_png(output / FIGURE, picture)
    step = result["step"]
    with TemporaryDirectory() as elsewhere:
        with SummaryWriter(elsewhere) as writer:
            writer.add_text("evaluation", indent(json.dumps(result, indent=2), " " * 4), step)
            for group, tag in TAGS.items():
                for name, value in result.get(group, {}).items():
                    writer.add_scalar(f"{tag}/{name.replace(' ', '_')}", value, step)
            if picture:
                writer.add_image("evaluation/cost", np.asarray(picture), step, dataformats="HWC")
        for events in Path(elsewhere).iterdir():
            copy_aside(events, output / "tensorboard" / events.name)


def summary_of(features: dict[str, Any]) -> str:
    """Return in a few words which network the features are of."""
    if "accuracy" in features:
        return f"classifier {features['sha256'][:12]}, right on {features['accuracy']:.2%}"
    return f"encoder {features['sha256'][:12]}, trained on {features['trained on']}"


def cell(column: dict[str, float], name: str) -> str:
    """Return a figure of a column of the table, blank where it has none."""
    return f"{column[name]:>14.4g}" if name in column else " " * 14


def notes(result: dict[str, Any]) -> list[str]:
    """Return what the figures say against the results, in words: where the untouched source does as well."""
    kept, target, copied = result["translation"], result.get("target", {}), result.get("untranslated", {})
    errors: dict[str, Callable[[float], float]] = {
        "psnr": lambda x: 10 ** (-x / 10),
        "ssim": lambda x: 1 - x,
        "l1": float,
        "perceptual": float,
    }
    no_nearer = [
        f"{name} {kept[name]:.4g}, of the source {kept[name + OF_SOURCE]:.4g}"
        for name, error in errors.items()
        if name + OF_SOURCE in kept and error(kept[name]) > NEARER * error(kept[name + OF_SOURCE])
    ]
    told = []
    if no_nearer:
        told.append(f"NOTE: the results are no nearer to their truth than the source is: {'; '.join(no_nearer)}")
    if "frechet" in copied and target["frechet"] > NEARER * copied["frechet"]:
        figures = f"frechet {target['frechet']:.4g}, of the source {copied['frechet']:.4g}"
        told.append(f"NOTE: the results are no more like the target's images than the source is: {figures}")
    if (found := kept.get(partner := "partner found")) is not None and found <= kept[partner + OF_SOURCE]:
        figures = f"{found:.1%}, of the source {kept[partner + OF_SOURCE]:.1%}"
        told.append(f"NOTE: the results lead to their partners no more often than the source does: {figures}")
    return told


def table(result: dict[str, Any]) -> str:
    """Return the figures as text, each beside what it is to be held against."""
    features = result.get("features")
    through = summary_of(features) if isinstance(features, dict) else features
    lines = [
        f"{result['pipeline']}: {result['count']:,} samples, {result['sampling']}, "
        f"{result['timing']['milliseconds an image']:.2f} ms an image",
        f"features: {through or 'the points themselves'}",
    ]
    for group, others in SECTIONS.items():
        columns = [result.get(group, {}), *(result.get(other, {}) for other in others)]
        copied = {name: value for name, value in columns[0].items() if name.endswith(OF_SOURCE)}
        columns.append({name.removesuffix(OF_SOURCE): value for name, value in copied.items()})
        if columns[0]:
            titles = ["results", *(other for other in others if other in result), *(["source"] if copied else [])]
            lines.append(f"\n{group:<24}" + "".join(f"{title:>14}" for title in titles))
            rows = [name for name in columns[0] if name not in copied]
            lines += [f"{name:<24}{''.join(cell(column, name) for column in columns)}".rstrip() for name in rows]
    among = result.get("among", {})
    lines += [f"{name}: the nearest of {count:,}, by chance {1 / count:.2%}" for name, count in among.items()]
    lines += [f"\n{note}" for note in result.get("notes", [])]
    if "cost" in result:
        lines.append(f"\n{'cost':<12}{'steps':>6}{'NFE':>6}{'Fréchet':>12}")
        lines += [f"{c['solver']:<12}{c['steps']:>6}{c['nfe']:>6}{c['frechet']:>12.4g}" for c in result["cost"]]
    return "\n".join(lines)
