"""The verb `embed`: encode texts once, so that the encoder need not fit into memory beside the network."""

import logging

from flowferry.configs.options import EmbedOptions
from flowferry.configs.validation import UserError
from flowferry.pipelines.diffusers_pipeline import DTYPES
from flowferry.pipelines.hardware import best_device, run_precision
from flowferry.pipelines.storage import hub, texts
from flowferry.pipelines.storage.diffusers_folder import is_diffusers
from flowferry.pipelines.storage.files import prepare_folder

log = logging.getLogger("flowferry")


def run(options: EmbedOptions) -> int:
    """Write `options.output`, the embeddings of the texts and of the empty one; return the exit code."""
    folder, device = hub.with_text_encoder(hub.find_weights(options.pipeline)), best_device()
    if not is_diffusers(folder):
        raise UserError(f"{options.pipeline} takes no texts: expected a pipeline of diffusers with a text encoder")
    prepare_folder(options.output.parent, "--output")  # before the encoder is loaded
    dtype = DTYPES[run_precision(options.precision, device)]
    found = texts.encode(folder, options.prompts, device=device, dtype=dtype)
    texts.save(options.output, found)
    length, channels = found[texts.NULL].shape
    log.info("%s: %d texts, each as %d vectors of %d numbers", options.output, len(found), length, channels)
    return 0
