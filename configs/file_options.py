"""The options of the verbs that take a trained pipeline from image files to image files; see options.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from flowferry.configs.recipe import SolverName
from flowferry.configs.validation import Positive, Range, Validated

Precision = Literal["fp32", "bf16", "fp16", "auto"]


@dataclass(frozen=True, kw_only=True)
class UseOptions(Validated):
    """What the verbs that use a trained pipeline share."""

    pipeline: str
    """A name from `list` that was trained here or is shipped, a folder with weights or with a pipeline of
    diffusers, or user/name of either on the Hugging Face hub."""
    steps: Annotated[int | None, Range(1)] = None
    """Solver steps; None: as the pipeline says, or with --stride on a path with levels all of the list."""
    stride: Annotated[int | None, Range(1)] = None
    """Step through every so many-th noise level, as with 30 through 991, 961, …, 1 of 1,000 and then to the image;
    None: as the pipeline says, or with --steps from 0 to 1."""
    solver: SolverName | None = None
    """None: as the pipeline says."""
    guidance: Annotated[float | None, Range(0)] = None
    """w of guidance, towards the class that is asked for, or away from the weaker network that is kept with the
    weights: 1 none; None: as the pipeline says."""
    source_noise: Annotated[float | None, Range(0)] = None
    """Standard deviation of noise added to source images; None: as the pipeline says."""
    batch_size: Annotated[int | None, Range(1)] = None
    """Images that go through the network at a time; None: as many as are fastest on the device."""
    precision: Precision = "fp32"
    """In which the network computes: bf16 is faster on GPUs and on processors that multiply it (AVX512_BF16, AMX), and
    changes results by about half a level of 256; auto: bf16 there, fp32 elsewhere. Networks of diffusers then also take
    half the memory; fp16 is for those that were published in it."""

    @property
    def sampling(self) -> dict[str, Any]:
        """What is asked for instead of the pipeline's own, as `Pipeline.using` takes it."""
        asked = {"solver": self.solver, "steps": self.steps, "stride": self.stride}
        return asked | {"guidance": self.guidance, "source_noise": self.source_noise}


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """What the verbs share that can ask for a text."""

    prompt: tuple[str, ...] = ()
    """Texts to ask for, of pretrained pipelines that take them: each is a class, the first one 0. "" asks for none."""
    embeddings: Path | None = None
    """A file of their embeddings, which the verb embed writes; None: the text encoder beside the pipeline makes
    them."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions(Validated):
    """What the verbs share that read image files."""

    resize: Literal["fit", "fill", "stretch", "none"] | None = None
    """How to bring an image to the network's size: fit all of it inside a border, fill with its middle, stretch it, or
    none: accept only that size. None: as the folder that the pipeline was trained on, else fit."""
    range: tuple[float, float] | None = None
    """Which values of images of more than 8 bits are black and white, such as 0 4095 for 12-bit data. None: as the
    folder that the pipeline was trained on, else as their TIFF tags say, or the whole range of such numbers."""
    max_pixels: Annotated[int | None, Range(1)] = None
    """Refuse larger images, which could fill the memory. None: as the folder that the pipeline was trained on, or as
    such folders have it by default."""
    strict: bool = False
    """Refuse files that are whole but for their wrapping: a JPEG without its end marker, a PNG with a damaged chunk
    beside the image, values a little out of range."""
    background: str | None = None
    """Color behind transparent images and of borders: a name such as white, or #rrggbb; None: as the folder that the
    pipeline was trained on, else black."""


@dataclass(frozen=True, kw_only=True)
class SizeOptions(Validated):
    """At which size images go through the network."""

    size: Literal["own", "network"] | None = None
    """own: each result has the size of its input, which the network sees pixel by pixel, in tiles where it is large;
    network: all are brought to the network's size. None: own where the pipeline was trained on crops, else network."""
    tile: Annotated[int | None, Range(1)] = None
    """Pixels: images that are longer on a side go through the network in overlapping tiles of this side. None: 512, or
    as long as the pipeline's images are if that is more."""
    overlap: Annotated[int | None, Range(0)] = None
    """Pixels by which tiles overlap; None: 64, or a quarter of a tile if that is less."""


@dataclass(frozen=True, kw_only=True)
class FilesOptions(ReadOptions, UseOptions):
    """What the verbs that take image files share: one file, or all of a folder and its sub-folders."""

    destination: Annotated[str, arg(name="output", metavar="PATH")]
    """For a file: a file, whose ending says the format, or a folder, which is there or whose name ends in a slash. For
    a folder: a folder, where each result keeps its relative path."""
    format: Literal["png", "jpeg", "webp", "tiff", "npy"] | None = None
    """Of the results. None: as the input, where that is PNG, WebP (written without loss), TIFF or an array of NumPy;
    PNG for any other, such as JPEG."""
    follow_links: bool = False
    """Follow symbolic links to folders, and to files outside the folder, too; otherwise they are passed over."""
    batch_size: Annotated[int, Range(1)] = 256
    """Images held in memory at a time; the result for an image does not depend on it."""
    restore_size: bool = False
    """Give each result the size of its input."""
    suffix: bool = False
    """Keep the input's ending in the result's name: a.jpg becomes a.jpg.png, not a.png."""
    overwrite: bool = False
    """Do everything again, and replace files of other origin; otherwise what the manifest of the output folder lists is
    not done twice, and files in it that it does not know are not replaced."""
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
class TranslateOptions(SizeOptions, FilesOptions):
    """Translate an image file, or every image file of a folder and its sub-folders."""

    input: Path
    """An image file or a folder of them."""
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


EditName = Literal["sdedit", "inpaint", "flowedit", "denoise", "anagram", "hybrid"]
ViewName = Literal["rotate180", "flip", "mirror", "rotate90", "skew", "negative"]


@dataclass(frozen=True, kw_only=True)
class EditOptions(FilesOptions, TextOptions):
    """Edit an image file, or every image file of a folder, with a pipeline that was not trained for it."""

    edit: Positional[EditName]
    """sdedit: noise images and go on from there; inpaint: make what a mask shows anew; flowedit: from one class to
    another; denoise: what one evaluation says that a noised image was; anagram: images that are something else in
    another view; hybrid: something from afar and something else from nearby. The first four need a pipeline that
    starts from Gaussian noise."""
    input: Path | None = None
    """An image file or a folder of them; for an anagram or a hybrid only where the pipeline starts from images."""
    count: Annotated[int | None, Range(1)] = None
    """How many anagrams or hybrids of a pipeline that starts from noise, into a folder; None: 16."""
    start: Annotated[tuple[float, ...] | None, Range(0, 1)] = None
    """The time from which an image goes on: 0 keeps nothing of it, 1 all. Several, such as 0.3 0.5 0.7, give several
    results: a.1.png and so on. None: 0.5 of sdedit and denoise, 0.2 of flowedit, 0 of inpaint."""
    labels: tuple[str, ...] | None = None
    """The classes to ask for, by number or name: one; of a hybrid two, from afar and from nearby, such as 3 8; of an
    anagram one as it is and one for each view; of flowedit the old and the new one, or the new one. None: no class, or
    the texts of --prompt in their order."""
    mask: str | None = None
    """What inpaint makes anew: the white parts of an image file, or a rectangle LEFT,TOP,RIGHT,BOTTOM in shares of
    width and height: 0.5,0,1,1 is the right half."""
    resample: Annotated[int | None, Range(1)] = None
    """How often inpaint takes each step, with a jump back in between; None: 1."""
    view: tuple[ViewName, ...] | None = None
    """How else an anagram is looked at: turned, upside down (flip), mirrored, with its columns rolled (skew), as a
    negative; None: rotate180."""
    sigma: Annotated[float | None, Positive] = None
    """Where a hybrid parts far from near: σ of a Gaussian, in pixels of the pipeline's images; None: 2 for each 64 of
    their shorter side."""
    seed: int = 0
    """Of the noise: another seed gives other results of the same images."""
