"""Folders of images to translate, tiny weights to translate them with, and what came of it."""

import json
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flowferry import Pipeline, launch
from flowferry.configs.presets import PIPELINES

GRAY16 = np.linspace(0, 65535, 28 * 28).round().astype(np.uint16).reshape(28, 28)


def noise(seed: int, size: tuple[int, int] = (28, 28), mode: str = "RGB") -> Image.Image:
    """Return an image of uniform noise; size: (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def write_images(folder: Path, count: int = 9) -> Path:
    """Write `count` gray images into three sub-folders of `folder`, and return it."""
    for index in range(count):
        (folder / str(index % 3)).mkdir(parents=True, exist_ok=True)
        noise(index, mode="L").save(folder / str(index % 3) / f"{index}.png")
    return folder


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def bomb() -> bytes:
    """Return a PNG of 60,000 × 60,000 pixels in a hundred bytes."""
    header = (60_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def rgb16() -> bytes:
    """Return a PNG with 16 bits in each of three channels, each a ramp, which Pillow cannot write."""
    rows = [b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in GRAY16]
    header = (28).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"".join(rows))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def hostile_tree(root: Path) -> dict[str, str]:
    """Write a tree with every kind of file; return what must become of each: an output, "!reason", or "" if skipped."""
    expected: dict[str, str] = {}

    def put(name: str, what: Image.Image | bytes, becomes: str | None = None, **options: object) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, bytes):
            path.write_bytes(what)
        else:
            what.save(path, **options)
        stem, _, ending = name.rpartition(".")
        kept = {"webp": ".webp", "tif": ".tif", "tiff": ".tif"}.get(ending, ".png")
        expected[name] = stem + kept if becomes is None else becomes

    put("gray.png", noise(1, mode="L"))
    put("UPPER.PNG", noise(2))
    put("photo.JPG", noise(3, (64, 48)))
    put("deep/er/and/deeper/still.jpeg", noise(4, (200, 10)))
    put("web.webp", noise(5, (31, 57)))
    put("old.bmp", noise(6, (5, 5)))
    put("scan.tif", noise(7, (100, 100)))
    put("scan.deep.tiff", Image.fromarray(GRAY16))
    put("still.gif", noise(8))
    put("moving.gif", noise(9), save_all=True, append_images=[noise(10), noise(11)])
    exif = Image.Exif()
    exif[0x0112] = 6
    put("turned.jpg", noise(12, (40, 20)), exif=exif)
    put("palette.png", noise(13).convert("P"))
    put("glass.png", noise(14, mode="RGBA"))
    put("print.jpg", noise(15, mode="CMYK"))
    put("bits.png", noise(16, mode="1"))
    put("gray16.png", Image.fromarray(GRAY16))
    put("rgb16.png", rgb16())
    put("one pixel.png", noise(17, (1, 1)))
    put("line.png", noise(18, (3000, 1)))
    for name in ("größe", "日本語", "العربية", "😀", "a&b<c>'\"", "-rf", "two.dots", " space "):
        put(f"names/{name}.png", noise(19))
    for name in (".hidden.png", "._gray.png", "__MACOSX/gray.png", ".ipynb_checkpoints/gray.png"):
        put(f"names/{name}", noise(19), "")
    put("bad/empty.png", b"", "!empty file")
    put("bad/text.jpg", b"not an image\n" * 50, "!something else")
    put("bad/html.gif", b"<html><script>alert(1)</script></html>", "!something else")
    put("bad/bomb.png", bomb(), "!got 60000 × 60000 pixels")
    put("bad/ps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "!something else")
    for ending in ("png", "jpg", "webp", "bmp", "tif", "gif"):
        put(f"bad/half-{ending}.{ending}", noise(20, (90, 90)))
        data = (root / f"bad/half-{ending}.{ending}").read_bytes()
        put(f"bad/half-{ending}.{ending}", data[: len(data) // 2], "!not a readable image")
    put("readme.txt", b"no image", "")
    put("README", b"no image", "")
    put("archive.zip", b"PK", "")
    os.symlink("gray.png", root / "inside.png")
    expected["inside.png"] = "inside.png"
    (root.parent / "secret").mkdir()
    noise(21).save(root.parent / "secret" / "secret.png")
    os.symlink("../secret/secret.png", root / "out.png")
    os.symlink("../secret", root / "outside")
    os.symlink(".", root / "loop")
    os.symlink("nowhere.png", root / "dangling.png")
    expected |= {"out.png": "", "outside": "", "loop": "", "dangling.png": ""}
    os.mkfifo(root / "pipe.png")
    (root / "folder.png").mkdir()
    return expected | {"pipe.png": "", "folder.png": ""}


def save_tiny(folder: Path, name: str, model: dict[str, object]) -> Path:
    """Save untrained weights of a named pipeline with a small network and three steps, and return their folder."""
    config = PIPELINES[name]
    config = replace(config, model=replace(config.model, **model), solver=replace(config.solver, num_steps=3))
    torch.manual_seed(0)
    Pipeline(config).save_pretrained(folder)
    return folder


def translate(weights: Path, source: Path, output: Path, *options: str) -> int:
    """Run the verb `translate`; return its exit code."""
    argv = ["translate", "--pipeline", str(weights), "--input", str(source), "--output", str(output), *options]
    return launch.main(argv)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file in a tree by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    """Return the entries of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
