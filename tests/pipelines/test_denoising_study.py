"""The report kind `denoising-study`: pipelines/denoising_study.py and what it is about, pipelines/study_subject.py."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from flowferry import Pipeline
from flowferry.configs import cli
from flowferry.configs.components import ImageFolderConfig, MnistConfig
from flowferry.configs.options import ReportOptions
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.pipelines import denoising_study, editing_study
from flowferry.pipelines.report import run
from flowferry.pipelines.storage import texts
from flowferry.pipelines.study_subject import Subject
from flowferry.pipelines.visualization import restoration
from flowferry.pipelines.visualization.restoration import Errors
from tiny_diffusers import PROMPTS, embeddings, stage_1, stage_2

PICTURES = set("forward blur one-step chain ways errors samples sdedit inpainting anagrams".split())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the steps, fewer levels and fewer edits."""
    monkeypatch.setattr(restoration, "PUBLISHED_STRIDE", 90)
    monkeypatch.setattr(denoising_study, "MEASURED", (0.3, 0.6))
    monkeypatch.setattr(editing_study, "ENTRIES", (1, 10))
    monkeypatch.setattr(editing_study, "RESAMPLE", 2)


def saved(config: Config, tmp_path: Path) -> Path:
    Pipeline(config).save_pretrained(tmp_path / "run" / "model")
    return tmp_path / "run"


def written(folder: Path, **options: Any) -> tuple[str, Path]:
    """Write a study of few images, check that it shows every picture that it wrote, and return its text and folder."""
    options = {"images": 2, **options}
    assert run(ReportOptions(pipeline=str(folder), kind="denoising-study", **options)) == 0
    out = options.get("output", folder / "denoising-study")
    text = (out / "index.md").read_text()
    assert sorted(re.findall(r"\]\((.+?)\)", text)) == sorted(path.name for path in out.glob("*.png"))
    return text, out


def subject(config: Config, tmp_path: Path, **options: Any) -> Subject:
    return Subject.load(saved(config, tmp_path), ReportOptions(pipeline="", kind="denoising-study", **options))


def without_command(text: str) -> str:
    return re.sub(r"^python launch.py .*", "", text, flags=re.MULTILINE)


def pictures(out: Path) -> set[str]:
    return {path.stem for path in out.glob("*.png")}


def test_a_study_of_a_pipeline_with_classes_has_every_row_and_is_the_same_each_time(
    short: None, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    folder = saved(tiny("noise2mnist-cfg"), tmp_path)
    text, out = written(folder)
    assert pictures(out) == PICTURES | {"hybrids", "class-change"}
    assert [int(n) for n in re.findall(r"^## (\d+)\.", text, re.M)] == [*range(1, 12)]
    assert "**This network does not denoise.**" in text  # since it was never trained
    assert "The largest change of a known pixel on this sheet is 0." in text
    again, other = written(folder, output=tmp_path / "again")
    assert without_command(again) == without_command(text)
    for path in out.glob("*.png"):
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_a_study_counts_the_levels_of_its_path_and_leaves_out_what_needs_classes(
    short: None, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    text, out = written(saved(tiny("ddpm-mnist"), tmp_path), images=1)
    assert pictures(out) == PICTURES
    assert re.findall(r"^\| s = (\d+) \| ([\d.]+) \|", text, re.M) == [("75", "0.75"), ("150", "0.5"), ("225", "0.25")]
    assert "√ᾱ_s·x" in text and "ancestral, 12 steps of stride 27" in text
    assert text.count("Not shown: ") == 2


def test_an_image_and_a_drawing_of_ones_own_are_shown_at_the_size_of_the_pipeline(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    for name, color in (("image", "red"), ("drawing", "blue")):
        Image.new("RGB", (50, 40), color).save(tmp_path / f"{name}.png")
    given = {name: tmp_path / f"{name}.png" for name in ("image", "drawing")}
    found = subject(tiny("noise2cifar"), tmp_path, **given, images=3)
    assert found.image.shape == found.drawing.shape == (1, 3, 32, 32)
    assert found.image[0, :, 16, 16].tolist() == [1, -1, -1] and found.drawing[0, :, 16, 16].tolist() == [-1, -1, 1]
    assert found.label is None and len(found.test) == 3


@pytest.mark.parametrize("root", ["", "nowhere"])
def test_without_data_an_image_is_enough(root: str, tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("noise2cifar", target=ImageFolderConfig(root=root))
    with pytest.raises(UserError, match=r"^--image: got none, and there are no test images to show: "):
        subject(config, tmp_path)
    Image.new("RGB", (32, 32), "red").save(tmp_path / "image.png")
    found = subject(config, tmp_path, image=tmp_path / "image.png")
    assert torch.equal(found.test, found.image) and found.classifier is None and found.drawing is not None


def test_a_test_image_is_shown_with_its_class_and_asked_for_another(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    found = subject(tiny("noise2mnist-cfg"), tmp_path, images=20)
    assert torch.equal(found.image, found.test[:1]) and found.label == found.test_labels[0]
    assert (found.classes, found.pair) == ((6, 9), (6, 9))
    asked = subject(tiny("noise2mnist-cfg"), tmp_path, images=20, labels=(str(found.label), "5"))
    assert asked.changed == 5 != found.label and asked.pair == (found.label, 5)
    others, labels = asked.others(5, 7)
    assert len(others) == len(labels) == 7 and 5 not in labels
    for image, label in zip(others, labels, strict=True):
        index = next(k for k, one in enumerate(asked.test) if torch.equal(one, image))
        assert asked.test_labels[index] == label


def test_the_classifier_that_is_shipped_judges(tiny: Callable[..., Config], tmp_path: Path, data_root: Path) -> None:
    config = tiny("noise2mnist-cfg", target=MnistConfig())
    found = subject(config, tmp_path, images=50, data_root=data_root)
    digits = [found.reads_as(found.test, digit) for digit in range(10)]
    assert (torch.stack(digits).int().argmax(dim=0) == found.test_labels).sum() >= 48


def test_a_pretrained_pipeline_is_asked_for_texts_and_one_that_enlarges_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "image.png")
    texts.save(tmp_path / "texts.safetensors", embeddings())
    options = ReportOptions(
        pipeline="",
        kind="denoising-study",
        image=tmp_path / "image.png",
        prompt=PROMPTS,
        embeddings=tmp_path / "texts.safetensors",
    )
    found = Subject.load(stage_1(tmp_path / "1"), options)
    assert (found.pair, found.changed) == ((0, 1), 0)
    assert [found.named(label) for label in found.classes] == [*PROMPTS]
    with pytest.raises(UserError, match=r"^--kind denoising-study: got 2, expected one from Gaussian noise to images"):
        Subject.load(stage_2(tmp_path / "2"), options)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("fashion2mnist", {}, "^--kind denoising-study: got fashion2mnist, expected one from Gaussian noise to images"),
        ("denoise-noise", {}, "^--kind denoising-study: got denoise-noise"),
        ("moons", {}, "^--kind denoising-study: got moons"),
        ("noise2mnist-cfg-fast", {}, "^--kind denoising-study: got noise2mnist-cfg-fast"),
        ("noise2mnist", {"blur": 9.5}, "^--blur: got 9.5 pixels, expected less than a third of an image's side$"),
        ("noise2mnist", {"guidance": 3}, "^--guidance: got 3 for noise2mnist, which has no classes$"),
        ("noise2mnist", {"labels": ("3",)}, "^--labels: got '3', expected none, because noise2mnist has no classes"),
        ("noise2mnist-cfg", {"labels": ("11",)}, "^--labels: got '11', expected numbers from 0 to 9"),
        ("noise2mnist", {"image": Path("none.png")}, "^none.png: "),
    ],
)
def test_what_a_study_cannot_be_about_is_refused(
    name: str, options: dict[str, Any], match: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=match):
        subject(tiny(name), tmp_path, **options)


def test_the_command_in_a_report_is_understood_and_asks_for_the_same() -> None:
    asked = ReportOptions(
        pipeline="noise2mnist-cfg", kind="denoising-study", image=Path("a b.png"), guidance=3, blur=1.5
    )
    words = shlex.split(denoising_study.command(asked))
    assert words[:3] == ["python", "launch.py", "report"]
    assert cli.parse(ReportOptions, words[3:], verb="report") == asked


def test_a_network_that_denoises_is_told_from_one_that_does_not() -> None:
    trained, random = [Errors(0.05, 0.1, 0.3, 0.08, e, e) for e in (0.01, 0.09)]
    assert denoising_study.verdict([trained, random]) == denoising_study.verdict([trained]) == ""
    assert denoising_study.verdict([random, random]).startswith("**This network does not denoise.**")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("3", "8")}, "--labels: got 3 8, which is for --kind denoising-study, expected none"),
        ({"blur": 3.0}, "--blur: got 3.0, which is for --kind denoising-study, expected none"),
        ({"kind": "denoising-study", "per_label": 5}, "--per-label: got 5, which is for --kind run, expected none"),
        ({"kind": "denoising-study", "embeddings": Path("a")}, "--embeddings: got a without --prompt, expected one"),
    ],
)
def test_options_that_a_report_would_not_read_are_refused(
    options: dict[str, Any], message: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    folder = saved(tiny("noise2mnist"), tmp_path)
    with pytest.raises(UserError, match=re.escape(message)):
        run(ReportOptions(pipeline=str(folder), **options))
