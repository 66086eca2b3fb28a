"""Files whose channels are no colors: datasets/bands.py."""

import pickle
from io import BytesIO

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from odd_files import ADOBE_RGB, deep_png, encoded, icc_profile, srgb_of, tiff
from PIL import Image

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.image_io import Decoded, decode

RANDOM = np.random.default_rng(0)


def npy(array: NDArray, **options: object) -> bytes:
    file = BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def pages(values: NDArray) -> bytes:
    """[C, H, W] as a TIFF file of C pages."""
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in values:
            writer.write(page, photometric="minisblack", contiguous=False)
    return file.getvalue()


def read(data: bytes, channels: int, frame: tuple[int, int] | None = None, **options: object) -> Decoded:
    return decode(data, channels, ReadConfig(**options), frame)


def refusal(data: bytes, channels: int) -> str:
    with pytest.raises(UserError, match="not a readable image") as told:
        read(data, channels)
    assert "\n" not in str(told.value)
    return str(told.value)


SEVEN = RANDOM.integers(0, 65536, (5, 6, 7), np.uint16)
EXTRA = ["unspecified"] * 6
FILES = {
    "bands": tiff(SEVEN, photometric="minisblack", planarconfig="contig", extrasamples=EXTRA),
    "planes": tiff(np.moveaxis(SEVEN, -1, 0), photometric="minisblack", planarconfig="separate", extrasamples=EXTRA),
    "pages": pages(np.moveaxis(SEVEN, -1, 0)),
    "array, channels last": npy(SEVEN),
    "array, channels first": npy(np.moveaxis(SEVEN, -1, 0)),
    "array in Fortran's order": npy(np.asfortranarray(SEVEN)),
    "big-endian array": npy(SEVEN.astype(">u2")),
}


@pytest.mark.parametrize("kind", FILES)
def test_seven_bands_are_read_as_they_are(kind: str) -> None:
    decoded = read(FILES[kind], 7)
    assert (decoded.pixels == SEVEN).all() and decoded.size == (6, 5)
    assert decoded.alpha is None and not decoded.stored.are_colors


@pytest.mark.parametrize("kind", FILES)
def test_another_number_of_bands_is_refused_in_a_line(kind: str) -> None:
    told = refusal(FILES[kind], 8)
    assert "8 channels" in told or "(H, W, 8)" in told


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_picture_is_not_read_as_seven_bands(kind: str) -> None:
    assert "got a picture, expected 7 channels" in refusal(encoded(Image.new("RGB", (6, 5)), kind), 7)


def test_four_bands_are_not_taken_for_alpha() -> None:
    four = RANDOM.integers(0, 256, (5, 6, 4), np.uint8)
    for data in (
        tiff(four, photometric="rgb", extrasamples=["unspecified"]),
        npy(four),
        pages(np.moveaxis(four, -1, 0)),
    ):
        decoded = read(data, 4)
        assert (decoded.pixels == four).all() and not decoded.stored.are_colors
        stretched = read(data, 4, (12, 10), resize="stretch").pixels
        assert (
            np.abs(stretched[..., :3].mean((0, 1)) - four[..., :3].mean((0, 1))).max() < 4
        )  # not weighted by the last


def test_arrays_of_gray_and_color_are_converted_like_pictures() -> None:
    gray, color = RANDOM.integers(0, 256, (5, 6), np.uint8), RANDOM.integers(0, 256, (5, 6, 3), np.uint8)
    assert (read(npy(gray), 3).pixels == gray[..., None]).all()
    luma = np.asarray(Image.fromarray(color).convert("L"))
    assert np.abs(read(npy(color), 1).pixels[..., 0].astype(int) - luma).max() <= 1
    opaque = read(npy(color), 4).pixels
    assert (opaque[..., :3] == color).all() and (opaque[..., 3] == 255).all()


@pytest.mark.parametrize("dtype, white", [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1)])
def test_arrays_of_each_kind_are_scaled_to_their_range(dtype: type, white: float) -> None:
    ramp = np.linspace(0, 1, 30).reshape(5, 6)
    pixels = read(npy((ramp * white).astype(dtype)), 1).pixels
    assert np.abs(pixels[..., 0] / np.iinfo(pixels.dtype).max - ramp).max() < 1 / (255 if dtype == np.uint8 else 60000)


BAD = {
    "objects": (npy(np.array([[{}]], dtype=object), allow_pickle=True), "array of object"),
    "complex": (npy(np.zeros((3, 3), complex)), "complex"),
    "text": (npy(np.full((3, 3), "a")), "array of <U1"),
    "structure": (npy(np.zeros((3, 3), [("a", "f4")])), "array of"),
    "one axis": (npy(np.zeros(9)), "shape (9,)"),
    "four axes": (npy(np.zeros((1, 3, 3, 3))), "shape (1, 3, 3, 3)"),
    "five channels": (npy(np.zeros((6, 7, 5))), "expected (H, W), (H, W, 3) or (3, H, W)"),
    "nothing": (npy(np.zeros((0, 3, 3))), "shape (0, 3, 3)"),
    "cut": (npy(np.zeros((9, 9)))[:-1], "buffer"),
    "no header": (b"\x93NUMPY", "magic string"),
    "NaN": (npy(np.full((3, 3), np.nan)), "nan"),
    "out of range": (npy(np.full((3, 3), 77.0)), "expected 0 to 1"),
    "a size of its own telling": (npy(np.zeros((3, 3))).replace(b"(3, 3)", b"(9**9,"), "not a readable image"),
    "a bomb": (
        npy(np.zeros((3, 3))).replace(b"(3, 3), }          ", b"(300000, 300000), }"),
        "got 300000 × 300000 pixels",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_arrays_that_are_no_images_are_refused_in_a_line(kind: str) -> None:
    data, reason = BAD[kind]
    assert reason in refusal(data, 3)


def test_a_pickle_in_an_array_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    data = npy(np.array([[{}]], dtype=object), allow_pickle=True)
    monkeypatch.setattr(pickle, "load", lambda *given, **options: pytest.fail("unpickled"))
    refusal(data, 1)


# --- deep pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_image_is_turned_upright_as_pillow_turns_others(orientation: int) -> None:
    values = RANDOM.integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = decode(encoded(Image.fromarray(values), exif=exif), 3, ReadConfig()).pixels
    deep = tiff(values.astype(np.uint16) * 257, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    assert (read(deep, 3).pixels == shown.astype(np.uint16) * 257).all()


@pytest.mark.parametrize("resize", ["fit", "fill", "stretch"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_deep_image_is_framed_and_laid_on_the_background_as_one_of_8_bits(channels: int, resize: str) -> None:
    values = np.asarray(Image.fromarray(RANDOM.integers(0, 256, (6, 9, 4), np.uint8)).resize((60, 40)))
    deep = deep_png(values.astype(np.uint16) * 257)
    options: dict = {"frame": (28, 20), "resize": resize, "background": "#ff8000"}
    eight, sixteen = read(encoded(Image.fromarray(values)), channels, **options), read(deep, channels, **options)
    assert eight.pixels.dtype == np.uint8 and sixteen.pixels.dtype == np.uint16
    weight = 1.0 if channels < 4 else eight.pixels[..., 3:] / 255  # colors that are hardly seen are rounded coarsely
    assert np.abs((eight.pixels - sixteen.pixels / 257) * weight).max() < 3
    if channels < 4:
        assert eight.alpha is not None and sixteen.alpha is not None
        assert np.abs(eight.alpha - sixteen.alpha / 257).max() < 2


def test_deep_colors_of_a_profile_become_those_of_srgb_without_steps() -> None:
    up = np.linspace(0, 65535, 4096).astype(np.uint16)
    colors, grays = (np.stack(ramps, -1)[None] for ramps in ([up, up[::-1], np.full_like(up, 30000)], [up, up, up]))
    for values in (colors, grays):
        data = tiff(values, photometric="rgb", iccprofile=icc_profile(ADOBE_RGB, 563 / 256))
        found = read(data, 3).pixels / 257
        assert np.abs(found - srgb_of(values / 257, ADOBE_RGB, 563 / 256)).max() < 3
    assert np.abs(np.diff(found, axis=1)).max() < 0.5 and len(np.unique(found[..., 0])) > 3000
