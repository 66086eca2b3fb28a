"""Where things are: one's own runs, and what comes with the installation."""

from pathlib import Path

RUNS = Path("runs")
SHIPPED = Path(__file__).parents[1] / "models" / "shipped"
"""Trained weights, in a folder by the name of each pipeline."""
FEATURES = SHIPPED / "features"
"""The classifiers that measures see with."""
