"""The options of each verb, as dataclasses: a field is an option, its docstring the help text."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from flowferry.configs.file_options import EditOptions, Precision, TextOptions, TranslateOptions, UseOptions
from flowferry.configs.locations import RUNS, default_data_root
from flowferry.configs.schema import Config
from flowferry.configs.serve_options import ServeOptions
from flowferry.configs.validation import Positive, Range, Validated

__all__ = ["EditOptions", "ServeOptions", "TranslateOptions"]  # options of every verb are found here


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a pipeline, or go on with it: the same command again resumes."""

    pipeline: str
    """A name from `list`, or the folder of a run to train again."""
    quick: bool = False
    """A smoke test of about a minute on 2 CPU cores, on synthetic data: needs no network and no files."""
    output_dir: Path | None = None
    """The run's folder; None: runs/PIPELINE, or runs/PIPELINE-quick."""
    data_root: Path = field(default_factory=default_data_root)
    """Folder of the data sets, which are downloaded into it once; FLOWFERRY_DATA sets another default."""
    print_config: bool = False
    """Print the resolved configuration as JSON and exit."""
    inspect: bool = False
    """Print and draw which source samples will be paired with which target samples, and exit."""
    dry_run: bool = False
    """Load everything, take one step in memory, print what would be trained and exit; nothing is written."""
    allow_changed_data: bool = False
    """Go on with a run although image files of its folders were added, removed or changed since."""
    root: str | None = None
    """One folder that holds both sides: short for --source.root and --target.root."""
    layout: Annotated[str | None, arg(metavar="{None,auto,side-by-side}|PATTERN")] = None
    """How it is laid out: auto finds it out; side-by-side: the halves of each picture; or a pattern for both sides.
    Short for --source.layout and --target.layout, which explain patterns."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which side of that folder is the source: the first, such as trainA, x_A.png or the left half, or the second."""
    source_kind: Annotated[str | None, arg(name="source")] = None
    """Another source for the pipeline, by its kind; its own options follow as --source.OPTION."""
    target_kind: Annotated[str | None, arg(name="target")] = None
    """Another target, likewise."""
    model_kind: Annotated[str | None, arg(name="model")] = None
    """Another network, likewise."""
    config: Annotated[Config, arg(name="")]

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.output_dir or RUNS / (self.config.name + ("-quick" if self.quick else ""))


@dataclass(frozen=True, kw_only=True)
class SampleOptions(TextOptions, UseOptions):
    """Draw new images from a trained pipeline."""

    output: Path | None = None
    """Folder of the images and of sheet.png; None: sampled/ in the run's folder."""
    count: Annotated[int | None, Range(1)] = None
    """How many images; None: 64, or per-label for each of the labels."""
    labels: str | None = None
    """Classes to ask for, such as 7 or 0-9 or 1,3,5, or by the names of their folders: cat,dog (a folder called 3 is
    asked for by that name, not by its number); None: all of them in turn, or those the pipeline infers itself."""
    per_label: Annotated[int | None, Range(1)] = None
    """Images of each label; None: 4, or as many as --count gives to each."""
    enlarge: str | None = None
    """A pretrained pipeline that enlarges the images and is asked for the same texts, such as
    DeepFloyd/IF-II-L-v1.0."""
    seed: int = 0
    """The same seed gives the same images."""
    data_root: Path = field(default_factory=default_data_root)
    """Folder of the data sets, for pipelines that start from images."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(TextOptions, Validated):
    """Write a lab report of a run: index.md with its pictures and figures."""

    pipeline: str
    """A name from `list` that was trained here, or a run's folder."""
    kind: Literal["run", "denoising-study"] = "run"
    """run: how it was trained and what it gives; denoising-study, from noise to images only, also without a run: what
    noise, a blur, one step and many steps make of an image, and edits of it."""
    output: Path | None = None
    """Folder of the report; None: report/ in the run's folder, or denoising-study/."""
    image: Path | None = None
    """The image of a study; None: a test image of the target's."""
    drawing: Path | None = None
    """A drawing for it to edit, too; None: one that this project draws."""
    labels: tuple[str, ...] | None = None
    """The classes that it asks for, by number or name; None: 6 and 9, or the first two of fewer classes."""
    guidance: Annotated[float | None, Range(0)] = None
    """w of a study where it asks for a class; None: as the pipeline says."""
    blur: Annotated[float, Positive] = 2.0
    """σ of the blur that a study compares with, in pixels."""
    beside: Path | None = None
    """Another run's folder, to be shown and measured beside this one."""
    per_label: Annotated[int, Range(1)] = 20
    """Images of each class, at each guidance weight, that a classifier is asked about."""
    images: Annotated[int | None, Range(1)] = None
    """Test images that a denoiser's errors are measured on; None: 2,000, or 64 in a study."""
    data_root: Path = field(default_factory=default_data_root)
    """Folder of the data sets."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(UseOptions):
    """Measure a trained pipeline: how real its results are, what they keep of the source, and what they cost."""

    output: Path | None = None
    """Folder of evaluation.json and its figure; None: the run's folder."""
    count: Annotated[int | None, Range(16)] = None
    """Number of results to measure; figures of different counts are not comparable. None: 2,000, or as many as the data
    allow."""
    skip_cost: bool = False
    """Leave out the cost curve, from which otherwise the cheapest solver and steps are kept with the run's weights."""
    seed: int = 0
    """Seed of the source samples."""
    data_root: Path = field(default_factory=default_data_root)
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
    output: Annotated[str | None, arg(metavar="{None}|PATH")] = None
    """The file to write, or its folder, which is there or whose name ends in a slash; None: classifiers/ in the folder
    of the runs."""
    data_root: Path = field(default_factory=default_data_root)
    """Folder of the data sets."""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Encode texts once for pretrained pipelines that take them, into a file for --embeddings."""

    pipeline: str
    """A pipeline of diffusers with its text encoder: a folder, or user/name on the Hugging Face hub."""
    prompts: tuple[str, ...]
    """The texts. The empty one, which guidance needs, is always among them."""
    output: Path
    """The safetensors file to write."""
    precision: Precision = "fp32"
    """In which the encoder computes; it then also takes half the memory."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a folder of weights to be shared, or one that another library loads."""

    pipeline: str
    """A name from `list` that was trained here or is shipped, or a folder with weights."""
    output: Path
    """The folder to write."""
    format: Literal["flowferry", "diffusers", "onnx", "page", "space"] = "flowferry"
    """flowferry: weights, configuration and a model card; diffusers: for DiffusionPipeline.from_pretrained; onnx: the
    velocity and a whole translation as files that run without torch; page: one HTML file that carries images in any
    browser, without a server and without the network; space: a Hugging Face Space, which shows the pipeline as serve
    does."""
    runtime: Path | None = None
    """Of a page: the npm package onnxruntime-web, unpacked; None: npm downloads it once."""
    push: str | None = None
    """Also upload it as this user/name of the Hugging Face hub."""
    private: bool = False
    """Make a repository there that only you can see."""
