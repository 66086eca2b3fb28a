"""Synthetic images: stand-ins for real data sets that need no download.

They have the shapes, the ranges and the number of classes of the real data, so any pipeline can be tried on them for a
minute. They vary far less than the real data, so a score on them says nothing about a score on the real data.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from flowferry.datasets.garments import CANVAS, DETAIL, FRAME, Pair, sketch_garment

NUM_CLASSES = 10
FONT = ImageFont.load_default(size=84)

# What names a stream of random numbers besides the seed: (DIGITS or GARMENTS; LABELS, IMAGES or COLORS; an index).
DIGITS, GARMENTS, LABELS, IMAGES, COLORS = range(5)

Painter = Callable[[int, np.random.Generator], Image.Image]
"""(label, generator) -> an image of mode L, 28×28."""


def draw_digits(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `count` digits, white on black, placed and sized as in MNIST.

    Returns images, uint8 [count, 28, 28] in 0 … 255, and labels, int64 [count] in 0 … 9. Each whole block of ten holds
    every label once. Image and label i depend only on i and `seed`, which may be any integer. Raises ValueError if
    `count` is below 1.
    """
    return _draw(count, seed, DIGITS, _paint_digit)


def draw_garments(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `count` garments, gray on black, with the ten classes of FashionMNIST in its order.

    Returns images, uint8 [count, 28, 28] in 0 … 255, and labels, int64 [count] in 0 … 9. Each whole block of ten holds
    every label once. Image and label i depend only on i and `seed`, which may be any integer. Raises ValueError if
    `count` is below 1.
    """
    return _draw(count, seed, GARMENTS, _paint_garment)


def draw_colors(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the garments of `draw_garments` in color on 32×32: each has its own color and a dim background of another.

    Returns images, uint8 [count, 3, 32, 32] in 0 … 255, and labels, int64 [count] in 0 … 9: those of `draw_garments`.
    Image and label i depend only on i and `seed`, which may be any integer. Raises ValueError if `count` is below 1.
    """
    gray, labels = draw_garments(count, seed)
    light = torch.nn.functional.pad(gray[:, None].float() / 255, (2, 2, 2, 2))
    paints = np.stack([_generator(seed, GARMENTS, COLORS, i).uniform(0.2, 1, (2, 3)) for i in range(count)])
    cloth, ground = torch.from_numpy(paints).float()[..., None, None].unbind(1)
    return (255 * (light * cloth + (light == 0) * 0.4 * ground)).round().to(torch.uint8), labels


def _draw(count: int, seed: int, kind: int, paint: Painter) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images uint8 [count, 28, 28] and labels int64 [count]; kind: DIGITS or GARMENTS."""
    if count < 1:
        raise ValueError(f"count: got {count}, expected at least 1")
    blocks = range(math.ceil(count / NUM_CLASSES))
    labels = np.concatenate([_generator(seed, kind, LABELS, b).permutation(NUM_CLASSES) for b in blocks])[:count]
    images = [np.asarray(paint(c, _generator(seed, kind, IMAGES, i))) for i, c in enumerate(labels.tolist())]
    return torch.from_numpy(np.stack(images)), torch.from_numpy(labels).long()


def _generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of the stream that `seed` and `key` name; no two names share a stream."""
    # The remainder accepts negative seeds, as torch.manual_seed does; NumPy alone would refuse them.
    return np.random.default_rng(np.random.SeedSequence(seed % 2**64, spawn_key=key))


def _warp(image: Image.Image, rng: np.random.Generator, slant: float, bend: float) -> Image.Image:
    """Return a drawing turned, sheared, stretched and bent at random.

    slant: the largest change of each entry of the identity matrix; bend: the largest further shift of each corner of
    the mesh, in pixels of the frame.
    """
    # The canvas is a mesh of 2 × 2 cells; Pillow fills each cell from the quadrilateral of its moved corners. The
    # factor zooms out, so that nothing is pushed off the canvas; _fit sets the final size.
    matrix = 1.25 * (np.eye(2) + rng.uniform(-slant, slant, (2, 2)))
    half = CANVAS // 2
    corners = half * np.array([[(x, y) for x in (-1, 0, 1)] for y in (-1, 0, 1)])
    moved = corners @ matrix.T + half + DETAIL * rng.uniform(-bend, bend, corners.shape)
    cells = []
    for row, column in np.ndindex(2, 2):
        box = (column * half, row * half, (column + 1) * half, (row + 1) * half)
        ring = moved[[row, row + 1, row + 1, row], [column, column, column + 1, column + 1]]
        cells.append((box, ring.flatten().tolist()))
    return image.transform(image.size, Image.Transform.MESH, cells, Image.Resampling.BILINEAR)


def _fit(image: Image.Image, rng: np.random.Generator, longest: Pair, shift: float) -> Image.Image:
    """Return a drawing cropped, shrunk and placed in the frame at random.

    longest: range of the longer side; shift: largest distance from the center; both in pixels of the frame.
    """
    drawn = image.crop(image.getbbox())
    scale = rng.uniform(*longest) / max(drawn.size)
    width, height = (round(side * scale) for side in drawn.size)
    left, top = (round((FRAME - side) / 2 + rng.uniform(-shift, shift)) for side in (width, height))
    frame = Image.new("L", (FRAME, FRAME))
    frame.paste(drawn.resize((width, height), Image.Resampling.BOX), (left, top))
    return frame


def _paint_digit(label: int, rng: np.random.Generator) -> Image.Image:
    image = Image.new("L", (CANVAS, CANVAS))
    pen, middle = int(rng.integers(-1, 4)), (CANVAS / 2, CANVAS / 2)
    ImageDraw.Draw(image).text(middle, str(label), 255, FONT, anchor="mm", stroke_width=max(pen, 0))
    if pen < 0:  # thinner than the font
        image = image.filter(ImageFilter.MinFilter(3))
    image = _warp(image, rng, slant=0.18, bend=2).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
    gain = rng.uniform(0.9, 1.5)
    return _fit(image, rng, longest=(18.5, 20.5), shift=1).point(lambda gray: min(255, round(gray * gain)))


def _paint_garment(label: int, rng: np.random.Generator) -> Image.Image:
    sketch = sketch_garment(label, rng)
    shade = rng.uniform(90, 255)
    trim = round(shade + (80 if shade < 150 else -80))  # seams stand out from the cloth
    cloth = _cloth(shade, rng)
    cloth.paste(trim, mask=sketch.seams)
    image = _warp(ImageChops.multiply(cloth, sketch.silhouette), rng, slant=0.06, bend=0.6)
    return _fit(image, rng, longest=(26, 28), shift=0.6)


def _cloth(shade: float, rng: np.random.Generator) -> Image.Image:
    """Return a canvas full of cloth: the gray `shade` under uneven light, with some grain and, at times, stripes."""
    y, x = np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j]
    light = 1 + rng.uniform(-0.15, 0.15) * x + rng.uniform(-0.15, 0.15) * y
    if rng.random() < 0.2:
        light -= rng.uniform(0.15, 0.5) * (np.sin((x, y)[rng.integers(2)] * rng.uniform(14, 30)) > 0)
    grain = rng.normal(0, 6, (FRAME, FRAME)).repeat(DETAIL, axis=0).repeat(DETAIL, axis=1)
    return Image.fromarray((shade * light + grain).clip(20, 255).astype(np.uint8))
