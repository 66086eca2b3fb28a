"""The options of each verb, as dataclasses: a field is an option, its docstring the help text."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from flowferry.configs.locations import RUNS, default_data_root
from flowferry.configs.recipe import SolverName
from flowferry.configs.schema import Config
from flowferry.configs.validation import Range, Validated


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
class UseOptions(Validated):
    """What the verbs that use a trained pipeline share."""

    pipeline: str
    """A name from `list` that was trained here or is shipped, a folder with weights, or user/name on the Hugging Face
    hub."""
    steps: Annotated[int | None, Range(1)] = None
    """Solver steps; None: as the pipeline says, or with --stride on a path with levels all of the list."""
    stride: Annotated[int | None, Range(1)] = None
    """Step through every so many-th noise level, as with 30 through 991, 961, …, 1 of 1,000 and then to the image;
    None: as the pipeline says, or with --steps from 0 to 1."""
    solver: SolverName | None = None
    """None: as the pipeline says."""
    guidance: Annotated[float | None, Range(0)] = None
    """w, for class-conditioned pipelines: 1 plain, 0 unconditional; None: as the pipeline says."""
    source_noise: Annotated[float | None, Range(0)] = None
    """Standard deviation of noise added to source images; None: as the pipeline says."""
    batch_size: Annotated[int | None, Range(1)] = None
    """Images that go through the network at a time; None: as many as are fastest on the device."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """In which the network computes: bf16 is faster on GPUs and on processors that multiply it (AVX512_BF16, AMX), and
    changes results by about half a level of 256; auto: bf16 there, fp32 elsewhere."""

    @property
    def sampling(self) -> dict[str, Any]:
        """What is asked for instead of the pipeline's own, as `Pipeline.using` takes it."""
        asked = {"solver": self.solver, "steps": self.steps, "stride": self.stride}
        return asked | {"guidance": self.guidance, "source_noise": self.source_noise}


@dataclass(frozen=True, kw_only=True)
class SampleOptions(UseOptions):
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
    seed: int = 0
    """The same seed gives the same images."""
    data_root: Path = field(default_factory=default_data_root)
    """Folder of the data sets, for pipelines that start from images."""


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(UseOptions):
    """Translate an image file, or every image file of a folder and its sub-folders."""

    input: Path
    """An image file or a folder of them."""
    destination: Annotated[str, arg(name="output", metavar="PATH")]
    """For a file: a file, whose ending says the format, or a folder, which is there or whose name ends in a slash. For
    a folder: a folder, where each translation keeps its relative path."""
    format: Literal["png", "jpeg", "webp", "tiff", "npy"] | None = None
    """Of the results. None: as the input, where that is PNG, WebP (written without loss), TIFF or an array of NumPy;
    PNG for any other, such as JPEG."""
    follow_links: bool = False
    """Follow symbolic links to folders, and to files outside the folder, too; otherwise they are passed over."""
    batch_size: Annotated[int, Range(1)] = 256
    """Images held in memory at a time; the result for an image does not depend on it."""
    resize: Literal["fit", "fill", "stretch", "none"] | None = None
    """How to bring an image to the network's size: fit all of it inside a border, fill with its middle, stretch it, or
    none: accept only that size. None: as the folder that the pipeline was trained on, else fit."""
    size: Literal["own", "network"] | None = None
    """own: each result has the size of its input, which the network sees pixel by pixel, in tiles where it is large;
    network: all are brought to the network's size. None: own where the pipeline was trained on crops, else network."""
    tile: Annotated[int | None, Range(1)] = None
    """Pixels: images that are longer on a side go through the network in overlapping tiles of this side. None: 512, or
    as long as the pipeline's images are if that is more."""
    overlap: Annotated[int | None, Range(0)] = None
    """Pixels by which tiles overlap; None: 64, or a quarter of a tile if that is less."""
    range: tuple[float, float] | None = None
    """Which values of images of more than 8 bits are black and white, such as 0 4095 for 12-bit data. None: as the
    folder that the pipeline was trained on, else as their TIFF tags say, or the whole range of such numbers."""
    max_pixels: Annotated[int | None, Range(1)] = None
    """Refuse larger images, which could fill the memory. None: as the folder that the pipeline was trained on, or as
    such folders have it by default."""
    strict: bool = False
    """Refuse files that are whole but for their wrapping: a JPEG without its end marker, a PNG with a damaged chunk
    beside the image, values a little out of range."""
    restore_size: bool = False
    """Give each result the size of its input."""
    background: str | None = None
    """Color behind transparent images and of borders: a name such as white, or #rrggbb; None: as the folder that the
    pipeline was trained on, else black."""
    suffix: bool = False
    """Keep the input's ending in the result's name: a.jpg becomes a.jpg.png, not a.png."""
    overwrite: bool = False
    """Translate everything again, and replace files of other origin; otherwise what the manifest of the output folder
    lists is not done twice, and files in it that no translation made are not replaced."""
    labels: str | None = None
    """The class to ask for, for class-conditioned pipelines, by its number or the name of its folder, which goes first;
    None: none, or the one the pipeline infers itself."""
    reverse: bool = False
    """Translate from target back to source."""
    seed: int = 0
    """Of the noise on the source, if there is any: another seed gives other results of the same images."""
    variants: Annotated[int, Range(1)] = 1
    """Results of each image, where there is noise on the source: 3 of a.jpg are a.1.png, a.2.png and a.3.png, the first
    of which is what 1 would give."""
    sheet: bool = False
    """Also write sheet.png: the first images before and after."""
    gif: bool = False
    """Also write path.gif: the first images on their way."""
    html: bool = False
    """Also write index.html: a page with a slider between before and after, which opens from disk."""

    @property
    def output(self) -> Path:
        """The file or the folder to write."""
        return Path(self.destination)


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Validated):
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
