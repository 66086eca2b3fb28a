"""The verb `serve`: show a trained pipeline in the browser."""

from importlib.util import find_spec

from flowferry.configs.serve_options import ServeOptions
from flowferry.configs.validation import UserError
from flowferry.pipelines.prompts import prompted
from flowferry.pipelines.serving.door import LOCAL, Door
from flowferry.pipelines.serving.server import listen, quiet_gradio, serve
from flowferry.pipelines.serving.studio import Studio
from flowferry.pipelines.translate_tree import opened

ENVELOPE = 1 << 16  # bytes of a request around the file that it uploads, at most


def run(options: ServeOptions) -> int:
    """Answer at `options.host` and `options.port` until Ctrl-C."""
    if find_spec("gradio") is None:
        raise UserError("serve: got no gradio, expected it: pip install 'flowferry[serve]'")
    with listen(options.host, options.port) as bound, quiet_gradio() as folder:
        pipeline = prompted(opened(options).pipeline, options)
        studio = Studio(pipeline=pipeline, options=options)
        assert studio.actions  # what the pipeline and the options do not allow is told before the page is made

        from flowferry.pipelines.serving.page import application  # Gradio takes seconds to import

        app = application(studio, folder)
        most = round(options.max_upload * 1e6) + ENVELOPE
        door = Door(app=app, folder=folder, max_body=most, is_local=options.host in LOCAL)
        serve(door, bound, pipeline.model)
    return 0
