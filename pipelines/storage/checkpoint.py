"""Resume state: `checkpoints/step-NNNNNNN/`, written aside, manifest last, published by one rename.

Tensors are safetensors and the rest is JSON: nothing is ever unpickled. All training randomness is a function
of (seed, step), so there is no generator state to keep.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowferry.pipelines.storage.files import flush, sha256

MANIFEST = "manifest.json"


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], *, keep: int) -> Path:
    """Publish `folder/step-NNNNNNN`, in place of one that is there, return it, and prune all but the `keep` newest.

    tensors: groups by name, each a flat dict, one file per group; state: what JSON can hold.
    """
    final = folder / f"step-{step:07d}"
    aside = folder / f".{final.name}.part"
    for left_by_a_kill in folder.glob(".step-*.part"):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write(aside, step, tensors, state)
        if final.exists():
            os.replace(final, folder / f".{final.name}.old.part")
        os.replace(aside, final)
    except Exception:  # such as a full disk, which the rest of the checkpoint would keep full
        shutil.rmtree(aside, ignore_errors=True)
        raise
    flush(folder)
    for old in (*published(folder)[keep:], *folder.glob(".step-*.old.part")):
        shutil.rmtree(old)
    return final


def write(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Write a checkpoint's files and flush them to the disk; the manifest, written last, vouches for the others."""
    for name, group in tensors.items():
        held = {key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}
        save_file(held, folder / f"{name}.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"step": step, "sha256": hashes}, indent=2))
    for path in (*folder.iterdir(), folder):
        flush(path)


def published(folder: Path) -> list[Path]:
    """Return the published checkpoints, newest first."""
    found = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the newest whole checkpoint, or None, and what was wrong with each newer one.

    Broken ones are renamed to `broken-step-NNNNNNN`, so that they never count as one that is kept.
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
    """Return what is wrong with a checkpoint, or None."""
    try:
        hashes = json.loads((path / MANIFEST).read_text())["sha256"]
        wrong = [name for name, digest in hashes.items() if sha256(path / name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"unreadable ({error!r})"
    return f"{', '.join(wrong)} changed or truncated" if wrong else None


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return (tensors, state) as given to `save`."""
    groups = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
    return groups, json.loads((path / "state.json").read_text())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as one flat dict: "parameter index.name" -> tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": tensor for index, slots in state.items() for name, tensor in slots.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Invert `optimizer_tensors`; learning rates and other settings stay the configuration's."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, slots in optimizer.state.items():
        for name, tensor in slots.items():
            if tensor.shape == parameter.shape:  # fused steps assume that the state has the parameter's memory layout
                slots[name] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
