"""What a visitor asks for, as the options of the verbs `translate`, `edit` and `sample`, whose functions do it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from flowferry.configs.file_options import EditOptions, ReadOptions, SizeOptions, TranslateOptions
from flowferry.configs.labels import class_names_of
from flowferry.configs.options import SampleOptions
from flowferry.configs.schema import Config
from flowferry.configs.serve_options import ServeOptions
from flowferry.pipelines import edit, translate
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.translation.edits import EDITS
from flowferry.pipelines.translation.translator import Translator

EVERYWHERE = "0,0,1,1"  # as a mask
TRANSLATIONS = ("translate", "back")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a visitor asks for; None: as the pipeline, or the edit, has it."""

    action: str
    """A key of `ACTIONS`."""
    picture: Path | None = None
    mask: Path | None = None
    """An image file whose white parts are made anew."""
    labels: tuple[int | None, ...] = ()
    """A class for each of the action's `labels`; None: no class."""
    variants: int = 1
    seed: int = 0
    start: float | None = None
    resample: int | None = None
    view: Any = None
    """A `ViewName`."""
    sigma: float | None = None
    steps: int | None = None
    guidance: float | None = None
    restore_size: bool = False


def starts_from_picture(action: str, config: Config) -> bool:
    """Return whether an action of a pipeline starts from a picture, not from noise."""
    if action in (*TRANSLATIONS, "sample"):
        return action != "sample"
    return EDITS[action].start is not None or not config.source.is_noise


def translators(pipeline: Pipeline, options: ServeOptions, asked: Asked) -> list[Translator]:
    """Return what does a translation or an edit; an edit of a picture once for each seed.

    Raises UserError where the pipeline cannot do it.
    """
    how: Any = {"pipeline": options.pipeline, "destination": ".", "restore_size": asked.restore_size}
    how |= {f.name: getattr(options, f.name) for f in fields(ReadOptions)}
    texts = asked_texts(asked.labels, pipeline.config)
    if asked.action in TRANSLATIONS:
        how |= {f.name: getattr(options, f.name) for f in fields(SizeOptions)}
        how |= {"labels": texts[0] if texts else None, "reverse": asked.action == "back", "variants": asked.variants}
        return [translate.translator_of(pipeline, TranslateOptions(**how, input=Path(), seed=asked.seed))]
    has_picture = starts_from_picture(asked.action, pipeline.config)
    how |= {"edit": asked.action, "labels": texts or None, "input": Path() if has_picture else None}
    how |= edit_options(asked)
    seeds = [asked.seed + k for k in range(asked.variants if has_picture else 1)]
    return [edit.editor_of(pipeline, EditOptions(**how, seed=seed)) for seed in seeds]


def edit_options(asked: Asked) -> dict[str, Any]:
    """Return the options that only some edits take, of those that this one takes."""
    kind = EDITS[asked.action]
    options: dict[str, Any] = {}
    if kind.start is not None:
        options["start"] = (kind.start if asked.start is None else asked.start,)
    if "mask" in kind.takes:
        options |= {"mask": str(asked.mask or EVERYWHERE), "resample": asked.resample}
    if "view" in kind.takes:
        options["view"] = None if asked.view is None else (asked.view,)
    return options | ({"sigma": asked.sigma} if "sigma" in kind.takes else {})


def sample_options(options: ServeOptions, asked: Asked, config: Config) -> SampleOptions:
    """Return how new images are drawn."""
    texts = asked_texts(asked.labels, config)
    how: Any = {"count": asked.variants, "labels": texts[0] if texts else None, "seed": asked.seed}
    return SampleOptions(pipeline=options.pipeline, batch_size=options.batch_size, **how)


def asked_texts(labels: Sequence[int | None], config: Config) -> tuple[str, ...]:
    """Return the classes that are asked for as on the command line: by name where they have names."""
    names = class_names_of(config)
    return tuple(names[label] if names else str(label) for label in labels if label is not None)
