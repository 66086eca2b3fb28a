"""The verb `serve` in a real browser: pictures in, results out, and nothing of the machine with them.

One server is started for all tests of this file, in a folder with a secret in it, and ended by Ctrl-C: that of a
Hugging Face Space, whose app.py runs the verb.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from browser import browser_page
from flowferry import launch
from flowferry.configs.locations import SHIPPED
from flowferry.datasets.image_io import load_image
from served import fetched, served
from translations import bomb, contents

PATIENCE = 60_000  # milliseconds that a result is waited for
WEIGHTS = SHIPPED / "noise2mnist-cfg-fast"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server is started in: with a secret, and with pictures."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "secret.txt").write_text("secret")
    ring = np.zeros((28, 28), np.uint8)
    ring[6:22, 8:20] = 255
    ring[10:18, 12:16] = 0
    Image.fromarray(ring).save(folder / "ring.png")
    (folder / "text.png").write_text("no picture")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "heavy.png").write_bytes(bytes(300_000))
    return folder


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Space, whose copy of the package says that it is one."""
    folder = tmp_path_factory.mktemp("space")
    assert launch.main(["export", "--pipeline", str(WEIGHTS), "--format", "space", "--output", str(folder)]) == 0
    code = folder / "flowferry" / "pipelines" / "serving" / "server.py"
    code.write_text(code.read_text().replace("Ctrl-C ends it", "a copy, which Ctrl-C ends"))
    return folder


@pytest.fixture(scope="module")
def address(here: Path, space: Path) -> Iterator[str]:
    """The address of a running server, which Ctrl-C ends with one line and without leaving files."""
    limits = ("--max-upload", 0.2, "--max-pixels", 1_000_000)
    with served(here, space / "app.py", *limits) as (address, told):
        yield address
    assert told == [f"{address} (a copy, which Ctrl-C ends)\n", "interrupted\n", "exit code 130"]
    assert sorted(contents(here)) == ["bomb.png", "heavy.png", "ring.png", "secret.txt", "text.png"]


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Page]:
    """A browser that is closed before the server ends, of which its page would complain."""
    expect.set_options(timeout=PATIENCE)
    with browser_page(height=1200) as page:
        page.set_default_timeout(PATIENCE)
        yield page


@pytest.fixture
def page(browser: Page, address: str) -> Page:
    """The page, as it is when it has just been opened."""
    browser.goto(address)
    return browser


# --- what a visitor does --------------------------------------------------------------------------------


def choose(page: Page, name: str, option: str) -> None:
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def upload(page: Page, picture: Path) -> None:
    page.locator("#picture input[type=file]").set_input_files(picture)


def run(page: Page) -> dict[str, bytes]:
    """Ask for results; return the files by name."""
    page.locator("#run").click()
    return files_of(page)


def files_of(page: Page) -> dict[str, bytes]:
    """Wait for results; return the files by name."""
    links = page.locator("#files a")
    expect(links.first).to_be_visible()
    return {str(link.get_attribute("download")): fetched(str(link.get_attribute("href"))) for link in links.all()}


def sampled(folder: Path, *options: object) -> dict[str, bytes]:
    argv = ["sample", "--pipeline", str(WEIGHTS), "--output", str(folder), *map(str, options)]
    assert launch.main(argv) == 0
    (folder / "sheet.png").unlink()
    return contents(folder)


def test_new_images_of_the_class_that_is_chosen(page: Page, address: str, tmp_path: Path) -> None:
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(address)
    expect(page.locator("#title")).to_contain_text("noise2mnist-cfg-fast")
    choose(page, "label", "7")
    files = run(page)
    expect(page.locator("#told")).to_contain_text("euler, 1 step, NFE 1")
    expect(page.locator("#gallery img")).to_have_count(8)
    assert files == sampled(tmp_path, "--labels", 7, "--count", 8)
    own = urlsplit(address).netloc
    assert {urlsplit(url).netloc for url in requested if not url.startswith(("data:", "blob:"))} == {own}


def test_what_is_painted_over_is_made_anew_and_nothing_else(page: Page, here: Path, tmp_path: Path) -> None:
    choose(page, "action", "Fill in (inpaint)")
    expect(page.locator("#about")).to_contain_text("what you paint over")  # then the other controls have changed, too
    upload(page, here / "ring.png")
    canvas = page.locator("#mask canvas").first
    expect(canvas).to_be_visible()
    box: Any = None
    while box != (box := canvas.bounding_box()):  # the page moves it while it settles
        page.wait_for_timeout(500)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 20, steps=4)
    page.mouse.up()
    choose(page, "label", "8")
    files = run(page)
    expect(page.locator("#slider")).to_be_visible()
    (tmp_path / "made.png").write_bytes(files["ring.png"])
    before, after = (load_image(path, (1, 28, 28))[0] for path in (here / "ring.png", tmp_path / "made.png"))
    changed = (before != after).nonzero()
    assert len(changed) and ((changed - 14).abs() <= 6).all()  # about the middle, where the stroke was


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("text.png", "Not a readable image (got 10 bytes of something else"),
        ("bomb.png", "Not a readable image (got 60000 × 60000 pixels, expected at most 1,000,000"),
        ("heavy.png", "exceed the maximum allowed size"),
    ],
)
def test_an_upload_that_cannot_be_taken_is_refused_in_words(page: Page, here: Path, picture: str, told: str) -> None:
    choose(page, "action", "Redraw (SDEdit)")
    expect(page.locator("#about")).to_contain_text("Adds noise")
    upload(page, here / picture)
    expect(page.locator(".toast-body").first).to_contain_text(told)


def test_two_visitors_at_once_are_given_each_their_own(page: Page, address: str, tmp_path: Path) -> None:
    assert page.context.browser is not None
    other = page.context.browser.new_page()
    other.goto(address)
    for one, label in ((page, "2"), (other, "5")):
        choose(one, "label", label)
    for one in (page, other):
        one.locator("#run").click()
    for one, label in ((page, "2"), (other, "5")):
        assert files_of(one) == sampled(tmp_path / label, "--labels", label, "--count", 8)
    other.close()


# --- what a stranger does -------------------------------------------------------------------------------


def status(address: str, data: object = None, **headers: str) -> int:
    body = None if data is None else json.dumps(data).encode()
    try:
        with urlopen(Request(address, body, {"content-type": "application/json", **headers})) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_no_file_of_the_machine_is_served(address: str, here: Path) -> None:
    assert b"noise2mnist-cfg-fast" in fetched(address)
    paths = ["/etc/passwd", "secret.txt", f"{here}/secret.txt", f"{WEIGHTS}/config.json", "/proc/self/environ"]
    assert [status(f"{address}/gradio_api/file={path}") for path in paths] == [403] * len(paths)
    assert status(f"{address}/gradio_api/file=/etc/passwd", host="evil.example") == 403


def test_no_path_of_the_machine_is_taken_for_a_picture(address: str, here: Path) -> None:
    events = json.loads(fetched(f"{address}/config"))["dependencies"]
    for path in ("/etc/passwd", f"{here}/ring.png", "secret.txt", "http://127.0.0.1:9/a.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for event in events:
            data = {"data": [file] * len(event["inputs"]), "fn_index": event["id"], "session_hash": "stranger"}
            assert not event["inputs"] or status(f"{address}/gradio_api/queue/join", data) == 403


def test_nothing_can_be_called_beside_the_queue(address: str) -> None:
    for path in ("run/run", "api/run", "call/run", "run/predict"):
        assert status(f"{address}/gradio_api/{path}", {"data": []}) == 404


# --- what is told before it starts ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--pipeline", "no-such"], "unknown pipeline: got 'no-such'"),
        (["--pipeline", "moons"], "no weights in runs/moons"),
        (["--pipeline", "fashion2mnist", "--size", "own", "--resize", "fit"], "--resize: got fit with --size own"),
        (["--pipeline", "fashion2mnist", "--background", "reddish"], "background: got 'reddish'"),
        (["--pipeline", "fashion2mnist", "--port", "70000"], "port: got 70000"),
        (["--pipeline", "fashion2mnist", "--host", "no.such.host.invalid"], "--host: got no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert launch.main(["serve", *argv]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert told in line


def test_gradio_that_is_missing_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowferry.pipelines.serve.find_spec", lambda name: None)
    assert launch.main(["serve", "--pipeline", "fashion2mnist"]) == 2
    told = "error: serve: got no gradio, expected it: pip install 'flowferry[serve]'\n"
    assert capsys.readouterr().err == told
