"""Weights that travel: to and from the Hugging Face hub, as safetensors and JSON with a model card. No pickle."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from configs.checks import UserError
from configs.commands import training_command
from configs.places import HUB_NAME, RUNS, trained_folder
from configs.presets import PIPELINES
from configs.schema import Config
from pipelines import weights

CARD = "README.md"


def local(pipeline: Path | str) -> Path:
    """The folder with a pipeline's weights, as `trained_folder`; of the hub's user/name a copy of its two files.

    Raises UserError where there is none.
    """
    folder = trained_folder(str(pipeline))
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(pipeline), allow_patterns=[weights.CONFIG, weights.WEIGHTS]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"{pipeline}: no such folder here, and the hub did not give it: {error}") from error


def push(folder: Path, name: str, *, private: bool, token: str | None) -> str:
    """Uploads a folder that `weights.save` and `card` made; returns its address. Raises UserError with the reason."""
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"push: found {name!r}, accepted: user/name")
    try:
        hub = HfApi(token=token)
        hub.create_repo(name, private=private, exist_ok=True)
        done = hub.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[weights.CONFIG, weights.WEIGHTS, CARD],
            commit_message=f"flowferry {weights.VERSION}",
        )
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"push: {name} could not be written to: {error}") from error
    return str(done.repo_url)


def card(config: Config, results: Mapping[str, float | str], name: str) -> str:
    """A model card: what it is, how to use it, how it was made, and what was measured of it."""
    noise, labelled = config.source.kind == "gaussian", bool(config.asked_classes)
    data = ModelCardData(
        library_name="flowferry",
        pipeline_tag="unconditional-image-generation" if noise else "image-to-image",
        tags=["flow-matching" if config.prediction == "velocity" else "diffusion", config.name],
    )
    asked = ", labels=torch.arange(16) % 10" if labelled else ""
    images = f"torch.rand(16, {', '.join(map(str, config.shape))}) * 2 - 1"  # stand in for the reader's own
    call = f"pipe.sample(16{asked})" if noise else f"pipe.translate({images})"
    train, solver = config.train, config.solver
    minutes = f" or {train.minutes:g} minutes" if train.minutes else ""
    named = PIPELINES.get(config.name, config)
    trained = replace(config, solver=named.solver)  # how it is run may have been chosen afterwards
    guided = f", guidance {solver.guidance:g}" if config.classes else ""
    facts = {
        "data": weights.DRAWN if config.drawn else f"{config.source.kind} → {config.target.kind}",
        "network": f"{config.model.kind}, predicts the {config.prediction}",
        "path, coupling": f"{config.path}, {config.coupling}",
        "sampling": f"{solver.name}, {solver.steps} steps{guided}",
        "training": f"at most {train.epochs} epochs{minutes}, batch {train.batch_size}",
        "command": f"`{training_command(trained, RUNS / config.name)}`",
        "optimiser": f"{train.optimizer} {train.lr:g}, {train.schedule}",
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
    "memorised": "share nearer to a training image than that one to any other",
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
from pipelines import Pipeline

pipe = Pipeline.from_pretrained("{name}")
images = {call}  # float [B, C, H, W] in [-1, 1], here {config.shape}
```
"""
