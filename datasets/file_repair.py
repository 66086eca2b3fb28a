"""Free image files of damage that does not touch the image: PNG chunks beside it, a JPEG's missing end marker."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TOLD = (b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf", b"sRGB")  # ancillary chunks that decide what is seen
MAX_PROFILE = 2**24  # bytes; those of printers have a few MB
END = b"\xff\xd9"
ANY = bytes(1 + 97 * k % 254 for k in range(1024))  # image data of no sense; without the byte 0xFF it holds no marker
OTHER = bytes(255 - byte for byte in ANY)  # differs from it in every bit


class Png(NamedTuple):
    """A PNG file that holds nothing but the image."""

    data: bytes
    profile: bytes | None
    """Its ICC profile; None without one, or where it cannot be read."""
    damaged: bool
    """Whether a chunk beside the image was damaged."""


def essential_png(data: bytes) -> Png:
    """Return a PNG file without the chunks that do not decide the image, however large or damaged these are.

    Source: the PNG specification, section 5: the lower case of a chunk's first letter says that it may be left out.
    """
    kept, profile, damaged = [PNG_SIGNATURE], None, False
    for kind, whole, body, intact in png_chunks(data):
        if kind[:1].isupper() or kind in TOLD:
            kept.append(whole)
            continue
        damaged |= not intact
        if kind == b"iCCP" and intact:
            profile = unpacked_profile(body)
            damaged |= profile is None
    return Png(b"".join(kept), profile, damaged)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes, bool]]:
    """Yield (kind, the whole chunk, its body, whether its checksum is right); at last what a cut file has left."""
    at = len(PNG_SIGNATURE)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : end - 4]
        intact = end <= len(data) and zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        yield kind, data[at:end], body, intact
        if kind == b"IEND":
            return
        at = end


def unpacked_profile(body: bytes) -> bytes | None:
    """Return the ICC profile in an iCCP chunk: a name, a zero, the method 0, and the compressed profile."""
    packed = body.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(packed, MAX_PROFILE) or None
    except zlib.error:
        return None


def jpeg_endings(data: bytes) -> tuple[bytes, bytes] | None:
    """Return a JPEG file without end marker, completed in two ways: with image data that differ in every bit.

    Where only the marker was missing, the decoder has all of the image before it comes to them, and both decode alike;
    of a cut file it takes them for the rest of the image. None where the file has its end marker.
    """
    data = data.rstrip(b"\xff")
    return None if data.rstrip(b"\0").endswith(END) else (data + ANY + END, data + OTHER + END)
