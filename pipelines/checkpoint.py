"""Resume state: `checkpoints/step-NNNNNNN/`, written aside, manifest last, published by one rename.

Tensors are safetensors and the rest is JSON: nothing is ever unpickled. All training randomness is a function
of (seed, step), so there is no generator state to keep.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

MANIFEST = "manifest.json"


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], *, keep: int) -> Path:
    """Publishes `folder/step-NNNNNNN` and then prunes all but the `keep` newest.

    tensors: groups by name, each a flat dict, one file a group; state: what JSON can hold.
    """
    final = folder / f"step-{step:07d}"
    aside = folder / f".{final.name}.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write(aside, step, tensors, state)
        os.replace(aside, final)
    except Exception:  # a full disk, say, which it would keep full
        shutil.rmtree(aside, ignore_errors=True)
        raise
    flush(folder)
    for old in published(folder)[keep:]:
        shutil.rmtree(old)
    return final


def write(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """A checkpoint's files, on the disk when it returns; the manifest vouches for the others."""
    for name, group in tensors.items():
        held = {key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}
        save_file(held, folder / f"{name}.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"step": step, "sha256": hashes}, indent=2))
    for path in (*folder.iterdir(), folder):
        flush(path)


def published(folder: Path) -> list[Path]:
    """The published checkpoints, newest first."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, or None; and what was wrong with each newer one.

    Those are renamed to `broken-step-NNNNNNN`, so that they never count as one that is kept.
    """
    broken: list[str] = []
    for path in published(folder):
        problem = defect(path)
        if problem is None:
            return path, broken
        broken.append(f"{path.name}: {problem}")
        shutil.rmtree(aside := path.with_name(f"broken-{path.name}"), ignore_errors=True)
        path.rename(aside)
    return None, broken


def defect(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        hashes = json.loads((path / MANIFEST).read_text())["sha256"]
        wrong = [name for name, digest in hashes.items() if sha256(path / name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"unreadable ({error!r})"
    return f"{', '.join(wrong)} changed or truncated" if wrong else None


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(tensors, state) as given to `save`."""
    groups = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
    return groups, json.loads((path / "state.json").read_text())


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Forces a file's or a folder's contents onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as one flat dict: "parameter index.name" -> tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": tensor for index, slots in state.items() for name, tensor in slots.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`; learning rates and other settings stay the configuration's."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, slots in optimizer.state.items():
        for name, tensor in slots.items():
            if tensor.shape == parameter.shape:  # in the parameter's layout, which fused steps take for granted
                slots[name] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
