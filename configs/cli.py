"""The command line: each verb's options, typed, generated from dataclasses on top of a named configuration."""

import argparse
import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import AvoidSubcommands, FlagCreatePairsOff, arg

from configs.checks import Checked, Range, UserError
from configs.places import RUNS, data_root, unknown_pipeline
from configs.presets import PIPELINES, quick
from configs.schema import PARTS, Config, SolverName, pick, read_config

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a pipeline, or go on with it: the same command again resumes."""

    pipeline: str
    """A name from `list`, or the folder of a run to train again."""
    quick: bool = False
    """About a minute on 2 CPU cores, on data that the project draws itself: needs no network and no files."""
    output_dir: Path | None = None
    """The run's folder; None: runs/PIPELINE, or runs/PIPELINE-quick."""
    data_root: Path = field(default_factory=data_root)
    """Folder of the data sets, which are downloaded into it once; FLOWFERRY_DATA sets another default."""
    print_config: bool = False
    """Print the resolved configuration as JSON and leave."""
    inspect: bool = False
    """Say and draw which source samples will be paired with which target samples, and leave."""
    dry_run: bool = False
    """Load everything, take one step in memory, say what would be trained and leave; nothing is written."""
    source_kind: Annotated[str | None, arg(name="source")] = None
    """Another source for the pipeline, by its kind; its own options follow as --source.OPTION."""
    target_kind: Annotated[str | None, arg(name="target")] = None
    """Another target, likewise."""
    model_kind: Annotated[str | None, arg(name="model")] = None
    """Another network, likewise."""
    config: Annotated[Config, arg(name="")]

    @property
    def folder(self) -> Path:
        return self.output_dir or RUNS / (self.config.name + ("-quick" if self.quick else ""))


@dataclass(frozen=True, kw_only=True)
class UseOptions(Checked):
    """What the verbs that use a trained pipeline share."""

    pipeline: str
    """A name from `list` that was trained here or is shipped, a folder with weights, or user/name on the Hugging Face
    hub."""
    steps: Annotated[int | None, Range(1)] = None
    """Solver steps; None: as the pipeline says."""
    solver: SolverName | None = None
    """None: as the pipeline says."""
    guidance: Annotated[float | None, Range(0)] = None
    """w, for class-conditioned pipelines: 1 plain, 0 unconditional; None: as the pipeline says."""
    batch_size: Annotated[int | None, Range(1)] = None
    """Images that go through the network at a time; None: as many as are fastest on the device."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions(UseOptions):
    """Draw new images from a trained pipeline."""

    output: Path | None = None
    """Folder of the images and of sheet.png; None: sampled/ in the run's folder."""
    count: Annotated[int | None, Range(1)] = None
    """How many images; None: 64, or per-label for each of the labels."""
    labels: str | None = None
    """Classes to ask for, such as 7 or 0-9 or 1,3,5; None: all of them in turn, or what the pipeline reads itself."""
    per_label: Annotated[int | None, Range(1)] = None
    """Images of each label; None: 4, or as many as --count gives to each."""
    seed: int = 0
    """The same seed gives the same images."""
    data_root: Path = field(default_factory=data_root)
    """Folder of the data sets, for pipelines that start from images."""


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(UseOptions):
    """Translate an image file, or every image file of a folder and its sub-folders."""

    input: Path
    """An image file or a folder of them."""
    output: Path
    """A PNG file for a file; a folder for a folder, where each translation keeps its relative path, as PNG."""
    batch_size: Annotated[int, Range(1)] = 256
    """Images that are held at a time; what becomes of one does not depend on it."""
    resize: Literal["fit", "fill", "stretch", "none"] | None = None
    """How an image comes to the network's size: all of it with a border, its middle, distorted, or only if it fits;
    None: as the folder that the pipeline was trained on, else fit."""
    restore_size: bool = False
    """Give each result the size of its input."""
    background: str | None = None
    """Colour under transparent images and of borders: a name such as white, or #rrggbb; None: as that folder, else
    black."""
    suffix: bool = False
    """Keep the input's ending in the result's name: a.jpg becomes a.jpg.png, not a.png."""
    overwrite: bool = False
    """Translate everything again; otherwise what the manifest of the output folder lists is not done twice."""
    labels: int | None = None
    """The class to ask for, for class-conditioned pipelines; None: not told, or what the pipeline reads itself."""
    reverse: bool = False
    """From target back to source."""
    sheet: bool = False
    """Also write sheet.png: the first images before and after."""
    gif: bool = False
    """Also write path.gif: the first images on their way."""
    html: bool = False
    """Also write index.html: a page with a slider between before and after, which opens from disk."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Checked):
    """Write a lab report of a run: index.md with its pictures and figures."""

    pipeline: str
    """A name from `list` that was trained here, or a run's folder."""
    output: Path | None = None
    """Folder of the report; None: report/ in the run's folder."""
    beside: Path | None = None
    """Another run's folder, to be shown and measured beside this one."""
    per_label: Annotated[int, Range(1)] = 20
    """Images of each class, at each guidance weight, that a classifier is asked about."""
    images: Annotated[int, Range(1)] = 2000
    """Test images that a denoiser's errors are measured on."""
    data_root: Path = field(default_factory=data_root)
    """Folder of the data sets."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(UseOptions):
    """Measure a trained pipeline: how real its results are, what they keep of the source, and what they cost."""

    output: Path | None = None
    """Folder of evaluation.json and its figure; None: the run's folder."""
    count: Annotated[int | None, Range(16)] = None
    """Results that are measured; figures of different counts are not comparable. None: 2,000, or as many as the data
    allow."""
    skip_cost: bool = False
    """Leave out the cost curve, from which otherwise the cheapest solver and steps are kept with the run's weights."""
    seed: int = 0
    """Of the source samples."""
    data_root: Path = field(default_factory=data_root)
    """Folder of the data sets."""


@dataclass(frozen=True)
class ListOptions:
    """List the pipelines by name, and which are ready to use."""


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions:
    """Train the small classifier through whose features `evaluate` sees a data set."""

    pipeline: str
    """A name from `list`, or a run's folder: it says which data set, and of what size."""
    of: Literal["source", "target"] = "target"
    """Which of its two data sets."""
    output: Path | None = None
    """The file to write; None: classifiers/KIND.safetensors in the folder of the runs."""
    data_root: Path = field(default_factory=data_root)
    """Folder of the data sets."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a folder of weights to be shared, or one that another library loads."""

    pipeline: str
    """A name from `list` that was trained here or is shipped, or a folder with weights."""
    output: Path
    """The folder to write."""
    format: Literal["flowferry", "diffusers"] = "flowferry"
    """flowferry: weights, configuration and a model card; diffusers: for DiffusionPipeline.from_pretrained."""
    push: str | None = None
    """Also upload it as this user/name of the Hugging Face hub."""
    private: bool = False
    """Make a repository there that only you can see."""


def parse_train(argv: Sequence[str]) -> TrainOptions:
    """The options of `train`: the named configuration, with its parts swapped, then overridden field by field."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    peek.add_argument("--pipeline", default="")
    peek.add_argument("--quick", action="store_true")
    for name in [*PARTS, "source.root", "target.root"]:
        peek.add_argument(f"--{name}")
    try:
        seen, _ = peek.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    asks_help = any(flag in argv for flag in ("-h", "--help"))
    config = named_config(seen.pipeline or ("fashion2mnist" if asks_help else ""))
    for name, kinds in PARTS.items():
        if (kind := getattr(seen, name)) is not None:
            config = replace(config, **{name: pick(f"--{name}", kind, kinds)()})
    for name in ("source", "target"):  # a folder that is named needs no stand-in
        if (root := getattr(seen, f"{name}.root")) and hasattr(part := getattr(config, name), "root"):
            config = replace(config, **{name: replace(part, root=root)})
    config = quick(config) if seen.quick else config
    return parse(TrainOptions, argv, "train", default=TrainOptions(pipeline=seen.pipeline, config=config))


def named_config(pipeline: str) -> Config:
    """The configuration of a named pipeline, or of the run in a folder."""
    if not pipeline:
        raise UserError(f"--pipeline is missing; accepted: {', '.join(PIPELINES)}, or the folder of a run")
    if pipeline in PIPELINES:
        return PIPELINES[pipeline]
    file = Path(pipeline, "config.json")
    if not file.is_file():
        raise unknown_pipeline(pipeline, "a folder with a config.json")
    return read_config(file)


def parse(options: type[T], argv: Sequence[str], verb: str, *, default: Any = None) -> T:
    """tyro's typed parsing, with what it has to complain about in one line."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(
                options,
                args=list(argv),
                default=default,
                prog=f"launch.py {verb}",
                config=(AvoidSubcommands, FlagCreatePairsOff),
            )
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise UserError(one_line(told.getvalue())) from None


def one_line(box: str) -> str:
    """tyro's framed message without its frame and without the pointers to --help below it."""
    lines = [re.sub(r"^[│|]\s?|\s*[│|]$", "", line).strip() for line in box.splitlines()]
    message: list[str] = []
    for line in lines:
        if line.startswith(("╭", "╰")):
            continue
        if line.startswith("─"):
            break
        message.append(line)
    hints = [line.split()[0] for line in lines if re.match(r"--\S+ ", line) and "Perhaps" in box]
    return " ".join(message) + (f"; did you mean {' or '.join(hints)}?" if hints else "")
