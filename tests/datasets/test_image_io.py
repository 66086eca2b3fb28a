"""Image files and their fit to a network's frame: datasets/image_io.py."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from flowferry.configs.images import ReadConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.framing import framed, restored
from flowferry.datasets.image_io import load_image
from flowferry.datasets.pixels import to_images, to_pil, to_pixels

GRAY, COLOR = (1, 28, 28), (3, 28, 28)
ON_BLACK = ReadConfig(background="black")
each_shape = pytest.mark.parametrize("shape", [GRAY, COLOR], ids=["gray", "color"])


# --- the conversion and its inverse ---------------------------------------------------------------------


# --- image files ----------------------------------------------------------------------------------------


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@each_shape
def test_a_file_of_the_right_size_is_read_pixel_by_pixel(shape: tuple[int, int, int], tmp_path: Path) -> None:
    pixels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image = load_image(saved(to_pil(to_images(pixels)), tmp_path / "x.png"), shape)
    assert image.dtype == torch.float32
    assert torch.equal(to_pixels(image), pixels)


def palette() -> Image.Image:
    """A P image of one color, (200, 100, 50)."""
    image = Image.new("P", (28, 28), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    return image


PLAIN = {  # image -> red, green, blue
    "RGB": (Image.new("RGB", (28, 28), (255, 0, 100)), (255, 0, 100)),
    "RGBA half transparent": (Image.new("RGBA", (28, 28), (200, 0, 100, 128)), (100, 0, 50)),
    "RGBA transparent": (Image.new("RGBA", (28, 28), (200, 0, 100, 0)), (0, 0, 0)),
    "L": (Image.new("L", (28, 28), 77), (77, 77, 77)),
    "LA": (Image.new("LA", (28, 28), (200, 128)), (100, 100, 100)),
    "P": (palette(), (200, 100, 50)),
    "1": (Image.new("1", (28, 28), 1), (255, 255, 255)),
}


@each_shape
@pytest.mark.parametrize("mode", PLAIN)
def test_images_of_each_mode_are_laid_on_black(mode: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    image, (red, green, blue) = PLAIN[mode]
    loaded = to_pixels(load_image(saved(image, tmp_path / "x.png"), shape, ON_BLACK)).float()
    assert loaded.shape == shape
    # ITU-R 601 luma, which Pillow's "L" is
    expected = torch.tensor([red, green, blue] if shape == COLOR else [0.299 * red + 0.587 * green + 0.114 * blue])
    assert (loaded - expected[:, None, None]).abs().max() <= 1


@pytest.mark.parametrize("transparency, left", [(0, 0), (bytes([128, 255]), 128)], ids=["index", "bytes"])
def test_a_transparent_palette_entry_is_laid_on_black_and_the_others_stay(
    transparency: int | bytes, left: int, tmp_path: Path
) -> None:
    image = Image.new("P", (28, 28), 0)
    image.putpalette([255, 255, 255, 200, 100, 50])
    image.paste(1, (14, 0, 28, 28))
    loaded = to_pixels(load_image(saved(image, tmp_path / "x.png", transparency=transparency), COLOR, ON_BLACK))
    assert (loaded[:, :, :14] == left).all()
    assert (loaded[:, :, 14:] == torch.tensor([200, 100, 50])[:, None, None]).all()


@each_shape
@pytest.mark.parametrize("ink, expected", [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0)])
def test_cmyk_is_ink_on_white(ink: tuple[int, ...], expected: int, shape: tuple[int, int, int], tmp_path: Path) -> None:
    file = saved(Image.new("CMYK", (28, 28), ink), tmp_path / "x.jpg")
    assert (to_pixels(load_image(file, shape)).int() - expected).abs().max() <= 2


@pytest.mark.parametrize("name, dtype", [("x.png", np.uint16), ("x.tif", np.uint16), ("x.tif", np.int32)])
def test_a_16_bit_ramp_stays_a_ramp(name: str, dtype: type, tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 28 * 28).round().astype(dtype).reshape(28, 28)
    loaded = to_pixels(load_image(saved(Image.fromarray(ramp), tmp_path / name), GRAY)).flatten().int()
    assert (loaded.diff() >= 0).all()  # no wrapping
    assert len(loaded.unique()) == 256
    assert (loaded - torch.linspace(0, 255, 28 * 28)).abs().max() <= 0.51


# What an EXIF orientation says of a file whose left half is white: where the white belongs.
ORIENTED = {
    1: (slice(None), slice(0, 14)),
    3: (slice(None), slice(14, 28)),
    6: (slice(0, 14), slice(None)),  # turn it clockwise
    8: (slice(14, 28), slice(None)),
}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_exif_orientation_is_applied(orientation: int, name: str, tmp_path: Path) -> None:
    image = Image.new("L", (28, 28))
    image.paste(255, (0, 0, 14, 28))
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(saved(image, tmp_path / name, exif=exif), GRAY)[0]
    expected = torch.full((28, 28), -1.0)
    expected[ORIENTED[orientation]] = 1.0
    assert (loaded - expected).abs().mean() < 0.05  # JPEG blurs the edge


def white_box(image: Tensor) -> tuple[int, int, int, int]:
    """First and last row, first and last column that are not black."""
    rows, columns = ((image[0] > -0.5).any(dim=axis).nonzero() for axis in (1, 0))
    return rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()


@pytest.mark.parametrize(
    "size, box",
    [
        ((56, 28), (7, 20, 0, 27)),
        ((28, 56), (0, 27, 7, 20)),
        ((57, 57), (0, 27, 0, 27)),
        ((5, 5), (0, 27, 0, 27)),
        ((1, 1), (0, 27, 0, 27)),
        ((281, 80), (10, 17, 0, 27)),
    ],
)
def test_other_sizes_are_scaled_to_fit_and_centered(
    size: tuple[int, int], box: tuple[int, ...], tmp_path: Path
) -> None:
    loaded = load_image(saved(Image.new("L", size, 255), tmp_path / "x.png"), GRAY)
    assert loaded.shape == GRAY
    assert loaded.min() >= -1
    assert loaded.max() <= 1
    assert white_box(loaded) == box


def noise_image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif", "x.bmp", "x.tif", "x.webp"])
@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.9])
def test_half_a_file_is_refused_by_name(name: str, kept: float, tmp_path: Path) -> None:
    file = saved(noise_image(), tmp_path / name)
    load_image(file, COLOR)
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(UserError, match="not a readable image") as told:
        load_image(file, COLOR)
    assert str(file) in str(told.value)


@pytest.mark.parametrize("name", ["notes.png", "missing.png", "."])
def test_what_is_no_image_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image\n" * 100)
    with pytest.raises(UserError, match="not a readable image") as told:
        load_image(tmp_path / name, GRAY)
    assert str(tmp_path / name) in str(told.value)


@pytest.mark.parametrize("size", [(3000, 20), (1, 1000), (1000, 1)])
def test_the_thinnest_images_keep_at_least_a_line(size: tuple[int, int], tmp_path: Path) -> None:
    image = load_image(saved(Image.new("L", size, "white"), tmp_path / "x.png"), GRAY)
    assert image.max() > 0.9


def test_whatever_a_decoder_raises_is_told_with_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(b"some")

    def broken(*given: object, **options: object) -> None:
        raise SyntaxError("broken PNG file")

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(UserError, match=r"x\.png: not a readable image .*broken PNG file"):
        load_image(tmp_path / "x.png", GRAY)


def colors(image: Image.Image) -> set[tuple[int, ...]]:
    return set(map(tuple, np.asarray(image).reshape(-1, len(image.getbands())).tolist()))


SIZES = [(28, 28), (57, 28), (28, 57), (300, 40), (5, 9), (1, 1), (1000, 1), (1, 1000)]


@pytest.mark.parametrize("resize", ["fit", "fill", "stretch"])
@pytest.mark.parametrize("size", SIZES)
def test_an_image_of_one_color_stays_it_where_it_is_used(resize: str, size: tuple[int, int]) -> None:
    """Framed and restored into an original of another color, of which only fill leaves something: what it cut off."""
    framing = framed(Image.new("RGB", size, (200, 100, 50)), (28, 20), resize, "blue")
    assert framing.size == (28, 20)
    if resize != "fit":
        assert colors(framing) == {(200, 100, 50)}
    back = restored(framing, Image.new("RGB", size, "green"), resize)
    assert back.size == size
    if resize != "fill":
        assert colors(back) == {(200, 100, 50)}
    assert (200, 100, 50) in colors(back)


def test_fill_shows_the_middle_and_gives_it_back_in_its_place() -> None:
    image = Image.new("L", (60, 20), 10)
    image.paste(200, (20, 0, 40, 20))
    framing = framed(image, (20, 20), "fill")
    assert colors(framing) == {(200,)}
    back = np.asarray(restored(Image.new("L", (20, 20), 77), image, "fill"))
    assert (back[:, 20:40] == 77).all()
    assert (back[:, :20] == 10).all() and (back[:, 40:] == 10).all()
    assert colors(image) == {(10,), (200,)}  # the original itself stays


def test_an_image_of_the_frame_s_own_size_is_left_as_it_is() -> None:
    image = noise_image()
    for resize in ("fit", "fill", "stretch", "none"):
        assert framed(image, image.size, resize).tobytes() == image.tobytes()
        assert restored(image, Image.new("RGB", image.size), resize).tobytes() == image.tobytes()


def test_the_background_shows_through_and_beside(tmp_path: Path) -> None:
    file = saved(Image.new("RGBA", (28, 14), (0, 0, 0, 0)), tmp_path / "x.png")
    assert (
        to_pixels(load_image(file, COLOR, ReadConfig(background="#102030")))
        == torch.tensor([16, 32, 48])[:, None, None]
    ).all()


def test_a_16_bit_gray_with_a_transparent_value(tmp_path: Path) -> None:
    pixels = np.full((28, 28), 65535, dtype=np.uint16)
    pixels[:14] = 1000
    file = saved(Image.fromarray(pixels), tmp_path / "x.png", transparency=1000)
    loaded = to_pixels(load_image(file, GRAY, ReadConfig(background="#808080")))[0]
    assert (loaded[:14] == 128).all() and (loaded[14:] == 255).all()
