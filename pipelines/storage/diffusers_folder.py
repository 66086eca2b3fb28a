"""Read a folder of the library diffusers: a UNet, the scheduler that it was trained with, and what else it names.

Weights are read from safetensors alone. diffusers is imported where it is needed: flowferry[pretrained].
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch

from flowferry.configs.validation import UserError
from flowferry.pipelines.storage import files

INDEX = "model_index.json"
UNETS, SCHEDULERS = ("UNet2DModel", "UNet2DConditionModel"), ("DDPMScheduler", "DDIMScheduler")
FETCHED = ["unet/*", "scheduler/*", "image_noising_scheduler/*", "scheduler_config.json", "diffusion_pytorch_model*"]
FETCHED_FOR_TEXT = ["text_encoder/*", "tokenizer/*"]
NOT_FETCHED = ["*.bin", "*.pt", "*.ckpt", "*.msgpack", "*.onnx", "*.h5", "*.fp16.*", "*.non_ema.*"]
INSTALL = "pip install 'flowferry[pretrained]'"


class Components(NamedTuple):
    """What is in the folder, as objects of diffusers."""

    unet: Any
    scheduler: Any
    noising: Any
    """The scheduler of the noise on images that are to be enlarged; None where none are."""


def is_diffusers(folder: Path) -> bool:
    """Return whether a folder holds a pipeline of diffusers."""
    return (folder / INDEX).is_file()


def name_of(folder: Path) -> str:
    """Return the name of a folder; of a copy in the hub's cache, that of the repository."""
    if folder.parent.name == "snapshots":
        return folder.parents[1].name.rpartition("--")[2]
    return folder.resolve().name


def load(folder: Path, dtype: torch.dtype) -> Components:
    """Load a folder, the UNet in `dtype`. Raises UserError for what is not installed, not supported or not there."""
    try:
        import diffusers
    except ImportError:
        raise UserError(f"{folder} is a pipeline of diffusers, which is not installed: {INSTALL}") from None
    index = read_index(folder)
    unet, scheduler = class_of(folder, index, "unet", UNETS), class_of(folder, index, "scheduler", SCHEDULERS)
    if "vae" in index:
        raise UserError(f"{folder}: got a pipeline with a VAE, expected one that works on pixels")
    options: Any = {"use_safetensors": True, "torch_dtype": dtype, "variant": variant_of(component(folder, "unet"))}
    try:
        noising = index.get("image_noising_scheduler")
        return Components(
            getattr(diffusers, unet).from_pretrained(component(folder, "unet"), low_cpu_mem_usage=True, **options),
            getattr(diffusers, scheduler).from_pretrained(component(folder, "scheduler")),
            noising and diffusers.DDPMScheduler.from_pretrained(component(folder, "image_noising_scheduler")),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: diffusers cannot load it: {' '.join(str(error).split())}") from error


def read_index(folder: Path) -> dict[str, Any]:
    """Return the contents of its index. Raises UserError where it is broken."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        return dict(index)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder / INDEX} is not an index of diffusers: {error}") from error


def class_of(folder: Path, index: dict[str, Any], part: str, able: tuple[str, ...]) -> str:
    """Return the class that the index names for a part. Raises UserError unless it is among the `able` ones."""
    entry = index.get(part)
    name = entry[-1] if isinstance(entry, list) and entry else None
    if name not in able:
        raise UserError(f"{folder}: got the {part} {name}, expected {' or '.join(able)}")
    return str(name)


def component(folder: Path, part: str) -> Path:
    """Return the folder of a part: its own, or in old pipelines the folder itself."""
    return folder / part if (folder / part).is_dir() else folder


def variant_of(folder: Path) -> str | None:
    """Return "fp16" where a part has its weights in half precision alone, else None."""
    names = [file.name for file in folder.glob("*.safetensors")]
    return "fp16" if names and all(".fp16" in name for name in names) else None


def digest(folder: Path) -> str:
    """Return a SHA-256 of the files that decide what its UNet answers and on which path."""
    parts = [component(folder, part) for part in ("unet", "scheduler", "image_noising_scheduler")]
    found = {file for part in parts for ending in ("*.safetensors", "*.json") for file in part.glob(ending)}
    told = sorted((file.relative_to(folder).as_posix(), files.sha256(file)) for file in found | {folder / INDEX})
    return sha256(json.dumps(told).encode()).hexdigest()
