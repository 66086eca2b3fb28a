"""Weights that can be shared: safetensors that describe themselves, beside the configuration. No pickle."""

import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from configs.schema import Config, UserError

DRAWN = "drawn stand-ins (--quick), not the real data sets"


def describe(config: Config) -> dict[str, Any]:
    """The contents of a `config.json`: what it is, in words, and the configuration that trains it again."""
    return {
        "flowferry": version("flowferry"),
        "data": DRAWN if config.drawn else "real",
        "config": config.to_dict(),
    }


def metadata(config: Config, step: int) -> dict[str, str]:
    """What a reader of the weights file alone needs to know to use it."""
    return {
        "format": "pt",
        "flowferry": version("flowferry"),
        "pipeline": config.name,
        "source": config.source.kind,
        "target": config.target.kind,
        "data": DRAWN if config.drawn else "real",
        "model": json.dumps(asdict(config.model)),
        "path": config.path,
        "prediction": config.prediction,
        "time": "0 at the source, 1 at the target",
        "value_range": "[-1, 1]" if len(config.shape) == 3 else "real numbers",
        "shape": json.dumps(config.shape),
        "channels": str(config.shape[0]),
        "classes": str(config.classes),
        "step": str(step),
    }


def save(folder: Path, config: Config, tensors: dict[str, Tensor], *, step: int) -> None:
    """Each file is written aside and renamed, so that a reader never sees half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "model.safetensors.part", metadata=metadata(config, step))
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
    write_json(folder / "config.json", describe(config))


def write_json(path: Path, data: Any) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(data, indent=2) + "\n")
    os.replace(part, path)


def read_config(path: Path) -> Config:
    """The configuration in a `config.json` of a run or of saved weights."""
    try:
        data = json.loads(path.read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a configuration: {error!r}") from error
    return Config.from_dict(data)


def load(folder: Path) -> tuple[Config, dict[str, Tensor]]:
    """Configuration and tensors saved in `folder` or in its `model/`."""
    inner = folder / "model" if (folder / "model" / "model.safetensors").is_file() else folder
    if not (inner / "model.safetensors").is_file():
        raise UserError(
            f"no weights in {folder}: accepted is a run folder, or one with config.json and model.safetensors"
        )
    try:
        return read_config(inner / "config.json"), load_file(inner / "model.safetensors")
    except SafetensorError as error:
        raise UserError(f"{inner / 'model.safetensors'} is not a whole safetensors file: {error}") from error


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], *, what: str) -> None:
    """Every tensor of the model, no other, each of its shape and finite; otherwise UserError names the culprits."""
    wanted = model.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "misshapen": [
            f"{name} {list(tensors[name].shape)} for {list(wanted[name].shape)}"
            for name in wanted.keys() & tensors.keys()
            if tensors[name].shape != wanted[name].shape
        ],
        "not finite": [
            name for name, tensor in tensors.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()
        ],
    }
    if any(problems.values()):
        told = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names)
        raise UserError(f"the weights in {what} do not fit the network: {told}")
    model.load_state_dict(tensors)
