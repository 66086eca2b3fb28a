"""The left side of the page: what is to be done, with which picture, and how."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from flowferry.configs.file_options import ViewName
from flowferry.configs.labels import class_names_of
from flowferry.datasets.image_formats import ENDINGS
from flowferry.pipelines.serving.actions import Action
from flowferry.pipelines.serving.asking import Asked
from flowferry.pipelines.serving.mask import mask_editor
from flowferry.pipelines.serving.studio import Studio
from flowferry.pipelines.translation.edits import EDITS

NO_CLASS = ""
ASKED = ("variants", "seed", "start", "resample", "view", "sigma", "steps", "guidance", "restore_size")
"""Controls that are fields of `Asked` by the same name, beside the action, the picture, the mask and the classes."""
LABELS = ("label", "other")


@dataclass(frozen=True, kw_only=True)
class Controls:
    """The parts of the left side by name, and the groups that are shown and hidden together."""

    parts: dict[str, Any]
    groups: dict[str, Any]
    studio: Studio

    @property
    def inputs(self) -> list[Any]:
        """The parts whose values say what is asked for, in the order of `asked`."""
        return [self.parts[name] for name in ("action", "picture", "mask", *LABELS, *ASKED)]

    @property
    def changing(self) -> list[Any]:
        """The parts that depend on what is to be done, in the order of `updates`."""
        return [self.parts["about"], self.groups["picture"], *(self.parts[name] for name in (*LABELS, *ASKED))]

    def updates(self, action: Action) -> list[Any]:
        """Return how they change for an action."""
        labels = [gr.update(**self.label_options(action, which)) for which in range(len(LABELS))]
        others = [gr.update(visible=name in action.takes, **self.usual(name, action)) for name in ASKED]
        return [action.told, gr.update(visible="picture" in action.takes), *labels, *others]

    def usual(self, name: str, action: Action) -> dict[str, Any]:
        """Return the value that a control has for an action unless it is changed; {}: it keeps the one it has."""
        if name == "variants":
            return {"value": action.variants}
        kind = next((EDITS[key] for key, own in self.studio.actions.items() if own == action and key in EDITS), None)
        return {"value": kind.start} if name == "start" and kind is not None and kind.start is not None else {}

    def label_options(self, action: Action, which: int) -> dict[str, Any]:
        """Return how the first or the second choice of a class looks for an action."""
        if which >= len(action.labels):
            return {"visible": False, "choices": [], "value": None}
        what, no_class = action.labels[which]
        config = self.studio.pipeline.config
        names = class_names_of(config) or tuple(map(str, range(config.num_classes)))
        choices = [(name, str(label)) for label, name in enumerate(names)]
        choices = choices if no_class is None else [(no_class, NO_CLASS), *choices]
        value = choices[min(which, len(choices) - 1)][1] if no_class is None else NO_CLASS
        return {"visible": True, "label": what, "choices": choices, "value": value}

    def asked(self, values: Sequence[Any]) -> Asked:
        """Return what the values of the `inputs` ask for. What the action does not take counts as it is by default."""
        given = dict(zip(("action", "picture", "mask", *LABELS, *ASKED), values, strict=True))
        action = self.studio.actions.get(given["action"], Action("", ""))
        labels = [given[name] for name in LABELS[: len(action.labels)]]
        taken = {name: given[name] for name in ASKED if name in action.takes and given[name] is not None}
        files: dict[str, Any] = {
            name: Path(given[name]) for name in ("picture", "mask") if name in action.takes and given[name]
        }
        return Asked(
            action=given["action"],
            labels=tuple(int(label) if label and label.isdecimal() else None for label in labels),
            **taken,
            **files,
        )


def controls_of(studio: Studio, folder: Path) -> Controls:
    """Lay out the controls of a pipeline. folder: of the masks that are drawn."""
    first = next(iter(studio.actions.values()))
    names = [(action.title, name) for name, action in studio.actions.items()]
    controls = Controls(parts={}, groups={}, studio=studio)
    parts, groups = controls.parts, controls.groups
    parts["action"] = gr.Dropdown(
        names, value=names[0][1], label="What to do", visible=len(names) > 1, elem_id="action"
    )
    parts["about"] = gr.Markdown(first.told, elem_id="about", visible=len(names) > 1)
    with gr.Column(visible="picture" in first.takes) as groups["picture"]:
        parts["picture"] = gr.File(
            label=f"Picture, up to {studio.options.max_upload:g} MB",
            file_types=list(ENDINGS),
            height=132,
            elem_id="picture",
        )
        with gr.Column(visible=False) as groups["seen"]:
            parts["seen"] = gr.Image(
                label="As the network sees it", interactive=False, buttons=[], format="png", height=240, elem_id="seen"
            )
        with gr.Column(visible=False) as groups["mask"]:
            parts["mask"] = mask_editor(studio.pipeline.config.shape, folder)
        parts["notes"] = gr.Markdown(visible=False, elem_id="notes")
    lay_out_choices(controls, first)
    parts["run"] = gr.Button("Run", variant="primary", size="lg", elem_id="run")
    return controls


def lay_out_choices(controls: Controls, first: Action) -> None:
    """Lay out the classes and the numbers, as they are for the `first` action."""
    parts, studio = controls.parts, controls.studio
    solver = studio.pipeline.config.solver

    def own(name: str, **usual: Any) -> dict[str, Any]:
        usual = usual | controls.usual(name, first)
        return {**usual, "visible": name in first.takes, "elem_id": name}

    with gr.Row():
        for which, name in enumerate(LABELS):
            parts[name] = gr.Dropdown(**controls.label_options(first, which), elem_id=name, min_width=140)
    most = studio.options.max_variants
    parts["variants"] = gr.Slider(1, most, step=1, label="Variants", **own("variants", value=1))
    parts["start"] = gr.Slider(0, 1, step=0.05, label="Start: 0 keeps nothing, 1 all", **own("start", value=0.5))
    parts["view"] = gr.Dropdown(list(get_args(ViewName)), label="The other view", **own("view", value="rotate180"))
    with gr.Accordion("More", open=False):
        parts["seed"] = gr.Number(label="Seed", precision=0, minimum=0, **own("seed", value=0))
        parts["steps"] = gr.Slider(1, studio.max_steps, step=1, label="Steps", **own("steps", value=solver.num_steps))
        parts["guidance"] = gr.Slider(
            0, max(10, solver.guidance), step=0.1, label="Guidance: 1 is none, more keeps closer to the target",
            **own("guidance", value=solver.guidance),
        )  # fmt: skip
        parts["resample"] = gr.Slider(
            1, 10, step=1, label="Times each step is taken (RePaint)", **own("resample", value=1)
        )
        parts["sigma"] = gr.Number(label="Where far parts from near: σ in pixels, empty for the usual", **own("sigma"))
        parts["restore_size"] = gr.Checkbox(label="Give the result the size of the picture", **own("restore_size"))
