"""Images the project draws itself: stand-ins for MNIST and FashionMNIST that need no network and no disk.

They have the shapes, ranges and classes of the real data, so any pipeline can be tried on them for a
minute. They vary far less than the real data, so a score on them says nothing about a score on it.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

FRAME = 28  # side of a finished image, in pixels
DETAIL = 4  # drawings are made this many times larger, then shrunk, so that their edges come out smooth
CANVAS = FRAME * DETAIL
CLASSES = 10
FONT = ImageFont.load_default(size=84)

# A generator's key is the seed, (DIGITS or GARMENTS), (LABELS, IMAGES or COLOURS), an index: no two share a stream.
DIGITS, GARMENTS, LABELS, IMAGES, COLOURS = range(5)

Pair = tuple[float, float]  # a point (x, y) or a range (low, high)
Painter = Callable[[int, np.random.Generator], Image.Image]


def draw_digits(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `count` digits, white on black, placed and sized as in MNIST.

    Returns images, uint8 [count, 28, 28] in 0..255, and labels, int64 [count] in 0..9; each block of ten
    holds every label once. Image and label i depend only on i and `seed`, which may be any integer.
    Raises ValueError if `count` is below 1.
    """
    return _draw(count, seed, DIGITS, _digit)


def draw_garments(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw `count` garments, grey on black, in the ten classes of FashionMNIST and in its order.

    Returns images, uint8 [count, 28, 28] in 0..255, and labels, int64 [count] in 0..9; each block of ten
    holds every label once. Image and label i depend only on i and `seed`, which may be any integer.
    Raises ValueError if `count` is below 1.
    """
    return _draw(count, seed, GARMENTS, _garment)


def draw_colours(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The garments of `draw_garments` on 32×32, each in a colour of its own on a dim ground of another.

    Returns images, uint8 [count, 3, 32, 32] in 0..255, and labels, int64 [count] in 0..9.
    """
    grey, labels = draw_garments(count, seed)
    light = torch.nn.functional.pad(grey[:, None].float() / 255, (2, 2, 2, 2))
    paints = np.stack([_generator(seed, GARMENTS, COLOURS, i).uniform(0.2, 1, (2, 3)) for i in range(count)])
    cloth, ground = torch.from_numpy(paints).float()[..., None, None].unbind(1)
    return (255 * (light * cloth + (light == 0) * 0.4 * ground)).round().to(torch.uint8), labels


def _draw(count: int, seed: int, kind: int, paint: Painter) -> tuple[torch.Tensor, torch.Tensor]:
    if count < 1:
        raise ValueError(f"count is {count}; it must be at least 1")
    blocks = range(math.ceil(count / CLASSES))
    labels = np.concatenate([_generator(seed, kind, LABELS, b).permutation(CLASSES) for b in blocks])[:count]
    images = [np.asarray(paint(c, _generator(seed, kind, IMAGES, i))) for i, c in enumerate(labels.tolist())]
    return torch.from_numpy(np.stack(images)), torch.from_numpy(labels).long()


def _generator(seed: int, *key: int) -> np.random.Generator:
    # The remainder lets negative seeds through, as torch.manual_seed does; NumPy alone would refuse them.
    return np.random.default_rng(np.random.SeedSequence(seed % 2**64, spawn_key=key))


def _warp(image: Image.Image, rng: np.random.Generator, slant: float, bend: float) -> Image.Image:
    """Turn, shear and stretch by a matrix within `slant` of the identity; bend by up to `bend` pixels."""
    # The canvas is cut into 2 x 2 cells and their nine corners are moved; Pillow stretches them to match.
    # Zoom out by a quarter so that nothing is pushed off the canvas; _fit sets the final size.
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
    """Shrink what is drawn until its longer side lies in `longest`, and centre it give or take `shift`."""
    drawn = image.crop(image.getbbox())
    scale = rng.uniform(*longest) / max(drawn.size)
    width, height = (round(side * scale) for side in drawn.size)
    left, top = (round((FRAME - side) / 2 + rng.uniform(-shift, shift)) for side in (width, height))
    frame = Image.new("L", (FRAME, FRAME))
    frame.paste(drawn.resize((width, height), Image.Resampling.BOX), (left, top))
    return frame


def _digit(label: int, rng: np.random.Generator) -> Image.Image:
    image = Image.new("L", (CANVAS, CANVAS))
    pen, middle = int(rng.integers(-1, 4)), (CANVAS / 2, CANVAS / 2)
    ImageDraw.Draw(image).text(middle, str(label), 255, FONT, anchor="mm", stroke_width=max(pen, 0))
    if pen < 0:  # thinner than the font
        image = image.filter(ImageFilter.MinFilter(3))
    image = _warp(image, rng, slant=0.18, bend=2).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
    gain = rng.uniform(0.9, 1.5)
    return _fit(image, rng, longest=(18.5, 20.5), shift=1).point(lambda grey: min(255, round(grey * gain)))


def _garment(label: int, rng: np.random.Generator) -> Image.Image:
    sketch = _Sketch(rng)
    PATTERNS[label](sketch)
    if label not in SHOES:
        sketch.mirror()  # only the left half, up to x = 14, was drawn
    shade = rng.uniform(90, 255)
    trim = round(shade + (80 if shade < 150 else -80))  # seams stand out from the cloth
    cloth = _cloth(shade, rng)
    cloth.paste(trim, mask=sketch.seams)
    image = _warp(ImageChops.multiply(cloth, sketch.silhouette), rng, slant=0.06, bend=0.6)
    return _fit(image, rng, longest=(26, 28), shift=0.6)


def _cloth(shade: float, rng: np.random.Generator) -> Image.Image:
    """A canvas full of cloth: one grey under uneven light, with some grain and, at times, stripes."""
    y, x = np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j]
    light = 1 + rng.uniform(-0.15, 0.15) * x + rng.uniform(-0.15, 0.15) * y
    if rng.random() < 0.2:
        light -= rng.uniform(0.15, 0.5) * (np.sin((x, y)[rng.integers(2)] * rng.uniform(14, 30)) > 0)
    grain = rng.normal(0, 6, (FRAME, FRAME)).repeat(DETAIL, axis=0).repeat(DETAIL, axis=1)
    return Image.fromarray((shade * light + grain).clip(20, 255).astype(np.uint8))


class _Sketch:
    """A garment's silhouette and seams, in frame pixels from (0, 0) at the top left to (28, 28)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.silhouette, self.seams = (Image.new("L", (CANVAS, CANVAS)) for _ in range(2))

    def vary(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def shape(self, *points: Pair) -> None:
        ImageDraw.Draw(self.silhouette).polygon(_enlarged(points), 255)

    def strap(self, *points: Pair, width: float) -> None:
        ImageDraw.Draw(self.silhouette).line(_enlarged(points), 255, round(width * DETAIL), joint="curve")

    def seam(self, *points: Pair, width: float = 0.6) -> None:
        ImageDraw.Draw(self.seams).line(_enlarged(points), 255, round(width * DETAIL), joint="curve")

    def mirror(self) -> None:
        self.silhouette = ImageChops.lighter(self.silhouette, ImageOps.mirror(self.silhouette))
        self.seams = ImageChops.lighter(self.seams, ImageOps.mirror(self.seams))


def _enlarged(points: tuple[Pair, ...]) -> list[Pair]:
    return [(x * DETAIL, y * DETAIL) for x, y in points]


def _top(s: _Sketch, half: Pair, bottom: Pair, reach: Pair, drop: Pair, collar: Pair) -> Pair:
    """Draw a body with a sleeve; return the heights of its neckline and its hem.

    The ranges are of half the body's width, the hem's height, the sleeve's length, its angle below the
    horizontal in radians, and the neckline's height.
    """
    width, hem, length, angle, neck = (s.vary(*limits) for limits in (half, bottom, reach, drop, collar))
    shoulder, armpit = (14 - width, 3.5), (14.5 - width, s.vary(9, 10.5))
    outer = (shoulder[0] - length * math.cos(angle), shoulder[1] + length * math.sin(angle))
    inner = (outer[0] + 3.5 * math.sin(angle), outer[1] + 3.5 * math.cos(angle))
    nape, corner = (14 - s.vary(2.5, 3.5), 2), (14 - width * s.vary(0.95, 1.1), hem)
    s.shape((14, neck), nape, shoulder, armpit, corner, (14, hem))
    s.shape(shoulder, outer, inner, armpit)
    s.seam(shoulder, armpit)
    return neck, hem


def _t_shirt(s: _Sketch) -> None:
    neck, _ = _top(s, half=(6, 7.5), bottom=(23, 26), reach=(5, 7.5), drop=(0.4, 1), collar=(2.8, 5))
    if s.rng.random() < 0.4:  # a print on the chest
        y = neck + s.vary(4, 6)
        s.seam((14 - s.vary(2, 4), y), (14, y), width=s.vary(1.5, 5))


def _trouser(s: _Sketch) -> None:
    waist, hip, crotch, hem = 14 - s.vary(3.5, 4.5), 14 - s.vary(4.5, 6), s.vary(8, 11), s.vary(24, 27)
    inside, leg = 14 - s.vary(0.4, 1.5), s.vary(2.5, 4)
    s.shape((14, 1), (waist, 1), (hip, crotch), (inside - leg, hem), (inside, hem), (14, crotch))
    s.seam((0, 2.5), (14, 2.5), (14, crotch))


def _pullover(s: _Sketch) -> None:
    _, hem = _top(s, half=(5.5, 7), bottom=(22, 25), reach=(16, 19), drop=(1.15, 1.35), collar=(2.3, 3))
    s.seam((7, hem - 2), (14, hem - 2))
    s.seam((10, 3), (12, 4.5), (14, 4.5), width=0.8)  # collar


def _dress(s: _Sketch) -> None:
    chest, waist, skirt, belt = 14 - s.vary(3, 4), 14 - s.vary(2.2, 3.2), 14 - s.vary(4, 8), s.vary(9.5, 12)
    s.shape((14, s.vary(2.5, 5)), (12.2, 1), (11, 1), (chest, 6), (waist, belt), (skirt, 27), (14, 27))
    if s.rng.random() < 0.4:
        cuff = s.vary(6, 13)
        s.shape((11, 1), (9.5, 3), (chest - 2.5, cuff), (chest - 0.5, cuff), (chest, 6))
    if s.rng.random() < 0.6:
        s.seam((8, belt), (14, belt), width=s.vary(0.6, 1.5))


def _coat(s: _Sketch) -> None:
    neck, hem = _top(s, half=(6, 7), bottom=(26, 27.5), reach=(18, 20), drop=(1.25, 1.4), collar=(5, 8))
    s.seam((14, neck), (14, hem), width=s.vary(0.8, 1.6))
    s.seam((10.5, 2), (11, neck + 1), (14, neck + 4), width=0.8)  # lapel
    s.seam((8.5, 18.5), (11.5, 18.5))  # pocket


def _sandal(s: _Sketch) -> None:
    arch, sole = s.vary(14, 22), s.vary(1.5, 2.5)  # arch: where the foot rests on the heel
    top = [(1, 22), (10, 21.5), (18, arch + 1), (26, arch)]
    s.shape(*top, (26, arch + sole), (18, arch + 1 + sole), (10, 24), (2, 24))
    s.shape((23, arch + 1), (26, arch + 1), (26, 24), (24, 24))
    ankle, width = arch - s.vary(4, 7), s.vary(1, 1.8)
    s.strap((26, arch), (25.5, ankle), (20, ankle + 1), (11, 18), width=width)
    for x in (4, 7, s.vary(10, 12))[s.rng.integers(0, 2) :]:  # over the toes
        s.strap((x, 22), (x + s.vary(1, 2), 18.5), (x + 4, 22), width=width)


def _shirt(s: _Sketch) -> None:
    neck, hem = _top(s, half=(5.5, 7), bottom=(23, 26), reach=(9, 14), drop=(1, 1.2), collar=(4, 5.5))
    s.seam((9.5, 2), (11.5, neck + 2), (14, neck), width=0.7)  # collar
    for y in np.linspace(neck + 2, hem - 2, s.rng.integers(4, 7)):  # buttons
        s.seam((13.3, y), (14, y), width=1.3)


def _sneaker(s: _Sketch) -> None:
    back, tongue, toe = s.vary(13, 15), s.vary(11, 14), s.vary(17, 19)
    front = [(1, 23), (1, toe + 2), (2.5, toe + 0.4), (6, toe - 0.6), (13.5, tongue)]
    s.shape(*front, (17, tongue - 0.5), (20, back + 1.5), (26, back), (27, 23))
    s.seam((0, 22), (28, 22), width=s.vary(1.2, 2.2))  # sole
    for x in np.linspace(9, 14, 4):  # laces
        s.seam((x, tongue + 6.6 - x * 0.4), (x + 2, tongue + 8.6 - x * 0.4))


def _bag(s: _Sketch) -> None:
    top, side, foot = s.vary(9, 13), 14 - s.vary(9, 12.5), 14 - s.vary(11, 13)
    s.shape((14, top), (side + 1, top), (side, top + 1), (foot, 25), (foot + 1, 26), (14, 26))
    grip, rise, flap = 14 - s.vary(4, 7), s.vary(2, 6), top + s.vary(3, 8)
    s.strap((grip, top), (grip + 1.5, rise), (14, rise), width=s.vary(1, 2))
    s.seam((0, flap), (14, flap))
    s.seam((13, flap), (14, flap), width=2)  # clasp


def _boot(s: _Sketch) -> None:
    shaft, cuff, base = s.vary(12, 15), s.vary(1, 5), s.vary(22, 25)
    s.shape((2, 25), (2, 21.5), (5, 19.5), (shaft - 1, 16), (shaft, cuff), (25, cuff), (25.5, base), (13, 25))
    s.shape((20, base - 1), (25.5, base - 1), (25, 26), (20.5, 26))
    s.seam((2, 23.5), (13, 23.5), (18, base - 1.5), (26, base - 1.5))
    s.seam((shaft - 1, cuff + 2), (26, cuff + 2), width=s.vary(0.3, 1.5))


PATTERNS = (_t_shirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _boot)
SHOES = (5, 7, 9)  # labels of those seen from the side, toes to the left
