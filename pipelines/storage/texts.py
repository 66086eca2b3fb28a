"""Embeddings of texts: made by the T5 encoder beside a pipeline of diffusers, and kept in a safetensors file.

transformers is imported where it is needed: flowferry[pretrained].
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from flowferry.configs.names import one_line
from flowferry.configs.validation import UserError
from flowferry.pipelines.storage.diffusers_folder import INSTALL, variant_of
from flowferry.pipelines.storage.weights import save_tensors

LENGTH = 77  # tokens that the encoder of DeepFloyd IF is given
NULL = ""
"""The text that stands for no text."""


def save(path: Path, texts: Mapping[str, Tensor]) -> None:
    """Write embeddings [L, D], by text, as one safetensors file."""
    save_tensors(path, dict(texts), {"flowferry": "embeddings of texts"})


def read(path: Path) -> dict[str, Tensor]:
    """Return the embeddings [L, D] or [1, L, D] of a file, by text, as [L, D]. Raises UserError for another file."""
    try:
        return {text: tensor[0] if tensor.ndim == 3 else tensor for text, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: no embeddings, expected a file that launch.py embed wrote: {error}") from error


def of(prompts: Iterable[str], known: Mapping[str, Tensor], what: str) -> list[Tensor]:
    """Return the embeddings of the prompts and, last, of the empty text; `what` names where they are looked up.

    Raises UserError for a text that is not among those that are known.
    """
    asked = [*prompts, NULL]
    if missing := [text for text in asked if text not in known]:
        raise UserError(
            f"{what}: got no embedding of {missing[0]!r}, expected {one_line([repr(text) for text in known])}"
        )
    return [known[text] for text in asked]


@torch.no_grad()
def encode(folder: Path, prompts: Iterable[str], *, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the embeddings [77, D] of the prompts and of the empty text, on the CPU, by the encoder in `folder`.

    As DeepFloyd IF does it: in lower case, padded or cut to 77 tokens. Raises UserError where there is no encoder, or
    transformers is not installed.
    """
    if not (folder / "text_encoder").is_dir():
        raise UserError(f"{folder} has no text_encoder: expected a file of embeddings, which launch.py embed writes")
    try:
        from transformers import AutoTokenizer, T5EncoderModel
    except ImportError:
        raise UserError(f"{folder}: transformers, which encodes texts, is not installed: {INSTALL}") from None
    texts = list(dict.fromkeys([*prompts, NULL]))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        variant = variant_of(folder / "text_encoder")
        encoder: Any = T5EncoderModel.from_pretrained(
            folder / "text_encoder", use_safetensors=True, dtype=dtype, variant=variant
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{folder}: transformers cannot load its encoder: {' '.join(str(error).split())}") from error
    found, encoder = {}, encoder.to(device).eval()
    for text in texts:
        options: Any = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
        tokens = tokenizer(text.lower().strip(), **options).to(device)
        found[text] = encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0][0].float().cpu()
    return found
