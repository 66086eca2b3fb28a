"""The format `flowferry`: weights and configuration as they are, and a model card with what was measured of them."""

import json
from pathlib import Path
from typing import Any

from flowferry.pipelines.evaluation.results import summary_of
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage import hub, weights
from flowferry.pipelines.storage.files import copy_aside, prepare_folder, sha256, write_text
from flowferry.pipelines.training.logger import read_metrics


def for_sharing(pipeline: Pipeline, folder: Path, output: Path, address: str) -> None:
    """Write weights and configuration as they are, and a model card that says to load them from `address`."""
    prepare_folder(output, "--output")
    for name in (weights.CONFIG, weights.WEIGHTS):
        copy_aside(weights.weights_folder(folder) / name, output / name)
    if evaluation_of(folder):
        copy_aside(folder / weights.EVALUATION, output / weights.EVALUATION)
    told = hub.card(pipeline.config, measures_of(folder), address, pipeline.sampling)
    write_text(output / hub.CARD, told)


def measures_of(folder: Path) -> dict[str, float | str]:
    """Return figures of these weights by name, from the run's log and evaluation; empty without a run."""
    rows = read_metrics(folder / "metrics.jsonl")
    told: dict[str, float | str] = {}
    if losses := [row["eval/loss"] for row in rows if "eval/loss" in row]:
        told = {"training steps": rows[-1]["step"], "held-out loss": losses[-1]}
    if result := evaluation_of(folder):
        told |= {"samples": result["count"], "their sampling": result["sampling"]}
        if isinstance(features := result.get("features"), dict):
            told["features"] = f"of the {summary_of(features)}"
        told |= {name: value for name, value in result.get("target", {}).items() if "share" not in name}
        if "frechet" in told:
            told["frechet of as many real images"] = result["real"]["frechet"]
        told |= result["translation"]
    return told


def evaluation_of(folder: Path) -> dict[str, Any] | None:
    """Return the `evaluation.json` beside these weights; None where there is none, or it is of other weights."""
    evaluation = folder / weights.EVALUATION
    result: dict[str, Any] = json.loads(evaluation.read_text()) if evaluation.is_file() else {}
    recorded = result.get("weights_sha256")
    file = weights.weights_folder(folder) / weights.WEIGHTS
    of_these = recorded and (recorded == weights.digest(folder) or recorded == sha256(file))  # once, of the whole file
    return result if of_these else None
