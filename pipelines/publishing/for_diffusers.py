"""The format `diffusers`: our network and a scheduler of diffusers, for DiffusionPipeline.from_pretrained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.models import sees_source
from flowferry.pipelines.flow.paths import PATHS
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage import hub, weights
from flowferry.pipelines.storage.files import prepare_folder, write_json, write_text


def for_diffusers(pipeline: Pipeline, folder: Path, output: Path, address: str) -> None:
    """Write a DDPMPipeline of our network and a scheduler of diffusers. Loading it needs diffusers and this project."""
    config = pipeline.config
    scheduler, conventions = scheduler_of(config)
    channels, *size = config.shape
    network = {"pipeline": config.to_dict(), "in_channels": channels, "sample_size": size, **conventions}
    network["has_weaker"] = pipeline.weaker is not None
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["flowferry.pipelines.diffusers_network", "FlowferryNetwork"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
    }
    prepare_folder(output, "--output")
    write_json(output / "model_index.json", index)
    write_json(output / "scheduler" / "scheduler_config.json", scheduler)
    write_json(output / "unet" / "config.json", {"_class_name": "FlowferryNetwork", **network})
    tensors = pipeline.model.state_dict(prefix="network.")
    tensors |= {} if pipeline.weaker is None else pipeline.weaker.state_dict(prefix="weaker.")
    weights.save_tensors(output / "unet" / "diffusion_pytorch_model.safetensors", tensors, {})
    write_text(output / hub.CARD, USE.format(name=config.name, address=address, steps=config.solver.num_steps))


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

pipe = DiffusionPipeline.from_pretrained("{address}")
images = pipe(batch_size=16, num_inference_steps={steps}).images
```
"""
