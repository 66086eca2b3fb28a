"""The verbs on pretrained pipelines with texts: `embed`, and `sample` with its options for texts."""

from pathlib import Path

import pytest
from PIL import Image

from flowferry import launch
from flowferry.pipelines.storage import texts
from tiny_diffusers import PROMPTS, encoder, stage_1, stage_2, unconditional


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    encoder(stage_1(folder / "first"))
    stage_2(folder / "second")
    unconditional(folder / "ddpm", levels=4)
    return folder


def command(*argv: object) -> int:
    return launch.main(list(map(str, argv)))


def pixels(path: Path) -> tuple[int, bytes]:
    with Image.open(path) as image:
        return image.width, image.tobytes()


def test_texts_are_embedded_once_and_sampled_and_enlarged(made: Path, tmp_path: Path) -> None:
    file, few = tmp_path / "texts.safetensors", ("--stride", 250, "--count", 2)
    assert command("embed", "--pipeline", made / "first", "--prompts", *PROMPTS, "--output", file) == 0
    asked = ("sample", "--pipeline", made / "first", *few, "--prompt", *PROMPTS)
    assert command(*asked, "--output", tmp_path / "a", "--embeddings", file) == 0
    assert command(*asked, "--output", tmp_path / "b") == 0  # by the encoder beside it
    names = ["00000-0.png", "00001-1.png", "sheet.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert all(pixels(tmp_path / "a" / name) == pixels(tmp_path / "b" / name) for name in names)
    larger = ("--enlarge", made / "second", "--embeddings", file, "--output", tmp_path / "c")
    assert command(*asked, *larger) == 0
    assert pixels(tmp_path / "a" / names[0])[0] == 32 and pixels(tmp_path / "c" / names[0])[0] == 64


def test_an_edit_asks_for_texts_in_their_order(made: Path, tmp_path: Path) -> None:
    file, image = tmp_path / "texts.safetensors", tmp_path / "in" / "a.png"
    assert command("embed", "--pipeline", made / "first", "--prompts", *PROMPTS, "--output", file) == 0
    image.parent.mkdir()
    Image.new("RGB", (32, 32), "orange").save(image)
    pipeline = ("--pipeline", made / "first", "--embeddings", file, "--stride", 250)

    def edited(edit: str, name: str, *options: object) -> tuple[int, bytes]:
        given = (*pipeline, "--input", image.parent, "--output", tmp_path / name)
        assert command("edit", edit, *given, *options) == 0
        return pixels(tmp_path / name / "a.png")

    one, other = (
        edited("sdedit", name, "--start", 0.5, "--prompt", text) for name, text in zip("ab", PROMPTS, strict=True)
    )
    assert one != other
    assert other == edited("sdedit", "a", "--start", 0.5, "--prompt", PROMPTS[1])  # the manifest knows the text
    texts.save(file, {text: -embedding for text, embedding in texts.read(file).items()})
    assert other != edited("sdedit", "a", "--start", 0.5, "--prompt", PROMPTS[1])  # and what stands for it
    anagram = ("--count", 1, "--prompt", *PROMPTS, "--output", tmp_path / "c")
    assert command("edit", "anagram", *pipeline, *anagram) == 0
    assert pixels(tmp_path / "c" / "00000.png")[0] == 32


def test_a_pipeline_without_texts_is_sampled_as_any_other(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("sample", "--pipeline", made / "ddpm", "--count", 3) == 0
    assert len(list((tmp_path / "runs" / "ddpm" / "sampled").glob("0*.png"))) == 3


@pytest.mark.parametrize(
    "verb, pipeline, options, message",
    [
        ("sample", "first", "", "got no text for a UNet that takes texts, expected --prompt"),
        ("sample", "second", "--prompt a", "second has no text_encoder: expected a file of embeddings"),
        ("sample", "ddpm", "--prompt a", "ddpm takes no texts: got ['a'], expected none"),
        ("sample", "ddpm", "--enlarge {made}/ddpm", "expected one that enlarges"),
        ("sample", "ddpm", "--embeddings x", "--embeddings: got x without --prompt, expected one"),
        ("sample", "ddpm", "--labels 3", "--labels: got '3', expected none, because ddpm has no classes"),
        ("sample", "ddpm", "--stride 2 --steps 3", "solver steps: got 3 of stride 2, expected 2"),
        ("embed", "ddpm", "--prompts a --output {out}/x", "ddpm has no text_encoder"),
        ("embed", "first", "--prompts a --output {made}/ddpm/model_index.json/x", "--output"),
        (
            "edit sdedit",
            "first",
            "--prompt a b --input {made} --output {out}/x",
            "--prompt: got 2 classes, expected 0 or 1",
        ),
        ("evaluate", "ddpm", "", "got a pretrained pipeline, whose data are not known, expected one trained here"),
        ("export", "ddpm", "--output {out}/x", "no weights in"),
        ("translate", "ddpm", "--input {made} --output {out}/x", "which starts from noise, expected images"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    verb: str,
    pipeline: str,
    options: str,
    message: str,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = [part.format(made=made, out=tmp_path) for part in options.split()]
    assert command(*verb.split(), "--pipeline", made / pipeline, *argv) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0], error
