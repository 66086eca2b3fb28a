"""The options of the verb that shows a trained pipeline in the browser; see options.py."""

from dataclasses import dataclass
from typing import Annotated

from flowferry.configs.file_options import ReadOptions, SizeOptions, TextOptions, UseOptions
from flowferry.configs.validation import Positive, Range


@dataclass(frozen=True, kw_only=True)
class ServeOptions(SizeOptions, TextOptions, ReadOptions, UseOptions):
    """Show a trained pipeline in the browser: upload a picture, translate or edit it, compare; needs
    flowferry[serve]."""

    host: str = "127.0.0.1"
    """The address to listen at. The default is this machine alone; 0.0.0.0 lets in everybody who reaches it."""
    port: Annotated[int, Range(0, 65535)] = 7860
    """The port to listen at; 0: any free one."""
    max_upload: Annotated[float, Positive] = 32.0
    """Megabytes (millions of bytes) of an upload, at most."""
    max_pixels: Annotated[int, Range(1)] = 2**24
    """Pixels of a picture, at most; larger ones are refused before they are decoded."""
    max_variants: Annotated[int, Range(1)] = 16
    """Results that may be asked for at a time."""
    max_steps: Annotated[int, Range(1)] = 100
    """Solver steps that may be asked for, unless the pipeline itself takes more."""
