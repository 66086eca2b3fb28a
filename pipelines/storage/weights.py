"""Weights that can be shared: safetensors that describe themselves, beside their configuration. No pickle."""

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from flowferry.configs.locations import BEST, RUNS
from flowferry.configs.schema import Config, read_config
from flowferry.configs.validation import UserError
from flowferry.pipelines.storage import diffusers_folder
from flowferry.pipelines.storage.files import write_aside, write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EVALUATION = "evaluation.json"  # what `evaluate` measured of them
VERSION = version("flowferry")
FORMAT = "2"  # of names in configuration and metadata; version 1 is still read (configs/renames.py)
DECISIVE = ("model", "shape", "num_classes", "infer_labels", "objective", "path", "prediction")
"""The entries of a configuration that say how its tensors are used."""
BLOCK = 1 << 20  # bytes to read at a time
SYNTHETIC = "synthetic stand-ins (--quick), not the real data sets"


def describe(config: Config) -> dict[str, Any]:
    """Return the contents of a `config.json`: version, real or synthetic data, and the configuration to train again."""
    return {"flowferry": VERSION, "data": SYNTHETIC if config.is_synthetic else "real", "config": config.to_dict()}


def metadata(config: Config, step: int) -> dict[str, str]:
    """Return the metadata with which the weights file can be used alone: names, shapes and ranges, as strings."""
    return {
        "flowferry": VERSION,
        "format_version": FORMAT,
        "pipeline": config.name,
        "source": config.source.kind,
        "target": config.target.kind,
        "data": SYNTHETIC if config.is_synthetic else "real",
        "model": json.dumps(asdict(config.model)),
        "objective": config.objective,
        "path": config.path,
        "prediction": config.prediction,
        "time": "0 at the source, 1 at the target",
        "value_range": "[-1, 1]" if config.is_image else "real numbers",
        "shape": json.dumps(config.shape),
        "channels": str(config.shape[0]),
        "num_classes": str(config.num_classes),
        "infers_labels": json.dumps(config.infer_labels),
        "step": str(step),
    }


def save(folder: Path, config: Config, tensors: dict[str, Tensor], *, step: int) -> None:
    """Write weights and configuration into `folder`; a reader never sees half of either file."""
    save_tensors(folder / WEIGHTS, tensors, metadata(config, step))
    write_json(folder / CONFIG, describe(config))


def save_tensors(path: Path, tensors: dict[str, Tensor], description: dict[str, str], *, shared: bool = False) -> None:
    """Write a safetensors file with metadata. Equal tensors and metadata give equal bytes.

    shared: several runs may write it at the same time.
    """
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = with_sorted_metadata(to_bytes(on_cpu, metadata={"format": "pt", **description}))
    write_aside(path, data, shared=shared)


def with_sorted_metadata(data: bytes) -> bytes:
    """Return a safetensors file with its metadata in alphabetical order; safetensors writes it in random order.

    The file is 8 bytes of the header's length, a header in JSON that spaces pad to a multiple of 8, and the tensors.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[8 + length :]])


def load(folder: Path) -> tuple[Config, dict[str, Tensor]]:
    """Return the configuration and the tensors saved in `folder` or in its `model/`.

    Raises UserError where there are none, or where a file is broken.
    """
    inner = weights_folder(folder)
    check_whole(inner / WEIGHTS)
    return read_config(inner / CONFIG), load_file(inner / WEIGHTS)


def check_whole(file: Path) -> None:
    """Raise UserError where a file is not a whole safetensors file."""
    try:
        with safe_open(file, "pt"):
            pass
    except SafetensorError as error:
        raise UserError(f"{file} is not a whole safetensors file: {error}") from error


def step_of(folder: Path) -> int:
    """Return how many steps the weights in `folder` were trained for."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        return int((file.metadata() or {}).get("step", 0))


def weights_folder(folder: Path) -> Path:
    """Return `folder` or its `model/`, whichever holds the weights. Raises UserError where neither does."""
    inner = folder / "model" if (folder / "model" / WEIGHTS).is_file() else folder
    if not (inner / WEIGHTS).is_file():
        raise UserError(f"no weights in {folder}: expected a run folder, or one with {CONFIG} and {WEIGHTS}")
    return inner


def results_folder(folder: Path, config: Config) -> Path:
    """Return where results of the weights in `folder` are written: in their run, or in runs/NAME without a run.

    Those of the best weights of a run are written beside them.
    """
    if diffusers_folder.is_diffusers(folder):
        return RUNS / config.name
    return folder if weights_folder(folder) != folder or folder.name == BEST else RUNS / config.name


def digest(folder: Path) -> str:
    """Return a SHA-256 of the tensors in `folder`, and of what the configuration says about how they are used.

    It is the same however often, by which version and for how many steps they were saved, and wherever the data lay:
    metadata and the rest of the configuration decide no result. Nor does it know solver, steps and guidance, which are
    chosen for each use, nor options of the network at their defaults, to which later versions add some.
    """
    if diffusers_folder.is_diffusers(folder):
        return diffusers_folder.digest(folder)
    inner = weights_folder(folder)
    config = read_config(inner / CONFIG)
    told = {name: value for name, value in config.to_dict().items() if name in DECISIVE}
    usual = asdict(type(config.model)()) | {"kind": None}
    told["model"] = {name: value for name, value in told["model"].items() if value != usual[name]}
    told |= {"source": config.source.kind, "target": config.target.kind, "grid_power": config.solver.grid_power}
    found = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    check_whole(inner / WEIGHTS)
    with (inner / WEIGHTS).open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        header.pop("__metadata__", None)
        for name, tensor in sorted(header.items()):
            found.update(json.dumps([name, tensor["dtype"], tensor["shape"]]).encode())
            first, end = tensor["data_offsets"]
            file.seek(start + first)
            for position in range(first, end, BLOCK):
                found.update(file.read(min(BLOCK, end - position)))
    return found.hexdigest()


def load_strictly(model: nn.Module, tensors: dict[str, Tensor], *, what: str) -> None:
    """Load every tensor of the model and no other, each of its shape and finite.

    A model on the meta device takes the tensors as its own, in its own precision. Raises UserError naming `what` and
    the tensors that do not fit.
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
        listed = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names)
        raise UserError(f"the weights in {what} do not fit the network: {listed}")
    cast = {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}
    model.load_state_dict(cast, assign=any(tensor.is_meta for tensor in wanted.values()))


def to_half(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in half precision, for half the file; integers stay.

    BatchNorm's variances fit: they are far from 65,504 and from 6e-8.
    """
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
