"""The page as a file: one that holds all it needs, of pipelines that a page can show."""

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flowferry import Pipeline, launch
from flowferry.configs.components import ImageFolderConfig, NoisyConfig
from flowferry.configs.schema import Config
from flowferry.pipelines.publishing import for_page, web_runtime
from flowferry.pipelines.publishing.sample_pictures import sample_pictures

Tiny = Callable[..., Config]
RUNTIME = {web_runtime.SCRIPT: b"export default 1;", web_runtime.WASM: b"\0asm"}


class Elements(HTMLParser):
    """The elements of a page, with the texts of those that have an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.texts: dict[str, str] = {}
        self.last = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        given = dict(attrs)
        self.last = given.get("id") or ""
        self.addresses += [given[name] or "" for name in ("src", "href") if name in given]

    def handle_data(self, data: str) -> None:
        self.texts[self.last] = self.texts.get(self.last, "") + data


def test_the_page_is_one_file_that_refers_to_no_other_and_holds_any_text(tiny: Tiny) -> None:
    summary = 'a </script><script>alert(1)</script> <b>"bold"</b> {{script}} & more'
    pipeline = Pipeline(tiny("fashion2mnist", summary=summary))
    facts = for_page.facts_of(pipeline, "a digest")
    text = for_page.page(facts, b"network", RUNTIME, "licenses")
    found = Elements(text)
    assert found.names.count("script") == 6 and "b" not in found.names and "link" in found.names
    assert json.loads(found.texts["facts"]) == json.loads(json.dumps(facts))
    assert found.addresses == ["data:,"]
    assert "import " not in for_page.joined(("network", "main")).replace("await import(", "")
    assert text == for_page.page(facts, b"network", RUNTIME, "licenses")


def test_the_page_knows_the_classes_that_can_be_asked_for(tiny: Tiny) -> None:
    def names(config: Config) -> list[str]:
        return [label["name"] for label in for_page.labels_of(config)]

    assert names(tiny("fashion2mnist")) == []
    assert names(tiny("noise2mnist-cfg")) == [*"0123456789", "no class"]
    (first, *rest) = for_page.labels_of(tiny("fashion2mnist-labels"))
    assert first == {"name": "as inferred from the picture", "value": -1}
    assert rest == for_page.labels_of(tiny("noise2mnist-cfg"))
    config = replace(tiny("noise2mnist-cfg", num_classes=2), target=ImageFolderConfig(classes=("cat", "dog")))
    assert names(config) == ["cat", "dog", "no class"]


def test_the_page_says_what_its_guidance_leads_away_from(shaken: Callable[..., Pipeline]) -> None:
    def told(preset: str, w: float, **how: bool) -> str:
        return for_page.told_of(shaken(preset, guidance=w, **how), "noise")

    assert "(w = 2) makes more of how the network differs from itself" in told("noise2mnist", 2.0, weaker=True)
    assert "(w = 3) makes more of the difference that the label makes" in told("noise2mnist-cfg", 3.0)
    for unguided in (told("noise2mnist", 1.0, weaker=True), told("noise2mnist", 2.0), told("noise2mnist-cfg", 1.0)):
        assert "Guidance" not in unguided


def test_the_page_frames_pictures_as_the_pipeline_was_trained(tiny: Tiny) -> None:
    folder = ImageFolderConfig(resize="fill", background="#204080")
    for source, expected in (
        (folder, ("fill", (0x20, 0x40, 0x80))),
        (replace(folder, background="auto"), ("fill", None)),
        (tiny("fashion2mnist").source, ("fit", (0, 0, 0))),
    ):
        facts = for_page.facts_of(Pipeline(replace(tiny("fashion2mnist"), source=source)), "a digest")
        assert (facts["resize"], facts["background"]) == expected


def test_there_are_sample_pictures_for_every_source_but_noise(tiny: Tiny) -> None:
    config = tiny("fashion2mnist")
    folder = ImageFolderConfig(root="/nowhere")
    noisy = replace(config, source=NoisyConfig(sigma=0.5), coupling="given")
    for one in (config, noisy, *(replace(config, source=folder, shape=s) for s in ((1, 24, 40), (3, 40, 24)))):
        channels, height, width = one.shape
        pictures = sample_pictures(one)
        assert [picture.size for picture in pictures] == [(width, height)] * 10
        assert {picture.mode for picture in pictures} == {{1: "L", 3: "RGB"}[channels]}
        assert len({picture.tobytes() for picture in pictures}) == 10
    assert len(set(sample_pictures(noisy)[0].tobytes())) > 100, "it has noise"
    assert sample_pictures(tiny("noise2mnist-cfg")) == []


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("moons", {}, "got moons with samples of shape (2,), expected images of 1 or 3 channels"),
        ("fashion2mnist", {"shape": (5, 28, 28)}, "samples of shape (5, 28, 28), expected images of 1 or 3 channels"),
        ("ddpm-mnist", {}, "got ddpm-mnist, but the solver ancestral adds noise at each step"),
    ],
)
def test_what_a_page_cannot_show_is_refused_in_a_line(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, changes: dict[str, object], told: str
) -> None:
    Pipeline(tiny(name, **changes)).save_pretrained(tmp_path / "weights")
    argv = ["export", "--pipeline", tmp_path / "weights", "--format", "page", "--output", tmp_path / "page"]
    assert launch.main([str(word) for word in argv]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert told in line and not (tmp_path / "page").exists()


def test_a_runtime_is_taken_for_a_page_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["export", "--pipeline", "fashion2mnist", "--output", tmp_path / "out", "--runtime", tmp_path]
    assert launch.main([str(word) for word in argv]) == 2
    assert "--runtime: got --format flowferry, expected page" in capsys.readouterr().err
