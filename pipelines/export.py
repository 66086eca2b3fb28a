"""The verb `export`: write weights to share, or for another library."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from flowferry.configs.options import ExportOptions
from flowferry.configs.validation import UserError
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.publishing.for_diffusers import for_diffusers
from flowferry.pipelines.publishing.for_page import for_page
from flowferry.pipelines.publishing.onnx_files import for_onnx
from flowferry.pipelines.publishing.sharing import for_sharing
from flowferry.pipelines.publishing.space import for_space
from flowferry.pipelines.storage import hub
from flowferry.pipelines.storage.hub import find_weights

log = logging.getLogger("flowferry")

FORMATS: dict[str, Callable[[Pipeline, Path, Path, str], None]] = {
    "flowferry": for_sharing,
    "diffusers": for_diffusers,
    "onnx": for_onnx,
    "space": for_space,
    "page": for_page,
}
"""Each takes a pipeline, the folder of its weights, the folder to write, and where the result will be loaded from."""


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Remove a folder that was made in this context if the context fails with nothing in it."""
    before = folder.exists()
    try:
        yield
    except BaseException:
        if not before:
            with suppress(OSError):  # something is in it, or it was not made
                folder.rmdir()
        raise


def run(options: ExportOptions) -> int:
    """Write `options.output`, and upload it if `options.push` is set; return the exit code."""
    if options.push and options.format != "flowferry":
        raise UserError(f"--push: got --format {options.format}, expected flowferry")
    if options.runtime and options.format != "page":
        raise UserError(f"--runtime: got --format {options.format}, expected page")
    folder = find_weights(options.pipeline)
    pipeline = Pipeline.from_pretrained(folder, device="cpu")  # checks that the weights fit
    write = partial(for_page, runtime=options.runtime) if options.runtime else FORMATS[options.format]
    with no_empty_folder(options.output):
        write(pipeline, folder, options.output, options.push or str(options.output))
    log.info("%s: %s for %s", options.output, pipeline.config.name, options.format)
    if options.push:
        log.info("pushed: %s", hub.push(options.output, options.push, private=options.private, token=None))
    return 0
