"""The texts that a command asks for."""

from hashlib import sha256
from typing import Any

import torch

from flowferry.configs.file_options import TextOptions
from flowferry.configs.labels import class_names_of
from flowferry.configs.validation import UserError
from flowferry.pipelines.pipeline import Pipeline


def prompted(pipeline: Pipeline, options: TextOptions) -> Pipeline:
    """Return the pipeline with the texts of `--prompt` as its classes. Raises UserError where they do not fit it."""
    if options.prompt:
        return pipeline.with_prompts(options.prompt, options.embeddings)
    if options.embeddings:
        raise UserError(f"--embeddings: got {options.embeddings} without --prompt, expected one")
    return pipeline


def told_texts(pipeline: Pipeline) -> dict[str, Any]:
    """Return the texts that a pipeline is asked for and a hash of their embeddings, for a manifest; {} without any."""
    texts: torch.Tensor | None = getattr(pipeline.model, "texts", None)
    if texts is None:
        return {}
    digest = sha256(texts.float().cpu().numpy().tobytes()).hexdigest()
    return {"prompts": list(class_names_of(pipeline.config)), "texts_sha256": digest}
