"""Patterns of the synthetic garments: the silhouette and the seams of each of FashionMNIST's ten classes."""

import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageOps

FRAME = 28  # side of a finished image, in pixels
DETAIL = 4  # drawings are made this many times larger, then shrunk, so that their edges come out smooth
CANVAS = FRAME * DETAIL

Pair = tuple[float, float]
"""A point (x, y), or a range (low, high) that a number is drawn from."""


class Sketch:
    """The silhouette and the seams of a garment, each white on black on a canvas of its own.

    Coordinates and widths are in pixels of the finished frame, from (0, 0) at its top left to (28, 28).
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.silhouette, self.seams = (Image.new("L", (CANVAS, CANVAS)) for _ in range(2))

    def vary(self, low: float, high: float) -> float:
        """Draw a number uniformly from [low, high)."""
        return float(self.rng.uniform(low, high))

    def shape(self, *points: Pair) -> None:
        """Add the polygon with these corners to the silhouette."""
        ImageDraw.Draw(self.silhouette).polygon(_enlarge(points), 255)

    def strap(self, *points: Pair, width: float) -> None:
        """Add a line through these points to the silhouette."""
        ImageDraw.Draw(self.silhouette).line(_enlarge(points), 255, round(width * DETAIL), joint="curve")

    def seam(self, *points: Pair, width: float = 0.6) -> None:
        """Add a line through these points to the seams."""
        ImageDraw.Draw(self.seams).line(_enlarge(points), 255, round(width * DETAIL), joint="curve")

    def mirror(self) -> None:
        """Add what has been drawn, mirrored left to right."""
        self.silhouette = ImageChops.lighter(self.silhouette, ImageOps.mirror(self.silhouette))
        self.seams = ImageChops.lighter(self.seams, ImageOps.mirror(self.seams))


def sketch_garment(label: int, rng: np.random.Generator) -> Sketch:
    """Return a random garment of the class `label`, 0 to 9 in the order of FashionMNIST."""
    sketch = Sketch(rng)
    PATTERNS[label](sketch)
    if label not in SHOES:
        sketch.mirror()  # the patterns of the others draw the left half only, up to x = 14
    return sketch


def _enlarge(points: tuple[Pair, ...]) -> list[Pair]:
    return [(x * DETAIL, y * DETAIL) for x, y in points]


def _top(s: Sketch, half: Pair, bottom: Pair, reach: Pair, drop: Pair, collar: Pair) -> Pair:
    """Draw half a body with one sleeve; return the heights y of its neckline and its hem.

    Each argument is the range of a measure: half the body's width, the hem's height, the sleeve's length, the sleeve's
    angle below the horizontal in radians, the neckline's height.
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


def _t_shirt(s: Sketch) -> None:
    neck, _ = _top(s, half=(6, 7.5), bottom=(23, 26), reach=(5, 7.5), drop=(0.4, 1), collar=(2.8, 5))
    if s.rng.random() < 0.4:  # a print on the chest
        y = neck + s.vary(4, 6)
        s.seam((14 - s.vary(2, 4), y), (14, y), width=s.vary(1.5, 5))


def _trouser(s: Sketch) -> None:
    waist, hip, crotch, hem = 14 - s.vary(3.5, 4.5), 14 - s.vary(4.5, 6), s.vary(8, 11), s.vary(24, 27)
    inside, leg = 14 - s.vary(0.4, 1.5), s.vary(2.5, 4)
    s.shape((14, 1), (waist, 1), (hip, crotch), (inside - leg, hem), (inside, hem), (14, crotch))
    s.seam((0, 2.5), (14, 2.5), (14, crotch))


def _pullover(s: Sketch) -> None:
    _, hem = _top(s, half=(5.5, 7), bottom=(22, 25), reach=(16, 19), drop=(1.15, 1.35), collar=(2.3, 3))
    s.seam((7, hem - 2), (14, hem - 2))
    s.seam((10, 3), (12, 4.5), (14, 4.5), width=0.8)  # collar


def _dress(s: Sketch) -> None:
    chest, waist, skirt, belt = 14 - s.vary(3, 4), 14 - s.vary(2.2, 3.2), 14 - s.vary(4, 8), s.vary(9.5, 12)
    s.shape((14, s.vary(2.5, 5)), (12.2, 1), (11, 1), (chest, 6), (waist, belt), (skirt, 27), (14, 27))
    if s.rng.random() < 0.4:
        cuff = s.vary(6, 13)
        s.shape((11, 1), (9.5, 3), (chest - 2.5, cuff), (chest - 0.5, cuff), (chest, 6))
    if s.rng.random() < 0.6:
        s.seam((8, belt), (14, belt), width=s.vary(0.6, 1.5))


def _coat(s: Sketch) -> None:
    neck, hem = _top(s, half=(6, 7), bottom=(26, 27.5), reach=(18, 20), drop=(1.25, 1.4), collar=(5, 8))
    s.seam((14, neck), (14, hem), width=s.vary(0.8, 1.6))
    s.seam((10.5, 2), (11, neck + 1), (14, neck + 4), width=0.8)  # lapel
    s.seam((8.5, 18.5), (11.5, 18.5))  # pocket


def _sandal(s: Sketch) -> None:
    arch, sole = s.vary(14, 22), s.vary(1.5, 2.5)  # arch: where the foot rests on the heel
    top = [(1, 22), (10, 21.5), (18, arch + 1), (26, arch)]
    s.shape(*top, (26, arch + sole), (18, arch + 1 + sole), (10, 24), (2, 24))
    s.shape((23, arch + 1), (26, arch + 1), (26, 24), (24, 24))
    ankle, width = arch - s.vary(4, 7), s.vary(1, 1.8)
    s.strap((26, arch), (25.5, ankle), (20, ankle + 1), (11, 18), width=width)
    for x in (4, 7, s.vary(10, 12))[s.rng.integers(0, 2) :]:  # over the toes
        s.strap((x, 22), (x + s.vary(1, 2), 18.5), (x + 4, 22), width=width)


def _shirt(s: Sketch) -> None:
    neck, hem = _top(s, half=(5.5, 7), bottom=(23, 26), reach=(9, 14), drop=(1, 1.2), collar=(4, 5.5))
    s.seam((9.5, 2), (11.5, neck + 2), (14, neck), width=0.7)  # collar
    for y in np.linspace(neck + 2, hem - 2, s.rng.integers(4, 7)):  # buttons
        s.seam((13.3, y), (14, y), width=1.3)


def _sneaker(s: Sketch) -> None:
    back, tongue, toe = s.vary(13, 15), s.vary(11, 14), s.vary(17, 19)
    front = [(1, 23), (1, toe + 2), (2.5, toe + 0.4), (6, toe - 0.6), (13.5, tongue)]
    s.shape(*front, (17, tongue - 0.5), (20, back + 1.5), (26, back), (27, 23))
    s.seam((0, 22), (28, 22), width=s.vary(1.2, 2.2))  # sole
    for x in np.linspace(9, 14, 4):  # laces
        s.seam((x, tongue + 6.6 - x * 0.4), (x + 2, tongue + 8.6 - x * 0.4))


def _bag(s: Sketch) -> None:
    top, side, foot = s.vary(9, 13), 14 - s.vary(9, 12.5), 14 - s.vary(11, 13)
    s.shape((14, top), (side + 1, top), (side, top + 1), (foot, 25), (foot + 1, 26), (14, 26))
    grip, rise, flap = 14 - s.vary(4, 7), s.vary(2, 6), top + s.vary(3, 8)
    s.strap((grip, top), (grip + 1.5, rise), (14, rise), width=s.vary(1, 2))
    s.seam((0, flap), (14, flap))
    s.seam((13, flap), (14, flap), width=2)  # clasp


def _boot(s: Sketch) -> None:
    shaft, cuff, base = s.vary(12, 15), s.vary(1, 5), s.vary(22, 25)
    s.shape((2, 25), (2, 21.5), (5, 19.5), (shaft - 1, 16), (shaft, cuff), (25, cuff), (25.5, base), (13, 25))
    s.shape((20, base - 1), (25.5, base - 1), (25, 26), (20.5, 26))
    s.seam((2, 23.5), (13, 23.5), (18, base - 1.5), (26, base - 1.5))
    s.seam((shaft - 1, cuff + 2), (26, cuff + 2), width=s.vary(0.3, 1.5))


PATTERNS = (_t_shirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _boot)
SHOES = (5, 7, 9)  # labels of the garments seen from the side, with the toes to the left
