"""The format `page`: one HTML file that carries images in any browser, without a server and without the network."""

import base64
import gzip
import html
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ImageColor

from flowferry.configs.components import GaussianConfig
from flowferry.configs.images import ReadConfig
from flowferry.configs.labels import class_names_of
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.image_writing import png
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.publishing import web_runtime
from flowferry.pipelines.publishing.onnx_files import TRANSLATION, make_onnx, no_translation
from flowferry.pipelines.publishing.onnx_graphs import INFERRED
from flowferry.pipelines.publishing.sample_pictures import sample_pictures
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import prepare_folder, write_text

log = logging.getLogger("flowferry")

PARTS = Path(__file__).parent / "page"
MODULES = ("hashes", "randomness", "pictures", "network", "pad", "journey", "main")
"""Its scripts, each after those that it imports."""
CHANNELS = {1: "gray", 3: "in color"}


def for_page(pipeline: Pipeline, folder: Path, output: Path, address: str, runtime: Path | None = None) -> None:
    """Write `index.html` into the folder `output`. folder: of the weights; runtime: as `runtime_files` takes it.

    Raises UserError for a pipeline that no page can show, and where what makes one is not installed.
    """
    check(pipeline)
    prepare_folder(output, "--output")
    notices, files = web_runtime.notices(), web_runtime.runtime_files(runtime)
    digest = weights.digest(folder)
    (network,) = (made.data for made in make_onnx(pipeline, digest) if made.name == TRANSLATION)
    text = page(facts_of(pipeline, digest), network, files, notices)
    write_text(output / "index.html", text)
    log.info("%s: %.1f MB, of which the network %.1f MB", output / "index.html", len(text) / 1e6, len(network) / 1e6)


def check(pipeline: Pipeline) -> None:
    """Raise UserError for a pipeline that a page cannot show."""
    config = pipeline.config
    if not config.is_image or config.shape[0] not in CHANNELS:
        got = f"{config.name} with samples of shape {config.shape}"
        raise UserError(f"--format page: got {got}, expected images of {' or '.join(map(str, CHANNELS))} channels")
    if why := no_translation(pipeline):
        raise UserError(f"--format page: got {config.name}, but {why}")


def page(facts: Mapping[str, Any], network: bytes, runtime: Mapping[str, bytes], notices: str) -> str:
    """Return the page as HTML that needs no other file.

    facts: what it knows of its pipeline, see `facts_of`. network: the ONNX file of its trajectory. runtime: the files
    of ONNX Runtime Web. notices: their licenses.
    """
    parts = {
        "title": html.escape(f"{facts['name']} · flowferry"),
        "style": (PARTS / "style.css").read_text(),
        "script": joined(MODULES),
        "facts": json.dumps(facts).replace("<", "\\u003c"),  # so that no text in it ends the script
        "version": web_runtime.VERSION,
        "network": packed(network),
        "runtime": packed(runtime[web_runtime.SCRIPT]),
        "wasm": packed(runtime[web_runtime.WASM]),
        "notices": packed(notices.encode()),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], (PARTS / "index.html").read_text())


def joined(modules: tuple[str, ...]) -> str:
    """Return scripts as one: a page that is opened as a file may not import others."""
    texts = [(PARTS / f"{name}.js").read_text() for name in modules]
    return "\n".join(re.sub(r"^import .*\n|^export ", "", text, flags=re.MULTILINE) for text in texts)


def packed(data: bytes) -> str:
    """Return bytes gzipped and in base64, the same ones at any time."""
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


# --- what the page knows of its pipeline ------------------------------------------------------------------


def facts_of(pipeline: Pipeline, digest: str) -> dict[str, Any]:
    """Return what the page knows of its pipeline, for JSON. digest: of its weights."""
    config, source = pipeline.config, pipeline.config.source
    reading = source if isinstance(source, ReadConfig) else ReadConfig(background="black")
    background = None if reading.background == "auto" else ImageColor.getrgb(reading.background)[:3]
    noise = config.solver.source_noise
    picture = not source.is_noise
    start = f"your picture{' with noise added' if noise else ''}" if picture else "noise, drawn with the seed"
    channels, height, width = config.shape
    return {
        "name": config.name,
        "summary": config.summary,
        "shape": config.shape,
        "times": [round(t, 7) for t in pipeline.grid().tolist()],
        "picture": picture,
        "seed": bool(noise or source.is_noise),
        "labels": labels_of(config),
        "noise": {"mean": source.mean, "std": source.std} if isinstance(source, GaussianConfig) else {},
        "resize": reading.resize,
        "background": background,
        "samples": [f"data:image/png;base64,{base64.b64encode(png(one)).decode()}" for one in sample_pictures(config)],
        "evaluations": f"{pipeline.nfe} evaluation{'s' if pipeline.nfe > 1 else ''} of the network",
        "start": f"the source, {start}.",
        "end": "the target, the result.",
        "told": told_of(pipeline, start),
        "details": {
            "Sampling": pipeline.sampling,
            "Images": f"{width} × {height} pixels, {CHANNELS[channels]}",
            "Weights": f"SHA-256 {digest}",
            "Made by": f"flowferry {weights.VERSION}, with ONNX Runtime Web {web_runtime.VERSION}",
        },
    }


def labels_of(config: Config) -> list[dict[str, Any]]:
    """Return what can be asked for, by name and label: the class as inferred, each class, and "no class"."""
    if not config.num_classes:
        return []
    names = class_names_of(config) or [str(label) for label in range(config.num_classes)]
    asked = [{"name": name, "value": label} for label, name in enumerate([*names, "no class"])]
    return [{"name": "as inferred from the picture", "value": INFERRED}] * config.infer_labels + asked


def told_of(pipeline: Pipeline, start: str) -> str:
    """Return in words what the page shows. start: what is at t = 0."""
    config, steps = pipeline.config, len(pipeline.grid()) - 1
    taken = "one step" if steps == 1 else f"{steps} steps"
    told = [
        f"At t = 0 you see the source, {start}; at t = 1 the target, what the pipeline makes of it.",
        "At each time between them the network says in which direction and how fast every pixel moves, and the solver "
        f"({config.solver.name}) follows that in {taken}.",
    ]
    if config.infer_labels:
        told.append("Unless you choose the class, a classifier reads it off the source.")
    w = config.solver.guidance
    if pipeline.weaker is not None and w != 1:
        told.append(f"Guidance (w = {w:g}) makes more of how the network differs from itself early in training.")
    elif config.num_classes and w not in (0, 1):
        told.append(f"Guidance (w = {w:g}) makes more of the difference that the label makes.")
    told.append("All of it is computed in this page: nothing that you draw or open leaves your device.")
    return " ".join(told)
