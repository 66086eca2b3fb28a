"""Patterns of the synthetic garments: datasets/garments.py."""

import numpy as np
import pytest
from PIL import ImageOps

from flowferry.datasets.garments import CANVAS, sketch_garment

SANDAL, SNEAKER, BOOT = 5, 7, 9


@pytest.mark.parametrize("label", range(10))
def test_all_garments_but_shoes_are_symmetric(label: int) -> None:
    for seed in range(20):
        sketch = sketch_garment(label, np.random.default_rng(seed))
        assert sketch.silhouette.size == sketch.seams.size == (CANVAS, CANVAS)
        if label in (SANDAL, SNEAKER, BOOT):
            assert ImageOps.mirror(sketch.silhouette) != sketch.silhouette
        else:
            assert ImageOps.mirror(sketch.silhouette) == sketch.silhouette
            assert ImageOps.mirror(sketch.seams) == sketch.seams
