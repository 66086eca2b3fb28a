"""Two folders of paired images in color: discs, and squares of the same colors and sizes at the same places.

python tests/benchmarks/make_shapes.py shapes      writes shapes/discs and shapes/squares, 400 PNG files in each
"""

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIZE, FINER = 64, 4  # pixels; drawn at 4 times that and shrunk, for smooth edges

folder = Path(sys.argv[1])
for name in ("discs", "squares"):
    (folder / name).mkdir(parents=True, exist_ok=True)
for index in range(400):
    rng = random.Random(index)
    ground = tuple(rng.randint(0, 60) for _ in "rgb")
    color = tuple(rng.randint(80, 255) for _ in "rgb")
    x, y, r = rng.randint(18, 46), rng.randint(18, 46), rng.randint(8, 16)
    box = [FINER * at for at in (x - r, y - r, x + r, y + r)]
    for name in ("discs", "squares"):
        image = Image.new("RGB", (FINER * SIZE, FINER * SIZE), ground)
        pen = ImageDraw.Draw(image)
        (pen.ellipse if name == "discs" else pen.rectangle)(box, fill=color)
        image.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(folder / name / f"{index:03d}.png")
