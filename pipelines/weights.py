"""Weights that can be shared: safetensors that describe themselves, beside the configuration. No pickle."""

import hashlib
import json
import os
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from configs.checks import UserError
from configs.places import RUNS
from configs.schema import Config, read_config

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EVALUATION = "evaluation.json"  # what `evaluate` measured of them
VERSION = version("flowferry")
DRAWN = "drawn stand-ins (--quick), not the real data sets"


def describe(config: Config) -> dict[str, Any]:
    """The contents of a `config.json`: what it is, in words, and the configuration that trains it again."""
    return {
        "flowferry": VERSION,
        "data": DRAWN if config.drawn else "real",
        "config": config.to_dict(),
    }


def metadata(config: Config, step: int) -> dict[str, str]:
    """What a reader of the weights file alone needs to know to use it."""
    return {
        "flowferry": VERSION,
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
        "reads_labels": json.dumps(config.read_labels),
        "step": str(step),
    }


def save(folder: Path, config: Config, tensors: dict[str, Tensor], *, step: int) -> None:
    """Each file is written aside and renamed, so that a reader never sees half of one."""
    save_tensors(folder / WEIGHTS, tensors, metadata(config, step))
    write_json(folder / CONFIG, describe(config))


def save_tensors(path: Path, tensors: dict[str, Tensor], told: dict[str, str]) -> None:
    """A safetensors file with its metadata, aside and renamed."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_aside(path, to_bytes(held, metadata={"format": "pt", **told}))


def write_json(path: Path, data: Any) -> None:
    write_aside(path, (json.dumps(data, indent=2) + "\n").encode())


def write_aside(path: Path, data: bytes) -> None:
    """Written beside and renamed, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def load(folder: Path) -> tuple[Config, dict[str, Tensor]]:
    """Configuration and tensors saved in `folder` or in its `model/`."""
    inner = located(folder)
    try:
        return read_config(inner / CONFIG), load_file(inner / WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"{inner / WEIGHTS} is not a whole safetensors file: {error}") from error


def step_of(folder: Path) -> int:
    """How many steps the weights in `folder` were trained for."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        return int((file.metadata() or {}).get("step", 0))


def located(folder: Path) -> Path:
    """`folder` or its `model/`, whichever holds the weights. Raises UserError where neither does."""
    inner = folder / "model" if (folder / "model" / WEIGHTS).is_file() else folder
    if not (inner / WEIGHTS).is_file():
        raise UserError(f"no weights in {folder}: accepted is a run folder, or one with {CONFIG} and {WEIGHTS}")
    return inner


def results_folder(folder: Path, config: Config) -> Path:
    """Where results of the weights in `folder` go: to their run, or to runs/NAME for weights that came without one."""
    return folder if located(folder) != folder else RUNS / config.name


def digest(folder: Path) -> str:
    """SHA-256 of the weights and of the configuration beside them."""
    inner = located(folder)
    return hashlib.sha256((inner / WEIGHTS).read_bytes() + (inner / CONFIG).read_bytes()).hexdigest()


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], *, what: str) -> None:
    """Every tensor of the model, no other, each of its shape and finite; otherwise UserError names the culprits.

    A model on the meta device takes the tensors as its own, in its own precision.
    """
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
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(cast, assign=any(tensor.is_meta for tensor in wanted.values()))
