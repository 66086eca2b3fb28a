"""Carry images from any source distribution to any target distribution: `from flowferry import Pipeline`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowferry.pipelines.pipeline import Pipeline

__all__ = ["Pipeline"]


def __getattr__(name: str) -> Any:
    """Import `Pipeline`, and torch with it, when it is first asked for: `--help` answers without either."""
    if name == "Pipeline":
        from flowferry.pipelines.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
