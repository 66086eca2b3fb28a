"""The sheet, the GIF and the page of a translated folder."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from translations import noise, save_tiny, translate, write_images


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny fashion2mnist."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny", "fashion2mnist-published", {"width": 4})


def test_what_is_shown_is_what_was_translated(trained: Path, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 5)
    noise(7).save(source / "<b>&\"'.png")
    assert translate(trained, source, tmp_path / "out", "--sheet", "--gif", "--html", "--restore-size") == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;&amp;&quot;&#x27;.png" in page
    encoded = re.findall(r'class="after" src="data:image/png;base64,([^"]*)"', page)
    shown = [np.asarray(Image.open(BytesIO(base64.b64decode(one)))) for one in encoded]
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*/*.png"))
    for image, name in zip(shown, [*names, "<b>&\"'.png"], strict=True):
        assert (image == np.asarray(Image.open(tmp_path / "out" / name))).all()
    with Image.open(tmp_path / "out" / "path.gif") as gif:
        assert gif.n_frames == 4  # three steps
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.width > 6 * 28 * 2


def test_variants_are_shown_beside_one_another(trained: Path, tmp_path: Path) -> None:
    source, options = write_images(tmp_path / "in", 2), ("--source-noise", "0.4", "--sheet", "--html", "--gif")
    assert translate(trained, source, tmp_path / "one", *options) == 0
    assert translate(trained, source, tmp_path / "three", *options, "--variants", "3") == 0
    page = (tmp_path / "three" / "index.html").read_text()
    encoded = re.findall(r'class="after" src="data:image/png;base64,([^"]*)"', page)
    shown = [np.asarray(Image.open(BytesIO(base64.b64decode(one)))) for one in encoded]
    files = [tmp_path / "three" / f"{stem}.{k}.png" for stem in ("0/0", "1/1") for k in (1, 2, 3)]
    assert page.count("<figcaption") == 2
    assert all((a == np.asarray(Image.open(b))).all() for a, b in zip(shown, files, strict=True))
    one, three = (Image.open(tmp_path / name / "sheet.png") for name in ("one", "three"))
    row = 2 * 28 + 2
    assert three.height == one.height + 2 * row
    with Image.open(tmp_path / "three" / "path.gif") as gif:
        assert gif.width > 3 * 4 * 28


@pytest.mark.parametrize("format", ["png", "tiff", "npy", None])
def test_results_are_shown_in_the_range_in_which_their_format_holds_them(
    format: str | None, trained: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for kind in (np.float32, np.uint16):
        tifffile.imwrite(source / f"{kind.__name__}.tif", np.linspace(0, 4095, 28 * 28).reshape(28, 28).astype(kind))
    options = ("--range", "0", "4095", "--sheet", "--html", *(("--format", format) if format else ()))
    assert translate(trained, source, tmp_path / "out", *options) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<figcaption") == 2
    shown = re.findall(r'class="after" src="data:image/png;base64,([^"]*)"', page)
    float32, uint16 = (np.asarray(Image.open(BytesIO(base64.b64decode(one)))).astype(int) for one in shown)
    assert np.ptp(float32) > 50, "it would be nearly black in the range of the input"
    assert np.abs(float32 - uint16).max() <= 1
