"""The format `space`: the folder of a Hugging Face Space, which shows the pipeline as the verb `serve` does.

A Space installs what requirements.txt names before it has the other files, so the package lies beside the app as it is
here, instead of being installed.
"""

import json
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from flowferry.configs.networks import DiffusersConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import copy_aside, prepare_folder, write_text

ROOT = Path(__file__).parents[2]
ROOMS = ("configs", "datasets", "models", "pipelines")
COPIED = (".py", ".css")  # not the shipped weights, nor what other formats hold
MODEL = "model"


def for_space(pipeline: Pipeline, folder: Path, output: Path, address: str) -> None:
    """Write an app, the package, the weights and what a Space has to be told. It is started with `python app.py`, too.

    Raises UserError for a pipeline that is not shown, and without an installed Gradio.
    """
    check(pipeline.config)
    try:
        gradio = version("gradio")
    except PackageNotFoundError:
        raise UserError("--format space: got no gradio, expected it: pip install 'flowferry[serve]'") from None
    try:
        installed = distribution("flowferry")  # whose requirements pip wrote down
    except PackageNotFoundError:
        raise UserError("--format space: got flowferry uninstalled, expected it: pip install -e .") from None
    prepare_folder(output, "--output")
    for name in (weights.CONFIG, weights.WEIGHTS):
        copy_aside(weights.weights_folder(folder) / name, output / MODEL / name)
    for path in [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*"))]:
        if path.suffix in COPIED:
            copy_aside(path, output / "flowferry" / path.relative_to(ROOT))
    needed = [line for line in installed.requires or () if "extra ==" not in line]
    write_text(output / "requirements.txt", "\n".join([*needed, f"gradio=={gradio}", ""]))
    write_text(output / "README.md", README.format(config=pipeline.config, yaml=yaml(pipeline.config, gradio)))
    write_text(output / "app.py", APP)
    write_text(output / ".gitattributes", "*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
    license = ROOT / "LICENSE"  # of a clone; an installation has it beside its requirements
    if text := license.read_text() if license.is_file() else installed.read_text("licenses/LICENSE"):
        write_text(output / "LICENSE", text)


def check(config: Config) -> None:
    """Raise UserError for a pipeline that is not shown in a Space."""
    if not config.is_image:
        raise UserError(f"--format space: got {config.name}, which carries points in the plane, expected images")
    if isinstance(config.model, DiffusersConfig):
        raise UserError(f"--format space: got {config.name} of diffusers, expected a pipeline that was trained here")


def yaml(config: Config, gradio: str) -> str:
    """Return the lines by which Hugging Face knows how to run a Space."""
    facts = {
        "title": config.name,
        "sdk": "gradio",
        "sdk_version": gradio,
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "license": "apache-2.0",
    }
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in facts.items())


APP = '''\
"""Show the pipeline in model/: in a Hugging Face Space, and with `python app.py` anywhere."""

import os
import sys
from pathlib import Path

from flowferry.launch import main

host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"
model = Path(__file__).with_name("model")
sys.exit(main(["serve", "--pipeline", str(model), "--host", host, *sys.argv[1:]]))
'''

README = """\
---
{yaml}
---

# {config.name}

A flowferry pipeline: {config.summary}.

This folder is a Hugging Face Space: `hf upload USER/NAME . --repo-type space` makes one of it. Elsewhere
`pip install -r requirements.txt && python app.py` shows the same; `python app.py --help` says with which options. The
weights are in `model/`, the package that runs them in `flowferry/`.
"""
