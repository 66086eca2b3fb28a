"""The verb `export`: write weights to share, or for another library."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowferry.configs.options import ExportOptions
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.models import sees_source
from flowferry.pipelines.evaluation.results import summary_of
from flowferry.pipelines.flow.paths import PATHS
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage import hub, weights
from flowferry.pipelines.storage.files import copy_aside, prepare_folder, sha256, write_json, write_text
from flowferry.pipelines.storage.hub import find_weights
from flowferry.pipelines.training.logger import read_metrics

log = logging.getLogger("flowferry")


def run(options: ExportOptions) -> int:
    """Write `options.output`, and upload it if `options.push` is set; return the exit code."""
    if options.push and options.format != "flowferry":
        raise UserError(f"--push: got --format {options.format}, expected flowferry")
    folder = find_weights(options.pipeline)
    pipeline = Pipeline.from_pretrained(folder)  # checks that the weights fit
    FORMATS[options.format](pipeline, folder, options)
    log.info("%s: %s for %s", options.output, pipeline.config.name, options.format)
    if options.push:
        log.info("pushed: %s", hub.push(options.output, options.push, private=options.private, token=None))
    return 0


def for_sharing(pipeline: Pipeline, folder: Path, options: ExportOptions) -> None:
    """Write weights and configuration as they are, and a model card."""
    prepare_folder(options.output, "--output")
    for name in (weights.CONFIG, weights.WEIGHTS):
        copy_aside(weights.weights_folder(folder) / name, options.output / name)
    if evaluation_of(folder):
        copy_aside(folder / weights.EVALUATION, options.output / weights.EVALUATION)
    told = hub.card(pipeline.config, measures_of(folder), options.push or str(options.output), pipeline.sampling)
    write_text(options.output / hub.CARD, told)


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


# --- diffusers ------------------------------------------------------------------------------------------


def for_diffusers(pipeline: Pipeline, folder: Path, options: ExportOptions) -> None:
    """Write a DDPMPipeline of our network and a scheduler of diffusers. Loading it needs diffusers and this project."""
    config = pipeline.config
    scheduler, conventions = scheduler_of(config)
    channels, *size = config.shape
    network = {"pipeline": config.to_dict(), "in_channels": channels, "sample_size": size, **conventions}
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["flowferry.pipelines.diffusers_network", "FlowferryNetwork"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
    }
    out = options.output
    prepare_folder(out, "--output")
    write_json(out / "model_index.json", index)
    write_json(out / "scheduler" / "scheduler_config.json", scheduler)
    write_json(out / "unet" / "config.json", {"_class_name": "FlowferryNetwork", **network})
    tensors = {f"network.{name}": tensor for name, tensor in pipeline.model.state_dict().items()}
    weights.save_tensors(out / "unet" / "diffusion_pytorch_model.safetensors", tensors, {})
    write_text(out / hub.CARD, USE.format(name=config.name, out=out, steps=config.solver.num_steps))


def scheduler_of(config: Config) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the scheduler of diffusers that takes our solver's steps, and the conventions that the network needs.

    Raises UserError for a pipeline without such a scheduler.
    """
    if sees_source(config):
        raise UserError(f"--format diffusers: {config.model.kind} sees the source, expected a network that does not")
    if not config.source.is_noise or not config.is_image:
        raise UserError(
            f"--format diffusers: got {config.name} with the source {config.source.kind}, expected images from gaussian"
        )
    choice = config.objective, config.path, config.prediction
    if choice not in SCHEDULERS:
        raise UserError(
            f"--format diffusers: got the objective {config.objective} on the path {config.path} with the prediction "
            f"{config.prediction}, expected flow on linear with velocity, or on ddpm with source"
        )
    return SCHEDULERS[choice](config)


def flow_match_scheduler(config: Config) -> tuple[dict[str, Any], dict[str, int]]:
    """Return diffusers' Euler steps of flow matching, and their conventions.

    Its steps are evenly spaced from σ = 1 to 1/num_train_timesteps: they are ours for as many steps as levels.
    """
    levels, name = config.solver.num_steps, "FlowMatchEulerDiscreteScheduler"
    return {"_class_name": name, "num_train_timesteps": levels, "shift": 1.0}, conventions(levels, 0, -1)


def ddpm_scheduler(config: Config) -> tuple[dict[str, Any], dict[str, int]]:
    """Return diffusers' ancestral sampling of DDPM, and its conventions."""
    levels = PATHS[config.path].levels or 0
    published = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "variance_type": "fixed_large"}
    settings = {"clip_sample": False, "prediction_type": "epsilon", "timestep_spacing": "trailing"}
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": levels, **published, **settings}
    return scheduler, conventions(levels, 1, 1)


def conventions(levels: int, first: int, sign: int) -> dict[str, int]:
    """Return the arguments of `FlowferryNetwork` that depend on the scheduler: levels, first timestep, sign."""
    return {"num_train_timesteps": levels, "first_timestep": first, "sign": sign}


SCHEDULERS: dict[tuple[str, str, str], Callable[[Config], tuple[dict[str, Any], dict[str, int]]]] = {
    ("flow", "linear", "velocity"): flow_match_scheduler,
    ("flow", "ddpm", "source"): ddpm_scheduler,
}
"""By (objective, path, prediction)."""

USE = """\
# {name}, for diffusers

```python
import flowferry.pipelines.diffusers_network  # of flowferry: diffusers imports no module because a folder names it
from diffusers import DiffusionPipeline  # pip install diffusers

pipe = DiffusionPipeline.from_pretrained("{out}")
images = pipe(batch_size=16, num_inference_steps={steps}).images
```
"""

FORMATS: dict[str, Callable[[Pipeline, Path, ExportOptions], None]] = {
    "flowferry": for_sharing,
    "diffusers": for_diffusers,
}
