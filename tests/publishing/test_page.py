"""The page in a browser, opened as a file and without a network: what it shows is what Python makes."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Error, Page, expect

from browser import browser_page
from flowferry import launch
from flowferry.configs.components import SyntheticColorsConfig
from flowferry.configs.images import ReadConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.image_io import decode, to_tensor
from flowferry.datasets.pixels import to_pixels
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.publishing.sample_pictures import sample_pictures
from flowferry.pipelines.publishing.web_runtime import runtime_files
from flowferry.pipelines.translation.transforms import Translation
from translations import noise

Pixels = np.ndarray[Any, Any]


class Opened(NamedTuple):
    """A page in the browser, with the pipeline that it was made from."""

    page: Page
    pipeline: Pipeline

    def run(self) -> list[Pixels]:
        """Press Enter where the focus is; return the states that the page then shows [H, W, 3]."""
        self.page.evaluate("document.getElementById('status').textContent = ''")  # the next one may read the same
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#status")).to_have_text(re.compile("^Done"), timeout=60_000)
        return self.states()

    def states(self) -> list[Pixels]:
        count = self.page.locator("#states canvas").count()
        return [self.pixels(f"#states li:nth-child({k + 1}) canvas") for k in range(count)]

    def pixels(self, canvas: str) -> Pixels:
        """Return the colors that a canvas shows, uint8 [H, W, 3]."""
        script = "c => [c.height, c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        height, width, *values = self.page.eval_on_selector(canvas, script)
        return np.array(values, dtype=np.uint8).reshape(height, width, 4)[..., :3]


def trained(config: Config, folder: Path) -> Path:
    """Write weights whose answers are not 0."""
    pipeline = Pipeline(config)
    torch.manual_seed(1)
    for parameter in pipeline.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    pipeline.save_pretrained(folder)
    return folder


def export(weights: Path, output: Path, *options: str | Path) -> int:
    argv = ["export", "--pipeline", weights, "--format", "page", "--output", output, *options]
    return launch.main([str(word) for word in argv])


@pytest.fixture(scope="module")
def runtime() -> None:
    """Skip where ONNX Runtime Web is neither in the user's cache nor to be had from npm."""
    try:
        runtime_files(None)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for both pages."""
    with browser_page() as page:
        assert page.context.browser is not None
        yield page.context.browser


def open_page(browser: Browser, config: Config, folder: Path) -> Iterator[Opened]:
    """Export untrained weights and open the page, offline; fail if it raised, or asked for anything but itself."""
    weights = trained(config, folder)
    assert export(weights, folder / "page") == 0
    address = (folder / "page" / "index.html").as_uri()
    page = browser.new_page(offline=True, reduced_motion="reduce")  # which shows the result at once
    errors: list[Error] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    expect(page.locator("#status")).to_have_text(re.compile("^Done"), timeout=60_000)
    yield Opened(page, Pipeline.from_pretrained(weights, device="cpu"))
    assert not errors
    assert [url for url in requests if not url.startswith("blob:")] == [address]


@pytest.fixture(scope="module")
def pictures(tiny: Any, runtime: None, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The page of a pipeline from pictures in color, wider than high, with noise on them, which infers its labels."""
    colors = SyntheticColorsConfig()
    config = tiny("fashion2mnist-labels", shape=(3, 20, 24), source=colors, target=colors)
    solver = replace(config.solver, num_steps=3, source_noise=0.3)
    yield from open_page(browser, replace(config, solver=solver), tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def digits(tiny: Any, runtime: None, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The page of a pipeline from noise to the digit that is asked for."""
    config = tiny("noise2mnist-cfg")
    solver = replace(config.solver, num_steps=2, guidance=1.5)
    yield from open_page(browser, replace(config, solver=solver), tmp_path_factory.mktemp("digits"))


def assert_same(found: list[Pixels], expected: list[torch.Tensor]) -> None:
    """Assert that states [H, W, 3] are the images [1, C, H, W] in [-1, 1], to one value of 255."""
    images = [to_pixels(state[0]).movedim(0, -1).expand(-1, -1, 3).numpy().astype(int) for state in expected]
    assert np.abs(np.stack(found).astype(int) - np.stack(images)).max() <= 1
    assert images[-1].std() > 10


# --- from pictures --------------------------------------------------------------------------------------


def on_the_way(pipeline: Pipeline, picture: torch.Tensor, seed: int, label: int | None = None) -> list[torch.Tensor]:
    """Return the states of what `translate` makes of a picture [C, H, W]. label: None: inferred."""
    return list(Translation(pipeline=pipeline, seed=seed, label=label).trajectory(picture[None], [1]))


def test_a_sample_and_a_seed_chosen_by_keyboard_give_the_states_of_python(pictures: Opened) -> None:
    pictures.page.locator("#samples button").nth(3).focus()
    pictures.page.keyboard.press("Enter")
    expect(pictures.page.locator("#status")).to_have_text("Sample 4 is on the pad.")
    pictures.page.focus("#seed")
    pictures.page.keyboard.press("ControlOrMeta+a")
    pictures.page.keyboard.type("12")
    found = pictures.run()
    picture = to_tensor(np.array(sample_pictures(pictures.pipeline.config)[3]))
    assert_same(found, on_the_way(pictures.pipeline, picture, 12))
    assert np.array_equal(pictures.pixels("#view"), found[-1])


@pytest.mark.parametrize("way", ["dropped", "chosen"])
def test_a_file_gives_what_translate_makes_of_it(pictures: Opened, tmp_path: Path, way: str) -> None:
    file = tmp_path / "x.png"
    noise(3, size=(50, 31)).save(file)
    if way == "chosen":
        pictures.page.set_input_files("#file", file)
    else:
        script = """bytes => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([Uint8Array.from(bytes)], 'x.png'));
          return dropped;
        }"""
        dropped = pictures.page.evaluate_handle(script, [*file.read_bytes()])
        pictures.page.dispatch_event("#pad", "drop", {"dataTransfer": dropped})
    expect(pictures.page.locator("#status")).to_have_text("x.png is on the pad.")
    pixels = decode(file.read_bytes(), 3, ReadConfig(), (24, 20)).pixels
    assert np.array_equal(pictures.pixels("#pad"), pixels)
    pictures.page.fill("#seed", "3")
    pictures.page.focus("#run")
    assert_same(pictures.run(), on_the_way(pictures.pipeline, to_tensor(pixels), 3))


def test_a_class_is_asked_for_in_place_of_the_one_that_is_inferred(pictures: Opened) -> None:
    page, picture = pictures.page, to_tensor(np.array(sample_pictures(pictures.pipeline.config)[3]))
    page.locator("#samples button").nth(3).click()
    page.fill("#seed", "4")
    found = []
    for asked, label in (("as inferred from the picture", None), ("7", 7), ("no class", 10)):
        page.select_option("#label", label=asked)
        page.focus("#run")
        found.append(pictures.run())
        assert_same(found[-1], on_the_way(pictures.pipeline, picture, 4, label))
    assert not np.array_equal(found[1][-1], found[2][-1])
    page.select_option("#label", label="as inferred from the picture")


def test_what_is_no_picture_is_said_in_the_page(pictures: Opened, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    pictures.page.set_input_files("#file", tmp_path / "notes.txt")
    expect(pictures.page.get_by_role("alert")).to_contain_text("notes.txt: got something that this browser cannot open")
    pictures.page.locator("#samples button").first.click()
    expect(pictures.page.locator("#error")).to_be_hidden()


def test_a_picture_is_drawn_by_pointer_and_by_keyboard_and_taken_back(pictures: Opened) -> None:
    page = pictures.page
    page.click("#clear")
    assert not pictures.pixels("#pad").any()
    page.fill("#color", "#ff8000")
    page.focus("#pad")
    for key in (" ", "ArrowRight", "ArrowRight", " ", "Shift+ArrowUp"):
        page.keyboard.press(key)
    expect(page.locator("#status")).to_have_text("Brush up, column 15 of 24, row 8 of 20")
    page.focus("#undo")
    drawn = pictures.pixels("#pad")
    assert [*drawn[10, 13]] == [255, 128, 0] and not drawn[:8].any() and not drawn[13:].any()
    box = page.locator("#pad").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] * 3 / 4)
    page.mouse.up()
    more = pictures.pixels("#pad")
    assert more[10, 6].any() and not drawn[10, 6].any()
    page.click("#undo")
    assert np.array_equal(pictures.pixels("#pad"), drawn)


# --- from noise -----------------------------------------------------------------------------------------


def test_a_label_and_a_seed_chosen_by_keyboard_give_the_sample_of_python(digits: Opened) -> None:
    found = {}
    for label in (7, 2):
        digits.page.focus("#label")
        digits.page.keyboard.type(str(label))
        digits.page.focus("#seed")
        digits.page.keyboard.press("ControlOrMeta+a")
        digits.page.keyboard.type("5")
        found[label] = digits.run()
        labels = torch.tensor([label])
        x0 = digits.pipeline.draw_source(1, seed=5)
        assert_same(found[label], list(digits.pipeline.trajectory(x0, labels)))
        assert_same(found[label][-1:], [digits.pipeline.sample(1, labels, seed=5)])
    assert not np.array_equal(found[7][-1], found[2][-1])


def test_no_class_and_the_next_seed_can_be_asked_for(digits: Opened) -> None:
    digits.page.select_option("#label", label="no class")
    digits.page.fill("#seed", "8")
    digits.page.focus("#next")
    found = digits.run()
    assert digits.page.input_value("#seed") == "9"
    assert_same(found[-1:], [digits.pipeline.sample(1, None, seed=9)])


# --- what both show -------------------------------------------------------------------------------------


def test_the_slider_goes_from_source_to_target(digits: Opened) -> None:
    states = [state.astype(int) for state in digits.states()]
    page, times = digits.page, digits.pipeline.grid().tolist()
    page.focus("#time")
    page.keyboard.press("Home")
    assert np.array_equal(digits.pixels("#view"), states[0])
    expect(page.locator("#caption")).to_have_text("t = 0: the source, noise, drawn with the seed.")
    page.keyboard.press("End")
    assert np.array_equal(digits.pixels("#view"), states[-1])
    expect(page.locator("#caption")).to_have_text("t = 1: the target, the result.")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#caption")).to_contain_text("t = 0.8: on the straight line between states 1 and 2")
    share = (0.8 - times[1]) / (1 - times[1])
    between = states[1] + share * (states[2] - states[1])
    assert np.abs(digits.pixels("#view") - between).max() <= 1
    page.locator("#states button").nth(1).focus()
    page.keyboard.press("Enter")
    assert np.array_equal(digits.pixels("#view"), states[1])
    assert page.get_attribute("#states li:nth-child(2) button", "aria-current") == "step"


def test_the_page_says_what_it_is(pictures: Opened, digits: Opened) -> None:
    for one in (pictures, digits):
        config = one.pipeline.config
        for said in (config.name, config.summary, one.pipeline.sampling, "At t = 0 you see the source"):
            expect(one.page.locator("body")).to_contain_text(said)
        expect(one.page.locator("dl")).to_contain_text(re.compile("SHA-256 [0-9a-f]{64}"))
        one.page.click("#licenses summary")
        expect(one.page.locator("#notices-shown")).to_contain_text("THIRD PARTY SOFTWARE NOTICES")
        one.page.click("#licenses summary")


def test_every_control_is_reached_by_the_tab_key_in_the_order_of_the_page(pictures: Opened, digits: Opened) -> None:
    for one in (pictures, digits):
        script = """() => [...document.querySelectorAll('input, select, button, canvas[tabindex], a, summary')]
          .filter(e => e.checkVisibility() && !e.disabled).map(e => e.id || e.textContent || e.firstChild.alt)"""
        controls = one.page.evaluate(script)
        one.page.focus(f"#{controls[0]}")
        reached = controls[:1]
        for _ in controls[1:]:
            one.page.keyboard.press("Tab")
            script = "() => { const e = document.activeElement; return e.id || e.textContent || e.firstChild.alt }"
            reached.append(one.page.evaluate(script))
        assert reached == controls and len(set(controls)) == len(controls) > 8


def test_nothing_is_wider_than_a_phone(pictures: Opened, digits: Opened) -> None:
    for one in (pictures, digits):
        one.page.set_viewport_size({"width": 360, "height": 640})
        width = one.page.evaluate("document.documentElement.scrollWidth")
        one.page.set_viewport_size({"width": 1280, "height": 800})
        assert width <= 360
