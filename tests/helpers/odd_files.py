"""Image files as real tools write them, or break them."""

import struct
import zlib
from io import BytesIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def tiff(values: NDArray, **options: object) -> bytes:
    """Return numbers as the bytes of a TIFF file."""
    buffer = BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes, *, intact: bool = True) -> bytes:
    """Return a PNG chunk, with a wrong checksum if not `intact`."""
    checksum = zlib.crc32(kind + body) ^ (not intact)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def with_chunk(png: bytes, added: bytes) -> bytes:
    """Return a PNG file with a chunk added behind its header."""
    at = len(PNG_SIGNATURE) + 25
    return png[:at] + added + png[at:]


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """Return [H, W, 2, 3 or 4] as a PNG file of 16 bits."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return PNG_SIGNATURE + body


# Linear RGB -> XYZ under D50, of profiles as Apple and Adobe write them (their colorant tags).
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def icc_profile(matrix: NDArray, gamma: float) -> bytes:
    """Return an ICC profile of version 2 of colors with a matrix to XYZ under D50 and a power curve."""
    fixed = [struct.pack(">3i", *np.rint(column * 65536).astype(int)) for column in matrix.T]
    white = struct.pack(">3i", *np.rint(np.array([0.9642, 1.0, 0.8249]) * 65536).astype(int))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    told = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    xyz = [(name, b"XYZ \0\0\0\0" + value) for name, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), fixed, strict=True)]
    curves = [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    text = b"text\0\0\0\0none\0\0\0\0"
    tags = [(b"desc", told), (b"cprt", text), (b"wtpt", b"XYZ \0\0\0\0" + white), *xyz, *curves]
    return assembled(b"RGB ", tags)


def gray_profile(gamma: float) -> bytes:
    """Return an ICC profile of gray with a power curve."""
    white = struct.pack(">3i", *np.rint(np.array([0.9642, 1.0, 0.8249]) * 65536).astype(int))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    told = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = [(b"desc", told), (b"cprt", b"text\0\0\0\0none\0\0\0\0"), (b"wtpt", b"XYZ \0\0\0\0" + white)]
    return assembled(b"GRAY", [*tags, (b"kTRC", curve)])


def assembled(space: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    """Return an ICC profile of a color space with its tags."""
    offset, table, bodies = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, body in tags:
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", offset + len(bodies), len(body))
        bodies += body
    header = struct.pack(">I4sI4s4s4s", offset + len(bodies), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *np.rint(np.array([0.9642, 1.0, 0.8249]) * 65536).astype(int))
    return header.ljust(128, b"\0") + table + bodies


def srgb_of(colors: NDArray[np.uint8], matrix: NDArray, gamma: float) -> NDArray:
    """Return colors [..., 3] of a profile in sRGB, 0 … 255, by the published formulas (IEC 61966-2-1)."""
    linear = (colors / 255.0) ** gamma @ (np.linalg.inv(SRGB) @ matrix).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
