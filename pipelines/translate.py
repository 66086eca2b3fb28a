"""The verb `translate`: image files in, translated image files out.

A result depends on the weights, the settings and the bytes of its own input alone. The network always sees blocks of
one size, so that neither `--batch-size`, nor other files, nor the number of processes changes a bit of it.
"""

from typing import Any

from flowferry.configs.components import SamplerConfig
from flowferry.configs.file_options import TranslateOptions
from flowferry.configs.labels import parse_labels
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.image_writing import check_channels
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.translate_tree import opened, reading, take_files, trained_reading
from flowferry.pipelines.translation.sizes import Sizes, choose_sizes
from flowferry.pipelines.translation.transforms import Translation
from flowferry.pipelines.translation.translator import Translator


def run(options: TranslateOptions) -> int:
    """Translate `options.input` into `options.output`; return the exit code, 1 if any file failed."""
    run = opened(options)
    translator = translator_of(run.pipeline, options)
    settings = {"labels": asked_label(run.pipeline.config, options), "reverse": options.reverse}
    return take_files(translator, options.input, options, run, settings)


def translator_of(pipeline: Pipeline, options: TranslateOptions) -> Translator:
    """Return what translates as the options say. Raises UserError for options that the pipeline cannot follow."""
    check(pipeline, options)
    if options.labels is None and pipeline.config.asked_classes and pipeline.weaker is None:
        pipeline = pipeline.using(guidance=0)  # unconditional, because no class is asked for
    at = sizes(pipeline, options)
    transform = Translation(
        pipeline=pipeline,
        seed=options.seed,
        variants=options.variants,
        label=asked_label(pipeline.config, options),
        reverse=options.reverse,
        tile=at.tile,
        overlap=at.overlap,
    )
    check_variants(transform, options)
    trained = trained_reading(start_of(pipeline.config, options))
    how: Any = {"reading": reading(trained, options), "restore_size": options.restore_size, "sizes": at}
    return Translator(transform=transform, **how)


def check(pipeline: Pipeline, options: TranslateOptions) -> None:
    """Raise UserError for options that the pipeline cannot follow, before any file is read."""
    config = pipeline.config
    if not config.is_image:
        raise UserError(
            f"translate: got {config.name}, which carries points in the plane, expected images; use `sample`"
        )
    if config.source.is_noise and not options.reverse:
        raise UserError(
            f"translate: got {config.name}, which starts from noise, expected images; use `sample`, or --reverse"
        )
    pipeline.check_direction(reverse=options.reverse)
    if options.format is not None:
        check_channels(options.format, config.shape[0])
    asked_label(config, options)


def check_variants(translation: Translation, options: TranslateOptions) -> None:
    """Raise UserError where several variants are asked for and all of them would be the same."""
    if options.variants > 1 and not translation.is_random:
        way_out = "" if options.reverse else ", or noise on the source: --source-noise"
        raise UserError(
            f"--variants: got {options.variants}, which would all be the same without noise; expected 1{way_out}"
        )


def asked_label(config: Config, options: TranslateOptions) -> int | None:
    """Return the label of the class that the options ask for; None for none. Raises UserError for anything else."""
    labels = [None] if options.labels is None else parse_labels(options.labels, config)
    if len(labels) != 1:
        raise UserError(f"--labels: got {options.labels!r}, expected one class for all images")
    return labels[0]


def start_of(config: Config, options: TranslateOptions) -> SamplerConfig:
    """Return the side of the pipeline that is translated."""
    return config.target if options.reverse else config.source


def sizes(pipeline: Pipeline, options: TranslateOptions) -> Sizes:
    """Return at which size to translate: as the options say, else as the pipeline was trained."""
    crops = trained_reading(start_of(pipeline.config, options)).resize == "crop"
    tiles: Any = {"tile": options.tile, "overlap": options.overlap}
    return choose_sizes(pipeline, options.size, **tiles, resize=options.resize, crops=crops)
