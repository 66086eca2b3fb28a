"""Fetch weights from the Hugging Face hub and share them there: safetensors and JSON with a model card. No pickle."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, snapshot_download
from huggingface_hub.errors import HFValidationError

from flowferry.configs.diff import training_command
from flowferry.configs.labels import class_names_of
from flowferry.configs.locations import HUB_NAME, RUNS, trained_folder
from flowferry.configs.names import numbered
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.pipelines.storage.diffusers_folder import FETCHED, FETCHED_FOR_TEXT, INDEX, NOT_FETCHED, is_diffusers
from flowferry.pipelines.storage.weights import CONFIG, SYNTHETIC, VERSION, WEIGHTS

CARD = "README.md"
FILES = (CONFIG, WEIGHTS, CARD)


log = logging.getLogger("flowferry")


def find_weights(pipeline: Path | str) -> Path:
    """Return the folder with a pipeline's weights, and log it if `pipeline` is a name. Raises UserError for none."""
    folder = local_folder(pipeline)
    if folder != Path(pipeline):
        log.info("%s: the weights in %s", pipeline, folder)
    return folder


def local_folder(
    pipeline: Path | str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | str | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Return the folder with a pipeline's weights, as `trained_folder` finds it, or a local copy of the hub's.

    Only `config.json` and `model.safetensors` are fetched from user/name on the hub, or of a pipeline of diffusers its
    UNet and schedulers; the other arguments are those of `huggingface_hub.snapshot_download`. Raises UserError where
    there are no weights, and for the revision of a folder.
    """
    folder = trained_folder(str(pipeline))
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"revision: got {revision!r} for the folder {folder}, expected user/name on the hub")
        return folder
    asked: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
    asked |= {"force_download": force_download, "local_files_only": local_files_only}
    fetched = fetch(str(pipeline), [CONFIG, WEIGHTS, INDEX], **asked)
    return fetch(str(pipeline), [CONFIG, INDEX, *FETCHED], **asked) if is_diffusers(fetched) else fetched


def fetch(name: str, patterns: list[str], **asked: Any) -> Path:
    """Return the folder with a local copy of those files of user/name. Raises UserError where the hub gives none."""
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=NOT_FETCHED, **asked))
    except (OSError, HFValidationError) as error:  # what the hub refuses, and what does not reach it, are OSErrors
        raise UserError(f"{name}: no such folder here, and the hub did not give it: {one_line(error)}") from error


def with_text_encoder(folder: Path) -> Path:
    """Return a folder of diffusers; where it is a copy of the hub's, after its text encoder was fetched into it."""
    if folder.parent.name != "snapshots" or (folder / "text_encoder").is_dir():
        return folder
    repository = folder.parents[1]  # models--USER--NAME, in the cache
    name = repository.name.removeprefix("models--").replace("--", "/", 1)
    return fetch(name, FETCHED_FOR_TEXT, revision=folder.name, cache_dir=repository.parent)


def one_line(error: Exception) -> str:
    """Return an error of the hub, which may have several lines, in one."""
    return " ".join(str(error).split())


def push(folder: Path, name: str, *, private: bool, token: str | None) -> str:
    """Upload a folder of weights with its card as "user/name"; return its address. Raises UserError with the reason."""
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"push: got {name!r}, expected user/name")
    try:
        hub = HfApi(token=token)
        hub.create_repo(name, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=list(FILES), commit_message=f"flowferry {VERSION}"
        )
    except OSError as error:
        raise UserError(f"push: {name} could not be written to: {one_line(error)}") from error
    return str(done.repo_url)


def card(config: Config, results: Mapping[str, float | str], name: str, sampling: str) -> str:
    """Return a model card: what the pipeline is, how to use it, how it was trained, and its measured `results`.

    sampling: how it is run, in a few words.
    """
    noise, labeled = config.source.is_noise, bool(config.asked_classes)
    data = ModelCardData(
        library_name="flowferry",
        pipeline_tag="unconditional-image-generation" if noise else "image-to-image",
        tags=["flow-matching" if config.prediction == "velocity" else "diffusion", config.name],
    )
    asked = f", labels=torch.arange(16) % {config.num_classes}" if labeled else ""
    images = f"torch.rand(16, {', '.join(map(str, config.shape))}) * 2 - 1"  # in place of the reader's own images
    call = f"pipe.sample(16{asked})" if noise else f"pipe.translate({images})"
    train = config.train
    minutes = f" or {train.minutes:g} minutes" if train.minutes else ""
    preset = PIPELINES.get(config.name, config)
    trained = replace(config, solver=preset.solver)  # the solver may have been chosen after training
    facts = {
        "data": SYNTHETIC if config.is_synthetic else f"{config.source.kind} → {config.target.kind}",
        **({"classes": numbered(names).replace("|", "\\|")} if (names := class_names_of(config)) else {}),
        "network": f"{config.model.kind}, predicts the {config.prediction}",
        "objective, path, coupling": f"{config.objective}, {config.path}, {config.coupling}",
        "sampling": sampling,
        **({"teacher": f"{config.teacher.pipeline} ({config.teacher.sha256[:12]})"} if config.has_teacher else {}),
        "training": f"at most {train.epochs} epochs{minutes}, batch {train.batch_size}",
        "command": f"`{training_command(trained, RUNS / config.name)}`",
        "optimizer": f"{train.optimizer} {train.lr:g}, {train.schedule}",
        **{
            f"measured: {MEASURES.get(what, what)}": value if isinstance(value, str) else f"{value:g}"
            for what, value in results.items()
        },
    }
    rows = "\n".join(f"| {what} | {fact} |" for what, fact in facts.items())
    return str(ModelCard(CONTENT.format(yaml=data.to_yaml(), config=config, rows=rows, name=name, call=call)))


MEASURES = {
    "frechet": "Fréchet distance",
    "frechet of as many real images": "Fréchet distance of as many real images",
    "kernel": "kernel distance",
    "memorization rate": "share nearer to a training image than that one to any other",
    "distance": "root mean square distance of source and result, in [-1, 1]",
    "round trip": "root mean square distance of source and round trip, in [-1, 1]",
    "mutual information": "mutual information of source and result class, nats",
}

CONTENT = """\
---
{yaml}
---

# {config.name}

A flowferry pipeline: {config.summary}.

| | |
|---|---|
{rows}

`model.safetensors` holds the tensors, `config.json` what trains them again. Nothing here is a pickle.

```python
import torch
from flowferry import Pipeline

pipe = Pipeline.from_pretrained("{name}")
images = {call}  # float [B, C, H, W] in [-1, 1], here {config.shape}
```
"""
