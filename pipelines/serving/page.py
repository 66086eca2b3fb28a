"""The page: what a visitor sees, and what happens when something is chosen, uploaded or asked for."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from PIL import Image

from flowferry.configs.validation import UserError
from flowferry.pipelines.serving.controls import Controls, controls_of
from flowferry.pipelines.serving.door import App
from flowferry.pipelines.serving.pictures import to_look_at
from flowferry.pipelines.serving.studio import Answer, Shown, Studio

FONTS: Any = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"]
"""The first comes with Gradio."""
THEME: dict[str, Any] = {
    "theme": gr.themes.Base(primary_hue="orange", neutral_hue="stone", font=FONTS),
    "css_paths": [Path(__file__).with_name("page.css")],
}
AN_HOUR = 3600  # seconds that uploads and results are kept, at least


def application(studio: Studio, folder: Path) -> App:
    """Return the app that shows a pipeline; what it lets through is decided by a `Door`. folder: as for `page`."""
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    most = round(studio.options.max_upload * 1e6)
    nothing: Any = {"footer_links": [], "run_history": False, "ssr_mode": False, "enable_monitoring": False}
    nothing |= {"mcp_server": False, "pwa": False, "show_error": False}
    return gr.mount_gradio_app(outer, page(studio, folder), path="/", max_file_size=most, **nothing, **THEME)


def page(studio: Studio, folder: Path) -> gr.Blocks:
    """Return the page of a pipeline. folder: of uploads and results."""
    config = studio.pipeline.config
    with gr.Blocks(title=f"{config.name} · flowferry", analytics_enabled=False, delete_cache=(600, AN_HOUR)) as blocks:
        gr.Markdown(f"# {config.name}\n\n{config.summary[:1].upper()}{config.summary[1:]}.", elem_id="title")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=2, min_width=320):
                controls = controls_of(studio, folder)
            with gr.Column(scale=3, min_width=320):
                results = result_parts()
        wire(studio, controls, results, Shelf(folder))
    blocks.queue(max_size=64, default_concurrency_limit=1, api_open=False)
    blocks.has_launched = True  # Gradio checks paths itself only in apps that it believes to have launched
    return blocks


class Shelf:
    """A folder in which results lie until their visitors have seen them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder / "results", count()
        self.folder.mkdir()

    def put(self, files: dict[str, bytes | Image.Image]) -> list[str]:
        """Write files into a new folder; return their paths."""
        folder = self.folder / str(next(self.numbers))
        folder.mkdir()
        for name, data in files.items():
            data.save(folder / name) if isinstance(data, Image.Image) else (folder / name).write_bytes(data)
        return [str(folder / name) for name in files]


def result_parts() -> dict[str, Any]:
    """Lay out what shows the results; return its parts by name."""
    return {
        "hint": gr.Markdown("The result appears here.", elem_id="hint"),
        "slider": gr.ImageSlider(
            label="Before and after: drag the line", format="png", visible=False, max_height=520, elem_id="slider"
        ),
        "gallery": gr.Gallery(
            label="Results", visible=False, columns=4, allow_preview=False, buttons=[], elem_id="gallery", height="auto"
        ),
        "told": gr.Markdown(visible=False, elem_id="told"),
        "files": gr.File(
            label="Files", visible=False, interactive=False, file_count="multiple", height=180, elem_id="files"
        ),
        "paths": gr.State([]),
    }


def wire(studio: Studio, controls: Controls, results: dict[str, Any], shelf: Shelf) -> None:
    """Say what happens on the page."""
    parts, hidden = controls.parts, {"api_visibility": "private", "show_progress": "hidden"}
    preview = [parts["seen"], parts["mask"], controls.groups["seen"], controls.groups["mask"], parts["notes"]]

    def see(action: str, picture: str | None) -> list[Any]:
        """Show a picture as the network will see it, or where a mask is painted."""
        return seen(studio, action, picture)

    def choose(action: str) -> list[Any]:
        """Show the controls of what is to be done."""
        return controls.updates(studio.actions[action])

    def run(*values: Any) -> list[Any]:
        """Do what is asked for."""
        return shown(answered(lambda: studio.answer(controls.asked(values))), shelf)

    def pick(paths: list[str], event: gr.SelectData) -> tuple[str, str] | None:
        """Compare another result with the picture."""
        return (paths[0], paths[1 + event.index]) if paths else gr.skip()

    chosen = parts["action"].change(choose, parts["action"], controls.changing, **hidden)
    chosen.then(see, [parts["action"], parts["picture"]], preview, **hidden)
    parts["picture"].change(see, [parts["action"], parts["picture"]], preview, **hidden)
    own: Any = {"api_visibility": "private", "concurrency_id": "network", "concurrency_limit": 1}
    parts["run"].click(run, controls.inputs, list(results.values()), scroll_to_output=True, **own)
    results["gallery"].select(pick, results["paths"], results["slider"], **hidden)


def seen(studio: Studio, action: str, picture: str | None) -> list[Any]:
    """Return the picture that is shown, and painted on, and what is told of it."""
    if picture is None or "picture" not in studio.actions[action].takes:
        return [None, None, gr.update(visible=False), gr.update(visible=False), gr.update(value="", visible=False)]
    image, notes = answered(lambda: studio.seen(action, Path(picture)))
    paints = "mask" in studio.actions[action].takes
    told = " ".join(f"The picture has {note}." for note in notes)
    drawn = {"background": to_look_at(image).convert("RGB"), "layers": [], "composite": None} if paints else None
    views = [gr.update(visible=not paints), gr.update(visible=paints)]
    return [None if paints else to_look_at(image), drawn, *views, gr.update(value=told, visible=bool(told))]


def shown(answer: Answer, shelf: Shelf) -> list[Any]:
    """Return what the parts of the results show: the hint, the slider, the gallery, what is told, files, and paths."""
    compares, several = answer.before is not None, len(answer.shown) > 1 or answer.before is None
    images: list[Shown] = [*([(answer.before, "before")] if answer.before is not None else []), *answer.shown]
    paths = shelf.put({f"{k:03d}.png": to_look_at(image) for k, (image, _) in enumerate(images)})
    after = paths[1:] if compares else paths
    captioned = [(path, what) for path, (_, what) in zip(after, answer.shown, strict=True)]
    return [
        gr.update(visible=False),
        gr.update(value=(paths[0], paths[1]) if compares else None, visible=compares),
        gr.update(value=captioned if several else None, visible=several),
        gr.update(value=answer.told, visible=True),
        gr.update(value=shelf.put(dict(answer.files)), visible=True),
        paths if compares else [],
    ]


def answered(work: Callable[[], Any]) -> Any:
    """Return what the work gives; what a visitor can put right is shown to them."""
    try:
        return work()
    except UserError as error:
        text = str(error)
        raise gr.Error(text[:1].upper() + text[1:], print_exception=False, duration=None, title="") from error
