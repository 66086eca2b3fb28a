"""The mask that is drawn by hand: of what Gradio's editor of images sends, only the layer that is painted on."""

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import gradio as gr

from flowferry.pipelines.serving.pictures import enlarged, painted


def mask_editor(shape: tuple[int, ...], folder: Path) -> gr.ImageEditor:
    """Return an editor in which a mask for images of `shape` (C, H, W) is painted; its value is a file in `folder`.

    Gradio's own would decode any number of layers of any size. Its method is replaced in the object, because Gradio
    writes a file beside the source of a class that is derived from one of its own. So the editor is shown and hidden by
    what it lies in: to change its own properties makes another object.
    """
    size = enlarged(*shape[1:])
    editor = gr.ImageEditor(
        label="Mask: paint here",
        format="png",
        sources=(),
        transforms=(),
        layers=False,
        canvas_size=size,
        fixed_canvas=True,
        brush=gr.Brush(colors=["#f97316"], color_mode="fixed", default_size=max(size) // 8),
        eraser=gr.Eraser(default_size=max(size) // 8),
        buttons=[],
        interactive=True,
        elem_id="mask",
    )

    def preprocess(payload: Any) -> str | None:
        """Return the file of the mask that was painted; None where nothing was."""
        layers = [] if payload is None else [layer for layer in payload.layers if layer is not None]
        mask = painted(Path(layers[0].path).read_bytes(), size) if layers else None
        if mask is None:
            return None
        with NamedTemporaryFile(suffix=".png", dir=folder, delete=False) as file:
            file.write(mask)
        editor.temp_files.add(file.name)  # Gradio removes it in time
        return file.name

    editor.preprocess = preprocess  # type: ignore[method-assign, assignment]
    return editor
