"""A trained pipeline, open to visitors: what they can do with it, and what becomes of what they ask for.

The work is done by the functions of the verbs `translate`, `edit` and `sample`: the files are theirs, byte by byte.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from flowferry.configs.images import ReadConfig
from flowferry.configs.serve_options import ServeOptions
from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import numbered
from flowferry.datasets.image_io import NOTES, decode, to_tensor
from flowferry.datasets.image_writing import WRITTEN, encode, format_for
from flowferry.pipelines import edit, sample
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.serving.actions import ACTIONS, Action
from flowferry.pipelines.serving.asking import TRANSLATIONS, Asked, sample_options, starts_from_picture, translators
from flowferry.pipelines.translate_file import encoded, loaded_file
from flowferry.pipelines.translation.files import LoadedImage, Result, reading_of_result
from flowferry.pipelines.translation.translator import Translator

Shown = tuple[Tensor, str]
"""An image [C, H, W] in [-1, 1], and what it is."""


class Answer(NamedTuple):
    """What became of what was asked for."""

    before: Tensor | None
    """The picture [C, H, W] as it lies under the results; None where there is none."""
    shown: list[Shown]
    files: list[tuple[str, bytes]]
    """The results as the verbs write them: names and contents."""
    told: str
    """How it was done, and what was worth telling of the picture."""


@dataclass(frozen=True, kw_only=True)
class Studio:
    """A pipeline and the options that it is shown with."""

    pipeline: Pipeline
    options: ServeOptions

    @cached_property
    def actions(self) -> dict[str, Action]:
        """What can be done with it, with the controls that it has. Raises UserError where that is nothing."""
        config = self.pipeline.config
        if not config.is_image:
            raise UserError(f"serve: got {config.name}, which carries points in the plane, expected images")
        asks_sizes = (self.options.size, self.options.tile, self.options.overlap) != (None, None, None)
        if config.source.is_noise and asks_sizes:
            raise UserError(f"--size, --tile, --overlap: got one for {config.name}, which starts from noise")
        if not config.source.is_noise:
            self.usual("translate")  # options that contradict one another are told here
        return {name: self.offered(name) for name in ACTIONS if self.is_able(name)}

    def is_able(self, action: str) -> bool:
        """Return whether the pipeline can do it."""
        if action in (*TRANSLATIONS, "sample"):
            is_made_for_it = self.pipeline.config.source.is_noise == (action == "sample")
            return is_made_for_it and (action != "back" or self.pipeline.is_invertible)
        try:
            self.usual(action)
        except UserError:
            return False
        return True

    def offered(self, name: str) -> Action:
        """Return an action with those of its controls that make a difference with this pipeline."""
        action, config = ACTIONS[name], self.pipeline.config
        takes = action.takes | ({"picture", "restore_size"} if starts_from_picture(name, config) else frozenset())
        takes -= {"steps"} if self.max_steps == 1 else frozenset()
        is_guided = config.num_classes or self.pipeline.weaker is not None
        if not is_guided or config.has_teacher:  # a student has learned its teacher's guidance
            takes -= {"guidance"}
        if name in TRANSLATIONS:
            usual = self.usual(name)
            takes -= frozenset() if usual.transform.is_random else {"seed", "variants"}
            takes -= {"restore_size"} if usual.sizes.own else frozenset()
        labels = action.labels if config.num_classes else ()
        if config.infer_labels and name == "translate":
            labels = ((labels[0][0], "as inferred from the picture"),)
        several = action.variants if "picture" not in takes else 1
        return action._replace(takes=takes, labels=labels, variants=min(several, self.options.max_variants))

    @property
    def max_steps(self) -> int:
        """The most solver steps that may be asked for."""
        able = self.pipeline.objective.max_steps or self.pipeline.path.levels or math.inf
        return int(min(able, max(self.options.max_steps, self.pipeline.config.solver.num_steps)))

    def usual(self, action: str) -> Translator:
        """Return what does a translation or an edit as it is unless asked otherwise.

        Raises UserError where the pipeline cannot do it.
        """
        needs = tuple(0 if no_class is None else None for _, no_class in ACTIONS[action].labels)
        return translators(self.pipeline, self.options, Asked(action=action, labels=needs))[0]

    # --- a picture ----------------------------------------------------------------------------------------

    def seen(self, action: str, picture: Path) -> tuple[Tensor, list[str]]:
        """Return a picture [C, H, W] as the network will see it, and what is worth telling of it.

        Raises UserError saying why it cannot be read.
        """
        loaded = self.loaded(self.usual(action), picture)
        return loaded.image, [NOTES[note] for note in loaded.notes]

    def loaded(self, translator: Translator, picture: Path) -> LoadedImage:
        """Read, check and frame a picture. Raises UserError saying why it cannot be read."""
        try:
            most, size = self.options.max_upload * 1e6, picture.stat().st_size
        except OSError:
            raise UserError("The picture is not kept any more: upload it again.") from None
        if size > most:
            raise UserError(f"got {size / 1e6:.3g} MB, expected at most {most / 1e6:g} MB")
        name = picture.stem + WRITTEN[format_for(picture.name, None)].endings[0]
        loaded = loaded_file(translator, picture, name)
        if isinstance(loaded, Result):
            raise UserError(str(loaded.entry["error"]))
        return loaded

    # --- what becomes of it -------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        """Return what becomes of what is asked for. Raises UserError for what cannot be done."""
        began = perf_counter()
        action = self.check(asked)
        own, steps = self.pipeline.config.solver.num_steps, asked.steps
        pipeline = self.pipeline.using(steps=None if steps == own else steps, guidance=asked.guidance)
        if asked.action == "sample":
            answer = self.sampled(pipeline, asked)
        elif "picture" in action.takes:
            answer = self.changed(pipeline, asked)
        else:
            answer = self.made(pipeline, asked)
        return answer._replace(told=f"{answer.told} · {perf_counter() - began:.1f} s")

    def check(self, asked: Asked) -> Action:
        """Return the action that is asked for. Raises UserError for one that is not offered, or not with this."""
        if asked.action not in self.actions:
            raise UserError(f"got {asked.action!r}, expected one of {', '.join(self.actions)}")
        action = self.actions[asked.action]
        for name, most in (("steps", self.max_steps), ("variants", self.options.max_variants)):
            if not 1 <= (number := getattr(asked, name) or 1) <= most:
                raise UserError(f"{name}: got {number}, expected 1 to {most}")
        if "picture" in action.takes and asked.picture is None:
            raise UserError("Upload a picture first.")
        if "mask" in action.takes and asked.mask is None:
            raise UserError("Paint over what is to be made anew first.")
        chosen = zip(action.labels, asked.labels, strict=True)
        missing = [what for (what, no_class), label in chosen if label is None and no_class is None]
        if missing:
            raise UserError(f"Choose a class: {missing[0]}.")
        if asked.action == "anagram" and len({label is None for label in asked.labels}) > 1:
            raise UserError("Choose a class for both views, or for none.")
        return action

    def changed(self, pipeline: Pipeline, asked: Asked) -> Answer:
        """Return what becomes of a picture that is translated, or edited with a seed each."""
        assert asked.picture is not None
        doing = translators(pipeline, self.options, asked)
        loaded = self.loaded(doing[0], asked.picture)
        is_edit = asked.action not in TRANSLATIONS
        count = 1 if is_edit else asked.variants
        data = [each for one in doing for each in encoded(one, loaded, asked.picture.parent, count)]
        original = doing[0].sizes.own or asked.restore_size
        reading = reading_of_result(loaded.item.output, loaded.stored, doing[0].reading)
        before = to_tensor(doing[0].original(asked.picture).pixels) if original else loaded.image
        captions = [f"seed {asked.seed + k}" if is_edit else f"variant {k + 1}" for k in range(len(data))]
        shown = [(shown_image(each, len(before), reading), what) for each, what in zip(data, captions, strict=True)]
        names = [numbered(loaded.item.output, k + 1, of=len(data)) for k in range(len(data))]
        told = [doing[0].transform.told, *(f"the picture has {NOTES[note]}" for note in loaded.notes)]
        return Answer(before, shown, list(zip(names, data, strict=True)), " · ".join(told))

    def sampled(self, pipeline: Pipeline, asked: Asked) -> Answer:
        """Return new images."""
        images, labels = sample.drawn(pipeline, sample_options(self.options, asked, pipeline.config))
        captions = [f"{k}" for k in range(len(images))] if labels is None else [f"class {label}" for label in labels]
        files = list(sample.encoded(images, labels))
        return Answer(None, list(zip(images.cpu(), captions, strict=True)), files, pipeline.sampling)

    def made(self, pipeline: Pipeline, asked: Asked) -> Answer:
        """Return new images of an anagram or a hybrid, each as it is and as it is seen otherwise."""
        (doing,) = translators(pipeline, self.options, asked)
        _, results = edit.drawn(doing, asked.variants, asked.seed)
        format = edit.format_of(pipeline.config)
        files = [(f"{k:05d}{WRITTEN[format].endings[0]}", encode(image, format)) for k, image in enumerate(results)]
        views = edit.seen(torch.stack(results), doing.transform)
        shown = [(images[k], what) for k in range(len(results)) for what, images in views.items()]
        return Answer(None, shown, files, doing.transform.told)


def shown_image(data: bytes, channels: int, reading: ReadConfig) -> Tensor:
    """Return what a result's file holds [C, H, W]."""
    return to_tensor(decode(data, channels, reading).pixels)
