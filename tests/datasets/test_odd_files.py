"""Files that are whole and odd, and such as look whole and are not: datasets/image_io.py and what it is made of."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from time import sleep

import numpy as np
import pytest
from numpy.typing import NDArray
from odd_files import (
    ADOBE_RGB,
    DISPLAY_P3,
    chunk,
    deep_png,
    encoded,
    gray_profile,
    icc_profile,
    srgb_of,
    tiff,
    with_chunk,
)
from PIL import Image, ImageCms

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import UserError
from flowferry.datasets import large_images
from flowferry.datasets.color_profiles import srgb_profile
from flowferry.datasets.image_io import decode
from flowferry.datasets.image_writing import png

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
SMOOTH = NOISE.resize((600, 400), Image.Resampling.BICUBIC)
RAMP = np.linspace(0, 1, 48 * 64).reshape(48, 64)
EIGHT_BIT_RAMP = np.rint(RAMP * 255)


def pixels(data: bytes, channels: int = 3, **options: object) -> NDArray[np.int64]:
    """Return what is decoded, on the scale of 8 bits."""
    found = decode(data, channels, ReadConfig(**options)).pixels
    return np.rint(found / (np.iinfo(found.dtype).max / 255)).astype(np.int64)


def notes(data: bytes, **options: object) -> list[str]:
    return decode(data, 3, ReadConfig(**options)).notes


def refusal(data: bytes, channels: int = 3, **options: object) -> str:
    with pytest.raises(UserError, match="not a readable image") as told:
        decode(data, channels, ReadConfig(**options))
    assert "\n" not in str(told.value)
    return str(told.value)


# --- whole, but for their wrapping ----------------------------------------------------------------------

ODD_TAGS = {  # tags beside the orientation, in the wrong type or without sense
    "a text for a unit": (0x0128, 2, b"two\0"),
    "a text for a number": (0x011A, 2, b"72 dpi\0"),
    "bytes for a number": (0xA002, 7, b"\xff\xff\xff\xff"),
    "a number for a date": (0x0132, 3, struct.pack("<H", 7)),
    "a negative size": (0x0100, 9, struct.pack("<i", -1)),
    "a division by zero": (0x829A, 5, struct.pack("<II", 1, 0)),
    "a sub-IFD nowhere": (0x8769, 4, struct.pack("<I", 2**31)),
    "a float": (0x0128, 11, struct.pack("<f", 2.5)),
    "a private tag": (0xC000, 129, b"?"),
}


def exif(orientation: bytes, *others: tuple[int, int, bytes]) -> bytes:
    """An EXIF block: entries (tag, type, value) of one directory."""
    size = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 11: 4, 129: 1}
    entries = sorted([(0x0112, 3, orientation), *others])
    at, table, behind = 8 + 2 + 12 * len(entries) + 4, struct.pack("<H", len(entries)), b""
    for tag, kind, value in entries:
        field = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", at + len(behind))
        behind += value if len(value) > 4 else b""
        table += struct.pack("<HHI", tag, kind, len(value) // size[kind]) + field
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + table + bytes(4) + behind


@pytest.mark.parametrize("odd", ODD_TAGS)
def test_an_orientation_is_followed_whatever_lies_beside_it(odd: str) -> None:
    data = encoded(SMOOTH, "JPEG", quality=95, exif=exif(struct.pack("<H", 6), ODD_TAGS[odd]))
    upright = np.asarray(Image.open(BytesIO(encoded(SMOOTH, "JPEG", quality=95)))).astype(int)
    assert (pixels(data) == np.rot90(upright, -1)).all()  # 6: turn it clockwise


def test_exif_that_cannot_be_read_at_all_is_dropped() -> None:
    data = encoded(SMOOTH, "JPEG", quality=95, exif=b"Exif\0\0nothing of the kind")
    assert (pixels(data) == pixels(encoded(SMOOTH, "JPEG", quality=95))).all()


ANCILLARY = {
    "a text of 40 MB": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(40 * 2**20))),
    "a wrong checksum": chunk(b"tEXt", b"Software\0none", intact=False),
    "a profile of nothing": chunk(b"iCCP", b"icc\0\0not compressed"),
    "a length of zero": chunk(b"tIME", b""),
    "a wrong size of pixels": chunk(b"pHYs", b"\0"),
    "a huge profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(3 * 2**20))),
}


@pytest.mark.parametrize("odd", ANCILLARY)
def test_png_chunks_beside_the_image_do_not_matter(odd: str) -> None:
    data = with_chunk(encoded(NOISE), ANCILLARY[odd])
    assert (pixels(data) == np.asarray(NOISE)).all()
    damaged = odd in ("a wrong checksum", "a profile of nothing")
    assert notes(data) == ["damaged chunk"] * damaged
    if damaged:
        assert "a chunk beside the image is damaged" in refusal(data, strict=True)
    else:
        assert (pixels(data, strict=True) == np.asarray(NOISE)).all()


def test_png_chunks_of_the_image_do_matter() -> None:
    data = encoded(NOISE)
    at = data.index(b"IDAT") + 100
    refusal(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    transparent = encoded(Image.new("L", (9, 9), 7), transparency=7)
    assert (pixels(transparent, background="white") == 255).all()


KINDS = {"baseline": {}, "progressive": {"progressive": True}, "gray": {}, "optimized": {"optimize": True}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [1, 2])
def test_a_jpeg_without_its_end_marker_is_whole(kind: str, lost: int) -> None:
    image = SMOOTH.convert("L") if kind == "gray" else SMOOTH
    data = encoded(image, "JPEG", **KINDS[kind])
    assert (pixels(data[:-lost]) == pixels(data)).all()
    assert (notes(data), notes(data[:-lost])) == ([], ["no end"])
    refusal(data[:-lost], strict=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 0.99, -12, -6])
def test_a_jpeg_that_lacks_more_is_refused(kind: str, kept: float) -> None:
    data = encoded(SMOOTH, "JPEG", **KINDS[kind])
    refusal(data[: int(kept * len(data)) if kept > 0 else int(kept)])


def test_a_bitmap_that_is_transparent_everywhere_is_opaque() -> None:
    header = b"BM" + struct.pack("<IHHI", 14 + 124 + 4 * 6, 0, 0, 14 + 124)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = struct.pack("<IiiHHIIiiII", 124, 3, 2, 1, 32, 3, 24, 2835, 2835, 0, 0) + masks + bytes(124 - 40 - 16)
    clear, half = bytes([30, 20, 10, 0]), bytes([30, 20, 10, 128])
    with Image.open(BytesIO(header + info + clear * 6)) as image:
        assert image.mode == "RGBA"  # this is the kind of file that is meant
    assert (pixels(header + info + clear * 6) == [10, 20, 30]).all()
    shown = pixels(header + info + clear * 5 + half, background="white")
    assert (np.unique(shown.reshape(-1, 3), axis=0) == [[132, 137, 142], [255, 255, 255]]).all()


# --- large ones -----------------------------------------------------------------------------------------


def test_a_photograph_of_108_megapixels_is_read() -> None:
    """Pillow alone refuses it as a decompression bomb."""
    data = encoded(Image.new("L", (12000, 9000), 77))
    decoded = decode(data, 1, ReadConfig(), (28, 28))
    assert decoded.size == (12000, 9000) and (decoded.pixels.min(), decoded.pixels.max()) == (0, 77)
    assert Image.MAX_IMAGE_PIXELS is not None  # the limit of others' code stays


def test_more_pixels_than_allowed_are_refused_with_the_reason() -> None:
    told = refusal(encoded(Image.new("L", (60, 50))), max_pixels=2999)
    assert "got 60 × 50 pixels, expected at most 2,999" in told and "max-pixels" in told
    pixels(encoded(Image.new("L", (60, 50))), max_pixels=3000)
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert "got 100000 × 100000 pixels, expected at most 268,435,456" in refusal(bomb)
    bitmap = bytearray(encoded(Image.new("L", (60, 50)), "BMP"))
    bitmap[18:26] = struct.pack("<ii", 100_000, 100_000)
    assert "got more pixels, expected at most 268,435,456" in refusal(bytes(bitmap))
    floats = tiff(np.zeros((60, 50, 3), np.float32), photometric="rgb")
    assert "got 50 × 60 pixels" in refusal(floats, max_pixels=2999)


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_images, "LARGE", 1000)
    inside, most = [], []

    def slow(image: Image.Image, profile: bytes | None) -> Image.Image:
        inside.append(image)
        sleep(0.02)
        most.append(len(inside))
        inside.remove(image)
        return image

    monkeypatch.setattr("flowferry.datasets.image_io.to_srgb", slow)
    for size, expected in (((40, 40), 1), ((20, 20), 4)):
        most.clear()
        data = encoded(Image.new("L", size))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda data: decode(data, 1, ReadConfig()), [data] * 8))
        assert max(most) == expected


# --- more than 8 bits -----------------------------------------------------------------------------------

DEEP = {
    "float32": tiff(RAMP.astype(np.float32)),
    "float16": tiff(RAMP.astype(np.float16)),
    "float64": tiff(RAMP),
    "float32, deflated": tiff(RAMP.astype(np.float32), compression="zlib"),
    "float32 with an overshoot": tiff((RAMP * 1.0001).astype(np.float32)),
    "float32 color": tiff(np.repeat(RAMP[..., None], 3, -1).astype(np.float32), photometric="rgb"),
    "float64 color": tiff(np.repeat(RAMP[..., None], 3, -1), photometric="rgb"),
    "float32 color, plane by plane": tiff(
        np.repeat(RAMP[None], 3, 0).astype(np.float32), photometric="rgb", planarconfig="separate"
    ),
    "16 bits": tiff(np.rint(RAMP * 65535).astype(np.uint16)),
    "16 bits, big-endian": tiff(np.rint(RAMP * 65535).astype(np.uint16), byteorder=">"),
    "16 bits, LZW": encoded(Image.fromarray(np.rint(RAMP * 65535).astype(np.uint16)), "TIFF", compression="tiff_lzw"),
    "16 bits, white is zero": tiff(np.rint((1 - RAMP) * 65535).astype(np.uint16), photometric="miniswhite"),
    "16 bits, big-endian, white is zero": tiff(
        np.rint((1 - RAMP) * 65535).astype(np.uint16), byteorder=">", photometric="miniswhite"
    ),
    "float32, white is zero": tiff((1 - RAMP).astype(np.float32), photometric="miniswhite"),
    "8 bits, white is zero": tiff(255 - EIGHT_BIT_RAMP.astype(np.uint8), photometric="miniswhite"),
    "signed 16 bits": tiff(np.rint(RAMP * 32767).astype(np.int16)),
    "unsigned 32 bits": tiff(np.rint(RAMP * 65535).astype(np.uint32)),
    "12 bits, as its largest value says": tiff(
        np.rint(RAMP * 4095).astype(np.uint16), extratags=[(281, "H", 1, 4095, True)]
    ),
    "16 bits with alpha": tiff(
        np.stack([np.rint(RAMP * 65535), np.full_like(RAMP, 65535)], -1).astype(np.uint16),
        photometric="minisblack",
        extrasamples=["unassalpha"],
    ),
    "16 bits PNG with alpha": deep_png(
        np.stack([np.rint(RAMP * 65535), np.full_like(RAMP, 65535)], -1).astype(np.uint16)
    ),
    "16 bits PNG in color": deep_png(np.repeat(np.rint(RAMP * 65535)[..., None], 3, -1).astype(np.uint16)),
}


@pytest.mark.parametrize("kind", DEEP)
def test_a_ramp_of_any_kind_of_numbers_is_a_ramp(kind: str) -> None:
    found = pixels(DEEP[kind])
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0] - RAMP * 255).max() <= 0.6  # half a level, and float16's own rounding
    assert notes(DEEP[kind]) == (["clipped"] if "overshoot" in kind else [])


FLOATS = {"below": -0.2, "above": 1.2, "255": 255.0, "NaN": np.nan, "infinite": np.inf}


@pytest.mark.parametrize("value", FLOATS)
def test_floats_out_of_their_range_are_refused_by_name(value: str) -> None:
    values = RAMP.astype(np.float32)
    values[7, 7] = FLOATS[value]
    told = refusal(tiff(values))
    assert "got float32 values from " in told and "expected 0 to 1" in told and "range" in told


def test_floats_beside_a_premultiplied_alpha_are_checked_like_others() -> None:
    values = np.stack([RAMP * 255, np.ones_like(RAMP)], -1).astype(np.float32)
    data = tiff(values, photometric="minisblack", extrasamples=["assocalpha"])
    assert "expected 0 to 1" in refusal(data)


def test_strict_refuses_an_overshoot() -> None:
    assert "expected 0 to 1" in refusal(DEEP["float32 with an overshoot"], strict=True)


RANGES = {
    "floats up to 255": (tiff((RAMP * 255).astype(np.float32)), (0, 255)),
    "12 bits in 16": (tiff(np.rint(RAMP * 4095).astype(np.uint16)), (0, 4095)),
    "10 bits in 32": (tiff(np.rint(RAMP * 1023).astype(np.uint32)), (0, 1023)),
    "CT": (tiff(np.rint(RAMP * 4095 - 1024).astype(np.int16)), (-1024, 3071)),
    "12 bits PNG in color": (deep_png(np.repeat(np.rint(RAMP * 4095)[..., None], 3, -1).astype(np.uint16)), (0, 4095)),
    "12 bits PNG": (encoded(Image.fromarray(np.rint(RAMP * 4095).astype(np.uint16))), (0, 4095)),
    "all 32 bits": (tiff(np.rint(RAMP * (2**32 - 1)).astype(np.uint32)), (0, 2**32 - 1)),
}


@pytest.mark.parametrize("kind", RANGES)
def test_a_range_says_what_is_black_and_white(kind: str) -> None:
    data, range = RANGES[kind]
    assert np.abs(pixels(data, range=range)[..., 0] - RAMP * 255).max() <= 0.65  # half a level of 8 bits and of 10
    assert notes(data, range=range) == []


@pytest.mark.parametrize("kind", ["12 bits in 16", "10 bits in 32", "12 bits PNG in color", "12 bits PNG"])
def test_a_picture_that_is_nearly_black_by_its_range_is_told(kind: str) -> None:
    assert notes(RANGES[kind][0]) == ["little range"]


def test_an_image_of_8_bits_has_the_range_of_its_format() -> None:
    assert (pixels(encoded(NOISE), range=(0, 4095)) == np.asarray(NOISE)).all()


def test_alpha_of_16_bits_lets_the_background_through() -> None:
    gray = np.full((8, 8), 40000)
    for premultiplied, first in ((False, gray), (True, gray // 2)):
        kind = "assocalpha" if premultiplied else "unassalpha"
        values = np.stack([first, np.full_like(gray, 32768)], -1).astype(np.uint16)
        data = tiff(values, photometric="minisblack", extrasamples=[kind])
        expected = 40000 / 257 / 2 + 255 / 2
        assert np.abs(pixels(data, background="white") - expected).max() <= 1.5


def test_a_format_that_is_not_read_is_named() -> None:
    values = np.zeros((8, 8, 5), np.float32)
    told = refusal(tiff(values, photometric="separated", extrasamples=["unspecified"]))
    assert "got a TIFF of 5 × float32, SEPARATED" in told and "expected gray or RGB" in told
    assert "of something else" in refusal(b"II*\0" + bytes(100))


# --- colors ---------------------------------------------------------------------------------------------

GRID = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3), -1).reshape(18, -1, 3).astype(np.uint8)
PROFILES = {"Display P3": (DISPLAY_P3, 2.2), "Adobe RGB": (ADOBE_RGB, 563 / 256)}


@pytest.mark.parametrize("name", PROFILES)
def test_colors_of_a_profile_become_those_of_srgb(name: str) -> None:
    data = encoded(Image.fromarray(GRID), icc_profile=icc_profile(*PROFILES[name]))
    expected = srgb_of(GRID, *PROFILES[name])
    assert np.abs(GRID - expected).mean() > 5  # taken for sRGB they would be wrong
    assert np.abs(pixels(data) - expected).max() <= 2
    turned = Image.fromarray(GRID).convert("RGBA")
    turned.putalpha(0)
    assert (
        pixels(encoded(turned, icc_profile=icc_profile(*PROFILES[name])), background="#102030") == [16, 32, 48]
    ).all()


def test_a_palette_and_a_jpeg_have_their_colors_converted_too() -> None:
    profile = icc_profile(*PROFILES["Adobe RGB"])
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 60, 200, 80])
    color = np.array([60, 200, 80], np.uint8)
    expected = srgb_of(color, *PROFILES["Adobe RGB"])
    assert np.abs(pixels(encoded(palette, icc_profile=profile)) - expected).max() <= 2
    plain = Image.new("RGB", (8, 8), tuple(color.tolist()))
    assert np.abs(pixels(encoded(plain, "JPEG", icc_profile=profile, quality=100)) - expected).max() <= 4


def test_a_gray_profile_is_followed() -> None:
    data = encoded(Image.fromarray(EIGHT_BIT_RAMP.astype(np.uint8)), icc_profile=gray_profile(1.0))
    linear = EIGHT_BIT_RAMP / 255
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(pixels(data, 1)[..., 0] - expected).max() <= 0.6


@pytest.mark.parametrize("profile", ["srgb", "of another space", "broken"])
def test_colors_stay_to_the_bit_where_there_is_nothing_to_convert(profile: str) -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    given = {"srgb": own, "of another space": gray_profile(1.8), "broken": b"nothing"}[profile]
    assert (pixels(encoded(NOISE, icc_profile=given)) == np.asarray(NOISE)).all()


def test_written_files_say_that_they_are_srgb_and_are_always_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(NOISE)
    with Image.open(BytesIO(data)) as image:
        name = ImageCms.getProfileDescription(ImageCms.getOpenProfile(BytesIO(image.info["icc_profile"])))
        assert "sRGB" in name
    assert b"sRGB" in png(NOISE.convert("L"))
    with Image.open(BytesIO(png(NOISE.convert("L")))) as image:
        assert "icc_profile" not in image.info and image.info["srgb"] == 0
    assert (pixels(data) == np.asarray(NOISE)).all()
    real = ImageCms.ImageCmsProfile.tobytes
    monkeypatch.setattr(ImageCms.ImageCmsProfile, "tobytes", lambda own: real(own)[:24] + bytes(12) + real(own)[36:])
    srgb_profile.cache_clear()
    assert png(NOISE) == data  # whatever the date


# --- what is seen ---------------------------------------------------------------------------------------


def test_a_drawing_on_its_own_color_is_told() -> None:
    drawing = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (5, 5, 15, 15))
    assert notes(encoded(drawing), background="black") == ["one color"]
    for background in ("white", "auto"):
        assert notes(encoded(drawing), background=background) == []


def ascends(image: NDArray[np.int64]) -> bool:
    """Whether each line goes from black to white."""
    return bool((np.diff(image[..., 0]) >= 0).all() and (image[:, 0] == 0).all() and (image[:, -1] == 255).all())


REAL = {  # what the file shows, and what is told
    "exif-rotated.jpg": (lambda image: image.shape == (64, 48, 3) and (image[..., 0] > 240).all(), ["one color"]),
    "text.png": (lambda image: (image == [255, 0, 0]).all(), ["one color"]),
    "icc-2MB.png": (lambda image: image.max() == 255, []),
    "bad-crc-text.png": (lambda image: image.max() == 255, ["damaged chunk"]),
    "jpeg-2-bytes-short.jpg": (lambda image: image.shape == (200, 300, 3), ["no end"]),
    "float.tif": (ascends, ["clipped"]),
    "alpha0.bmp": (lambda image: (image == [255, 0, 0]).all(), ["one color"]),
    "t-32uint-small.tif": (lambda image: image.max() <= 1, ["little range"]),
    "t-16-whiteiszero.tif": (ascends, []),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_are_read_right(name: str, data_root: Path) -> None:
    file, (shows, told) = data_root / "odd-files" / name, REAL[name]
    if not file.is_file():
        pytest.skip("these files come beside the real data sets only")
    assert shows(pixels(file.read_bytes()))
    assert notes(file.read_bytes()) == told
    if name == "t-32uint-small.tif":
        assert ascends(pixels(file.read_bytes(), range=(0, 200)))
