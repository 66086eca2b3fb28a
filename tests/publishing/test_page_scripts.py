"""The scripts of the page beside Python: the same hashes, the same noise, the same framing of pictures."""

import base64
import hashlib
from collections.abc import Iterator
from io import BytesIO
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Page

from browser import browser_page
from flowferry.configs.images import ReadConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.validation import UserError
from flowferry.datasets.image_io import decode
from flowferry.datasets.pixels import to_images
from flowferry.datasets.rng import derive_seed, generator, normal_rows
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.publishing.for_page import joined
from flowferry.pipelines.translation.transforms import noise_rows

GLOBALS = """
Object.assign(window, {
  blake2b, sha256, deriveSeed, normalValues, sourceNoise, noiseOnPicture, pictureOf, planes, fromBase64,
});
"""


@pytest.fixture(scope="module")
def scripts() -> Iterator[Page]:
    """A page that holds the functions of the scripts."""
    with browser_page() as page:
        page.add_script_tag(type="module", content=joined(("hashes", "randomness", "pictures", "network")) + GLOBALS)
        page.wait_for_function("window.fromBase64")
        yield page


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_the_hashes_are_those_of_hashlib(scripts: Page) -> None:
    for length in (0, 1, 55, 56, 63, 64, 65, 127, 128, 1000):
        data = bytes(k * 7 % 256 for k in range(length))
        assert scripts.evaluate("text => sha256(fromBase64(text))", text(data)) == hashlib.sha256(data).hexdigest()
        if length <= 128:
            found = scripts.evaluate("text => blake2b(fromBase64(text)).toString(16).padStart(16, '0')", text(data))
            assert found == hashlib.blake2b(data, digest_size=8).hexdigest()


def test_a_name_has_the_seed_that_it_has_in_python(scripts: Page) -> None:
    for name in ((0, "source"), (-3, "gaussian", 0), ("abc",), (2**62 + 1, "row", 7), (5,)):
        parts = [part if isinstance(part, str) else f"{part}n" for part in name]
        script = "parts => deriveSeed(...parts.map(p => /^-?\\d+n$/.test(p) ? BigInt(p.slice(0, -1)) : p)).toString()"
        assert scripts.evaluate(script, parts) == str(derive_seed(*name))


@pytest.mark.parametrize("count", [16, 17, 31, 784, 3 * 32 * 32, 1000])
def test_normal_values_are_those_of_torch(scripts: Page, count: int) -> None:
    for seed in (0, 5489, 2**63 - 1):
        found = scripts.evaluate("([seed, count]) => [...normalValues(BigInt(seed), count)]", [str(seed), count])
        expected = torch.randn(count, generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(torch.tensor(found), expected, rtol=0, atol=3e-6)


def test_noise_is_that_of_the_first_sample_and_of_a_picture_s_contents(scripts: Page) -> None:
    pipeline = Pipeline(PIPELINES["noise2mnist-cfg"])
    found = scripts.evaluate("[...sourceNoise(11n, 784)]")
    first = pipeline.draw_source(3, seed=11)[0].cpu()
    assert torch.allclose(torch.tensor(found), first.flatten(), rtol=0, atol=3e-6)
    pixels = torch.randint(0, 256, (1, 3, 8, 9), dtype=torch.uint8, generator=generator("cpu", "picture"))
    row = noise_rows(to_images(pixels), [1])
    expected = normal_rows(derive_seed(11, "source noise"), row)(torch.zeros(1, 3, 8, 9))
    found = scripts.evaluate(
        "text => [...noiseOnPicture(11n, planes(fromBase64(text), 3))]",
        text(pixels[0].movedim(0, -1).numpy().tobytes()),
    )
    assert torch.allclose(torch.tensor(found), expected.flatten(), rtol=0, atol=3e-6)


def encoded(size: tuple[int, int], mode: str) -> bytes:
    """Return a picture of smooth colors, edges and grain as the bytes of a PNG file."""
    rng = np.random.default_rng(size)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    planes = [np.sin(x / (2 + c) + y / 5) * 90 + (x > y) * 40 + rng.normal(120, 20, x.shape) for c in range(4)]
    if mode == "RGBA":
        planes[3] = 255.0 * (x > size[0] // 3)  # a browser keeps the colors behind these two values alone
    image = Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8), "RGBA").convert(mode)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def framed_in_browser(scripts: Page, cases: list[tuple[str, dict[str, Any]]]) -> list[bytes]:
    script = """
    cases => Promise.all(cases.map(async ([text, facts]) =>
      [...await pictureOf(new File([fromBase64(text)], 'x.png'), facts)]))
    """
    return [bytes(found) for found in scripts.evaluate(script, cases)]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_framed_as_translate_frames_it(scripts: Page, channels: int, mode: str) -> None:
    expected, cases = [], []
    for size, resize in product(((28, 28), (28, 56), (61, 40), (7, 5), (120, 31)), ("fit", "fill", "stretch", "crop")):
        data = encoded(size, mode)
        background, told = (("auto", None), ("#204080", [0x20, 0x40, 0x80]))[len(cases) % 2]
        reading = ReadConfig(resize=resize, background=background)
        expected.append(decode(data, channels, reading, (28, 28)).pixels.tobytes())
        cases.append((text(data), {"shape": [channels, 28, 28], "resize": resize, "background": told}))
    assert framed_in_browser(scripts, cases) == expected


def test_a_picture_of_another_size_or_none_is_refused(scripts: Page) -> None:
    facts = {"shape": [1, 28, 28], "resize": "none", "background": None}
    with pytest.raises(UserError):
        decode(encoded((29, 28), "L"), 1, ReadConfig(resize="none"), (28, 28))
    with pytest.raises(Exception, match="got 29 × 28 pixels, expected 28 × 28"):
        framed_in_browser(scripts, [(text(encoded((29, 28), "L")), facts)])
    with pytest.raises(Exception, match="got something that this browser cannot open, expected a picture"):
        framed_in_browser(scripts, [(text(b"no picture"), facts)])
