"""What a denoising study is about: a pipeline, an image, a drawing, some test images, and where the report goes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from flowferry.configs.components import SamplerConfig
from flowferry.configs.labels import class_names_of, parse_labels
from flowferry.configs.locations import classifier_folder
from flowferry.configs.options import ReportOptions
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Batch, Sampler
from flowferry.datasets.builders import build_sampler
from flowferry.datasets.image_io import load_image
from flowferry.datasets.rng import derive_seed
from flowferry.models.classifier import Classifier
from flowferry.pipelines.enlarge import enlarges
from flowferry.pipelines.evaluation import classifier
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.prompts import prompted
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import write_png
from flowferry.pipelines.visualization.grids import Row, caption, sheet

TURNED = (6, 9)  # digits that turn into each other, asked for where there are so many classes
IMAGES = 64  # that errors are measured on
SHEET_SIDE = 112  # pixels that an image takes on a sheet at most, if it has fewer


@dataclass(frozen=True, eq=False)
class Subject:
    """A pipeline from noise to images, and what its report shows."""

    pipeline: Pipeline
    out: Path
    image: Tensor
    """[1, C, H, W] in [-1, 1]."""
    label: int | None
    """Its class, where that is known."""
    test: Tensor
    """Test images [N, C, H, W] to measure errors on; the image alone, where there are no others."""
    test_labels: Tensor | None
    """Their classes int64 [N], where they are known and the pipeline can be asked for them."""
    drawing: Tensor | None
    """[1, C, H, W]; None where none was given and none can be made."""
    classes: tuple[int, ...]
    """Classes to ask for; empty where the pipeline has none."""
    sigma: float
    """Of the blur, in pixels."""
    classifier: Classifier | None
    """Of the pipeline's classes, where there is one already."""

    @classmethod
    def load(cls, folder: Path, options: ReportOptions) -> "Subject":
        """Load the pipeline in `folder`, and read or draw the images.

        Raises UserError for a pipeline that a study cannot be about, and where there is no image.
        """
        pipeline = prompted(Pipeline.from_pretrained(folder), options)
        config = pipeline.config
        check_denoises(pipeline)
        if not round(3 * options.blur) < min(config.shape[1:]):
            raise UserError(f"--blur: got {options.blur:g} pixels, expected less than a third of an image's side")
        if options.guidance is not None and not config.num_classes:
            raise UserError(f"--guidance: got {options.guidance:g} for {config.name}, which has no classes")
        found = test_images(config, options)
        given = None if options.image is None else read_image(options.image, config)
        labels = found.labels if config.num_classes else None
        return cls(
            pipeline.using(guidance=options.guidance),
            options.output or weights.results_folder(folder, config) / options.kind,
            image=found.samples[:1] if given is None else given,
            label=int(labels[0]) if given is None and labels is not None else None,
            test=found.samples if given is None or len(found.samples) else given,
            test_labels=labels,
            drawing=drawing(config, options),
            classes=asked_classes(config, options.labels),
            sigma=options.blur,
            classifier=None if labels is None else kept_classifier(pipeline, folder),
        )

    @property
    def changed(self) -> int:
        """The class to turn the image into: the first that is asked for and that it does not have already."""
        return next((label for label in self.classes if label != self.label), self.classes[0])

    @property
    def pair(self) -> tuple[int | None, int | None]:
        """Two classes to ask for at once; None twice, where the pipeline has none."""
        return (self.classes[0], self.classes[-1]) if self.classes else (None, None)

    def others(self, label: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return up to `count` test images that are not of a class, and their classes, where these are known."""
        if self.test_labels is None:
            return self.test[:count], None
        rows = (self.test_labels != label).nonzero()[:count, 0]
        return self.test[rows], self.test_labels[rows]

    def reads_as(self, images: Tensor, label: int | None) -> Tensor:
        """Return for each of the images [N, C, H, W] whether the classifier takes it for a class: bool [N]."""
        assert self.classifier is not None, "there is one"
        return self.classifier(images.to(self.pipeline.device)).argmax(dim=1).cpu() == label

    def named(self, label: int | None) -> str:
        """Return a class in words."""
        names = class_names_of(self.pipeline.config)
        return "no class" if label is None else names[label] if names else f"class {label}"

    def labels(self, label: int | None, count: int = 1) -> Tensor | None:
        """Return a class as labels int64 [count]; None for no class."""
        return None if label is None else torch.full((count,), label)

    def show(self, name: str, rows: Sequence[Row], *title: str, columns: Sequence[str] = ()) -> str:
        """Write a sheet NAME.png and return the Markdown that shows it."""
        config = self.pipeline.config
        scale = max(1, SHEET_SIDE // max(config.shape[1:]))
        return self.save(name, sheet(rows, caption(config, *title), columns=columns, scale=scale))

    def save(self, name: str, picture: Image.Image) -> str:
        """Write a picture NAME.png and return the Markdown that shows it."""
        write_png(self.out / f"{name}.png", picture)
        return f"![{name}]({name}.png)"


def check_denoises(pipeline: Pipeline) -> None:
    """Raise UserError unless the pipeline removes Gaussian noise from images, at every level."""
    config = pipeline.config
    several = pipeline.objective.max_steps != 1 and not config.has_teacher and not enlarges(pipeline)
    if not (config.is_image and config.starts_from_unit_noise and several):
        expected = "expected one from Gaussian noise to images that was trained at all levels, such as noise2mnist-cfg"
        raise UserError(f"--kind denoising-study: got {config.name}, {expected}")


def test_images(config: Config, options: ReportOptions) -> Batch:
    """Return `options.images` test images and their labels, which depend on the configuration's seed alone.

    None, where an image is given and the data are not there. Raises UserError where there is no image either.
    """
    try:
        target = sampler(config.target, config, options)
    except UserError as error:
        if options.image is None:
            raise UserError(f"--image: got none, and there are no test images to show: {error}") from error
        return Batch(torch.empty(0, *config.shape), None)
    count = options.images or IMAGES
    count = count if target.size is None else min(count, target.size)
    return target.draw(count, seed=derive_seed(config.seed, "study"), step=0)


def read_image(path: Path, config: Config) -> Tensor:
    """Return an image file as [1, C, H, W], of the pipeline's shape. Raises UserError for one that cannot be read."""
    channels, height, width = config.shape
    return load_image(path, (channels, height, width))[None]


def sampler(component: SamplerConfig, config: Config, options: ReportOptions) -> Sampler:
    """Return the sampler of a component's test split."""
    return build_sampler(
        *(component, config.shape), data_root=options.data_root, split="test", device=torch.device("cpu")
    )


def drawing(config: Config, options: ReportOptions) -> Tensor | None:
    """Return the drawing that was given, else a synthetic image as it stands in for the target's in a smoke test.

    None, where these have another shape.
    """
    if options.drawing is not None:
        return read_image(options.drawing, config)
    kind: Any = config.target.stand_in or config.target
    try:
        drawn = sampler(replace(kind, count=10), config, options)
    except UserError:
        return None
    return drawn.draw(1, seed=derive_seed(config.seed, "drawing"), step=0).samples


def asked_classes(config: Config, texts: Sequence[str] | None) -> tuple[int, ...]:
    """Return the classes that texts ask for; None: two of them. Raises UserError for what is no class."""
    if texts is not None:
        return tuple(label for text in texts for label in parse_labels(text, config))
    return TURNED if config.num_classes > max(TURNED) else tuple(range(min(2, config.num_classes)))


def kept_classifier(pipeline: Pipeline, folder: Path) -> Classifier | None:
    """Return the classifier of the target's classes that is shipped or was trained for the run in `folder`, if any."""
    config = pipeline.config
    kept = classifier_folder(weights.results_folder(folder, config))
    file = classifier.kept_file(config.target, config.shape, kept)
    return None if file is None else classifier.load(file, config.shape, pipeline.device).classifier
