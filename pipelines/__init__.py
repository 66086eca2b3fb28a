"""`from pipelines import Pipeline`: a trained pipeline samples, translates and inverts."""

from pipelines.pipeline import Pipeline

__all__ = ["Pipeline"]
