"""What comes with the installation: trained weights, and the classifiers that measures see with."""

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "models" / "shipped"
FEATURES = SHIPPED / "features"
