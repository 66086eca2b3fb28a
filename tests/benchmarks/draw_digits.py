"""Draw digits by hand, as a mouse would: round strokes of one width, unlike any test digit. Needs nothing but Pillow.

    python tests/benchmarks/draw_digits.py FOLDER

writes 0.png to 9.png, 28×28 gray, white on black.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw

SIDE, LARGER, WIDTH = 28, 10, 2.4  # pixels; drawn so many times larger; of a stroke, in pixels
Stroke = list[tuple[float, float]]


def strokes(digit: int) -> list[Stroke]:
    """Return the strokes of a digit as points (x, y) in pixels."""
    return {
        0: [[(14, 6), (9, 9), (8, 15), (10, 20), (14, 22), (18, 20), (20, 15), (19, 9), (14, 6)]],
        1: [[(11, 10), (15, 6), (15, 22)]],
        2: [[(9, 10), (11, 7), (15, 6), (18, 9), (17, 13), (9, 22), (20, 22)]],
        3: [[(9, 7), (18, 7), (13, 13), (17, 14), (19, 18), (16, 22), (9, 21)]],
        4: [[(15, 6), (8, 16), (20, 16)], [(16, 12), (16, 23)]],
        5: [[(19, 6), (10, 6), (10, 13), (16, 13), (19, 17), (16, 22), (9, 21)]],
        6: [[(17, 6), (11, 12), (9, 18), (12, 22), (17, 21), (18, 17), (15, 14), (10, 17)]],
        7: [[(8, 7), (20, 7), (13, 22)]],
        8: [
            [(14, 13), (10, 10), (11, 7), (14, 6), (17, 7), (18, 10), (14, 13), (9, 17), (10, 21), (14, 22), (18, 21)],
            [(18, 21), (19, 17), (14, 13)],
        ],
        9: [[(18, 9), (14, 6), (10, 9), (11, 13), (15, 14), (18, 11), (18, 9), (17, 22)]],
    }[digit]


def drawn(digit: int) -> Image.Image:
    """Return a digit as a gray image, white on black."""
    image = Image.new("L", (SIDE * LARGER, SIDE * LARGER))
    draw, radius = ImageDraw.Draw(image), WIDTH * LARGER / 2
    for stroke in strokes(digit):
        points = [(x * LARGER, y * LARGER) for x, y in stroke]
        draw.line(points, fill=255, width=round(2 * radius), joint="curve")
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for digit in range(10):
        drawn(digit).save(folder / f"{digit}.png")


if __name__ == "__main__":
    main()
