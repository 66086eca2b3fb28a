"""The verb `export`: weights to be shared, and weights for another library."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.checks import UserError
from configs.cli import ExportOptions
from configs.schema import Config
from pipelines import hub, weights
from pipelines.checkpoint import sha256
from pipelines.paths import PATHS
from pipelines.pipeline import Pipeline
from pipelines.record import read_metrics

log = logging.getLogger("flowferry")


def run(options: ExportOptions, folder: Path) -> int:
    """Writes `options.output`, and uploads it if asked."""
    if options.push and options.format != "flowferry":
        raise UserError(f"--push: found --format {options.format}, accepted is flowferry")
    pipeline = Pipeline.from_pretrained(folder)  # checks that the weights fit
    FORMATS[options.format](pipeline, folder, options)
    log.info("%s: %s for %s", options.output, pipeline.config.name, options.format)
    if options.push:
        log.info("pushed: %s", hub.push(options.output, options.push, private=options.private, token=None))
    return 0


def for_sharing(pipeline: Pipeline, folder: Path, options: ExportOptions) -> None:
    """Weights and configuration as they are, and a model card."""
    options.output.mkdir(parents=True, exist_ok=True)
    for name in (weights.CONFIG, weights.WEIGHTS):
        shutil.copyfile(weights.located(folder) / name, options.output / name)
    if evaluated(folder):
        shutil.copyfile(folder / weights.EVALUATION, options.output / weights.EVALUATION)
    told = hub.card(pipeline.config, measured(folder), options.push or str(options.output))
    weights.write_aside(options.output / hub.CARD, told.encode())


def measured(folder: Path) -> dict[str, float | str]:
    """What a run's log and its evaluation say of these weights; nothing where only the weights were kept."""
    rows = read_metrics(folder / "metrics.jsonl")
    told: dict[str, float | str] = {}
    if losses := [row["eval/loss"] for row in rows if "eval/loss" in row]:
        told = {"training steps": rows[-1]["step"], "held-out loss": losses[-1]}
    if result := evaluated(folder):
        told |= {"samples": result["count"], "their sampling": result["sampling"]}
        if isinstance(features := result.get("features"), dict):
            told["features"] = f"of the classifier {features['sha256'][:12]}, right on {features['accuracy']:.2%}"
        told |= {name: value for name, value in result.get("target", {}).items() if "share" not in name}
        if "frechet" in told:
            told["frechet of as many real images"] = result["real"]["frechet"]
        told |= result["translation"]
    return told


def evaluated(folder: Path) -> dict[str, Any] | None:
    """What `evaluate` wrote beside these weights; None where it has not, or measured others."""
    file = folder / weights.EVALUATION
    result: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    ours = result.get("weights_sha256") == sha256(weights.located(folder) / weights.WEIGHTS)
    return result if ours else None


# --- diffusers ------------------------------------------------------------------------------------------


def for_diffusers(pipeline: Pipeline, folder: Path, options: ExportOptions) -> None:
    """A DDPMPipeline of our network and their scheduler. Needs no diffusers here; loading it needs this project too."""
    config = pipeline.config
    scheduler, conventions = scheduler_of(config)
    channels, *size = config.shape
    network = {"pipeline": config.to_dict(), "in_channels": channels, "sample_size": size, **conventions}
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["pipelines.diffusers_network", "FlowferryNetwork"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
    }
    out = options.output
    weights.write_json(out / "model_index.json", index)
    weights.write_json(out / "scheduler" / "scheduler_config.json", scheduler)
    weights.write_json(out / "unet" / "config.json", {"_class_name": "FlowferryNetwork", **network})
    tensors = {f"network.{name}": tensor for name, tensor in pipeline.model.state_dict().items()}
    weights.save_tensors(out / "unet" / "diffusion_pytorch_model.safetensors", tensors, {})
    weights.write_aside(out / hub.CARD, USE.format(name=config.name, out=out, steps=config.solver.steps).encode())


def scheduler_of(config: Config) -> tuple[dict[str, Any], dict[str, int]]:
    """Their scheduler that runs our sampler, and what a network has to know of its conventions.

    Raises UserError for a pipeline that has none.
    """
    if config.source.kind != "gaussian" or len(config.shape) != 3:
        raise UserError(f"--format diffusers: {config.name} starts from {config.source.kind}, accepted: image noise")
    if (config.path, config.prediction) == ("linear", "velocity"):
        # Their steps are evenly spaced from σ = 1 to 1/num_train_timesteps: ours, where that is the number of steps.
        levels, name = config.solver.steps, "FlowMatchEulerDiscreteScheduler"
        return {"_class_name": name, "num_train_timesteps": levels, "shift": 1.0}, conventions(levels, 0, -1)
    if (config.path, config.prediction) == ("ddpm", "source"):
        levels = PATHS["ddpm"].levels or 0
        published = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "variance_type": "fixed_large"}
        how = {"clip_sample": False, "prediction_type": "epsilon", "timestep_spacing": "trailing"}
        scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": levels, **published, **how}
        return scheduler, conventions(levels, 1, 1)
    raise UserError(
        f"--format diffusers: found the path {config.path} with the prediction {config.prediction}, "
        "accepted: linear with velocity, ddpm with source"
    )


def conventions(levels: int, first: int, sign: int) -> dict[str, int]:
    return {"num_train_timesteps": levels, "first_timestep": first, "sign": sign}


USE = """\
# {name}, for diffusers

```python
import pipelines.diffusers_network  # of flowferry: diffusers imports no module because a folder names it
from diffusers import DiffusionPipeline  # pip install diffusers

pipe = DiffusionPipeline.from_pretrained("{out}")
images = pipe(batch_size=16, num_inference_steps={steps}).images
```
"""

FORMATS: dict[str, Callable[[Pipeline, Path, ExportOptions], None]] = {
    "flowferry": for_sharing,
    "diffusers": for_diffusers,
}
