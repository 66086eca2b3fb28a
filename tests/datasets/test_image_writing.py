"""Files that are written: other programs read in them what was given, and they read like their inputs."""

from io import BytesIO
from itertools import pairwise
from typing import get_args, get_type_hints

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from odd_files import encoded, tiff
from PIL import Image, ImageCms

from flowferry.configs.images import ReadConfig
from flowferry.configs.options import TranslateOptions
from flowferry.configs.validation import UserError
from flowferry.datasets.image_io import Decoded, decode, to_tensor
from flowferry.datasets.image_writing import WRITTEN, encode, format_for, format_named
from flowferry.datasets.pixels import to_images
from flowferry.datasets.stored import SIXTEEN_BITS, Stored

RANDOM = np.random.default_rng(0)
LOSSLESS = ["png", "webp", "tiff", "npy"]


def random(dtype: type, channels: int, height: int = 9, width: int = 7) -> NDArray:
    """Numbers of the whole range of their kind, the smallest and the largest among them."""
    numbers = RANDOM.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    numbers[0, 0], numbers[-1, -1] = 0, np.iinfo(dtype).max
    return numbers


def image_of(numbers: NDArray) -> torch.Tensor:
    return to_images(torch.from_numpy(numbers).movedim(-1, 0))


def reopened(data: bytes) -> NDArray:
    """The numbers [H, W, C] that tifffile, NumPy or Pillow finds in a file."""
    if data.startswith(b"II"):
        found = tifffile.imread(BytesIO(data))
    elif data.startswith(b"\x93NUMPY"):
        found = np.load(BytesIO(data))
    else:
        with Image.open(BytesIO(data)) as image:
            found = np.asarray(image)
    return np.atleast_3d(found)


def read(data: bytes, channels: int, **options: object) -> Decoded:
    return decode(data, channels, ReadConfig(**options))


# --- what is written ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", LOSSLESS)
def test_eight_bits_are_kept_and_other_programs_read_them(name: str, channels: int) -> None:
    numbers = random(np.uint8, channels)
    found = reopened(encode(image_of(numbers), name))
    if name == "webp" and channels < 3:  # which has no gray
        assert (found[..., :1] == found[..., 1:2]).all()
        found = found[..., :1] if channels == 1 else found[..., [0, 3]]
    assert found.dtype == np.uint8 and (found == numbers).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["png", "tiff", "npy"])
def test_sixteen_bits_are_kept(name: str, channels: int) -> None:
    numbers = random(np.uint16, channels)
    data = encode(image_of(numbers), name, SIXTEEN_BITS)
    found = reopened(data)
    if name == "png" and channels > 1:  # of which Pillow shows the upper bytes
        found = found if channels > 2 else found[..., [0, 3]]
        assert np.abs(found.astype(int) - numbers // 256).max() <= 1
    else:
        assert found.dtype == np.uint16 and (found == numbers).all()
    assert (read(data, channels).pixels == numbers).all()


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["tiff", "npy"])
def test_other_numbers_stay_numbers_of_their_kind(name: str, dtype: type) -> None:
    """Between black and white as the input had them."""
    stored = Stored(np.dtype(dtype), (-1024.0, 3071.0) if dtype == np.int16 else (0.0, 60000.0))
    found = reopened(encode(torch.tensor([[[-1.5, -1.0, 0.0, 1.0, 1.5]]]), name, stored))
    low, high = stored.range
    assert found.dtype == dtype
    assert found.flatten().tolist() == [low, low, round((low + high) / 2), high, high]


@pytest.mark.parametrize("kind", [np.float32, np.int16, np.uint32])
def test_numbers_that_a_format_cannot_hold_become_those_that_it_can(kind: type) -> None:
    stored = Stored(np.dtype(kind), (0.0, 1.0))
    ramp = torch.linspace(-1, 1, 65536).view(1, 256, 256)
    assert (reopened(encode(ramp, "png", stored)).flatten() == np.arange(65536)).all()
    for name in ("jpeg", "webp"):
        assert reopened(encode(ramp, name, stored)).dtype == np.uint8


@pytest.mark.parametrize("channels", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("name", ["tiff", "npy"])
def test_bands_stay_bands(name: str, channels: int) -> None:
    numbers = random(np.uint16, channels)
    data = encode(image_of(numbers), name, SIXTEEN_BITS._replace(are_colors=False))
    assert (reopened(data) == numbers).all()
    decoded = read(data, channels)
    assert (decoded.pixels == numbers).all() and decoded.alpha is None
    if name == "tiff":
        page = tifffile.TiffFile(BytesIO(data)).pages[0]
        assert page.photometric.name == "MINISBLACK" and set(page.extrasamples) == {0} and not decoded.stored.are_colors


def test_a_jpeg_is_close_and_its_colors_are_sharp() -> None:
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    smooth = np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], -1).clip(0, 255).astype(np.uint8)
    assert np.abs(reopened(encode(image_of(smooth), "jpeg")).astype(int) - smooth).mean() < 1
    edge = np.zeros((32, 32, 3), np.uint8)
    edge[:, 15:] = [255, 0, 0]
    assert np.abs(reopened(encode(image_of(edge), "jpeg")).astype(int) - edge).max() < 40  # halved colors: 100 and more


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WRITTEN)
def test_alpha_is_kept_beside_the_colors_where_the_format_can(name: str, channels: int, dtype: type) -> None:
    numbers, alpha = random(dtype, channels), random(dtype, 1)
    stored = SIXTEEN_BITS if dtype == np.uint16 else Stored()
    data = encode(image_of(numbers), name, stored, alpha)
    if not WRITTEN[name].keeps_alpha:
        assert reopened(data).shape[-1] == channels
        return
    decoded = read(data, channels + 1)
    held = WRITTEN[name].held(stored).dtype
    expected = np.rint(alpha / np.iinfo(dtype).max * np.iinfo(held).max)
    assert decoded.pixels.dtype == held and (decoded.pixels[..., -1:] == expected).all()
    if held == dtype:
        assert (decoded.pixels[..., :-1] == numbers).all()


@pytest.mark.parametrize("stored", [Stored(), SIXTEEN_BITS], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "tiff"])
def test_files_in_color_hold_the_profile_of_srgb(name: str, stored: Stored) -> None:
    with Image.open(BytesIO(encode(image_of(random(np.uint8, 3)), name, stored))) as image:
        profile = image.info["icc_profile"]
    assert "sRGB" in ImageCms.getProfileDescription(ImageCms.getOpenProfile(BytesIO(profile)))


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_image_gives_the_same_bytes(name: str) -> None:
    image = image_of(random(np.uint16, 3))
    assert encode(image, name, SIXTEEN_BITS) == encode(image.clone(), name, SIXTEEN_BITS)
    assert b"20" + b"2" not in encode(image, name, SIXTEEN_BITS)[:200]  # no date


# --- and reads like the input ---------------------------------------------------------------------------

INPUTS = {
    "12 bits": (tiff(random(np.uint16, 3) // 16, photometric="rgb", extratags=[(281, "H", 1, 4095, True)]), {}),
    "CT": (tiff(random(np.uint16, 1)[..., 0].astype(np.int32) // 16 - 1024), {"range": (-1024, 3071)}),
    "floats": (tiff(random(np.uint16, 3).astype(np.float32) / 65535, photometric="rgb"), {}),
    "gray": (encoded(Image.fromarray(random(np.uint16, 1)[..., 0])), {}),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_what_was_read_and_written_again_holds_the_same_numbers(kind: str) -> None:
    """Whatever their kind and range, as exactly as 16 bits have them."""
    data, options = INPUTS[kind]
    channels = reopened(data).shape[-1]
    decoded = read(data, channels, **options)
    again = encode(to_tensor(decoded.pixels), "png" if kind == "gray" else "tiff", decoded.stored)
    before, after = reopened(data), reopened(again)
    assert before.dtype == after.dtype
    assert np.abs(before.astype(float) - after).max() <= (1e-7 if kind == "floats" else 0)
    assert (read(again, channels, **options).pixels == decoded.pixels).all()


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3), (3, 5, 6)])
def test_an_array_keeps_its_layout(shape: tuple[int, ...]) -> None:
    array = RANDOM.random(shape, np.float32)
    file = BytesIO()
    np.save(file, array)
    decoded = read(file.getvalue(), 1 if len(shape) == 2 else 3)
    again = np.load(BytesIO(encode(to_tensor(decoded.pixels), "npy", decoded.stored)))
    assert again.shape == shape and np.abs(again - array).max() < 1e-5


# --- names and limits -----------------------------------------------------------------------------------


def test_the_option_takes_the_formats_that_there_are() -> None:
    taken = get_args(get_args(get_type_hints(TranslateOptions)["format"])[0])
    assert taken == tuple(WRITTEN)
    endings = [ending for kind in WRITTEN.values() for ending in kind.endings]
    assert len(endings) == len(set(endings))


def test_results_have_the_format_of_their_inputs_where_that_loses_nothing() -> None:
    names = {"a.PNG": "png", "a.webp": "webp", "a.tiff": "tiff", "a.npy": "npy", "a.jpg": "png", "a.gif": "png"}
    assert {name: format_for(name, None) for name in names} == names
    assert all(format_for(name, "jpeg") == "jpeg" for name in names)
    assert (format_named("a.JPEG"), format_named("png"), format_named("a.b")) == ("jpeg", None, None)


@pytest.mark.parametrize("name, channels", [("png", 7), ("jpeg", 4), ("jpeg", 2), ("webp", 5)])
def test_more_channels_than_a_format_holds_are_refused(name: str, channels: int) -> None:
    with pytest.raises(UserError, match=rf"format {name}: got images of {channels} channels, expected .*tiff, npy"):
        encode(torch.zeros(channels, 4, 4), name)


def test_an_image_that_is_too_large_for_a_format_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"cannot be written as webp \(.*16383") as told:
        encode(torch.zeros(1, 1, 16384), "webp")
    assert "\n" not in str(told.value)


def test_sixteen_bits_of_a_photograph_are_compressed() -> None:
    """Lines differ little from those above them."""
    smooth = np.add.outer(np.arange(200) * 200, np.arange(300) * 80).astype(np.uint16)[..., None].repeat(3, -1)
    assert len(encode(image_of(smooth), "png", SIXTEEN_BITS)) < smooth.nbytes / 20
    assert all((np.diff(line.astype(int)) >= 0).all() for line, _ in pairwise(smooth[..., 0]))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32])
@pytest.mark.parametrize("range", [(-1024.0, 3071.0), (-40000.0, 40000.0), (0.0, 100000.0)])
def test_numbers_beyond_what_their_kind_holds_are_clipped(dtype: type, range: tuple[float, float]) -> None:
    """They do not wrap around, and each format takes them."""
    image = torch.linspace(-1, 1, 63).view(1, 9, 7)
    stored = Stored(np.dtype(dtype), range)
    numbers = stored.numbers(image).ravel().astype(np.int64)
    assert (np.diff(numbers) >= 0).all() and numbers[0] < numbers[-1]
    assert numbers[0] == max(range[0], np.iinfo(dtype).min) and numbers[-1] == min(range[1], np.iinfo(dtype).max)
    for name in WRITTEN:
        assert encode(image, name, stored)
