"""Classes by name from a folder to the model card: what a run prints, keeps, goes on with and is asked for."""

import json
from pathlib import Path

import pytest
from PIL import Image

from flowferry import launch

TRAIN = "--pipeline folders --source gaussian --target.root images --num-classes 3 --shape 3 28 28 --output-dir run"
SMALL = "--model course-unet --model.width 4 --solver.num-steps 1 --train.show-epochs 0"
ARGV = [*TRAIN.split(), *SMALL.split(), "--train.batch-size", "4", "--train.threads", "1", "--train.max-steps"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with images of three classes in it whose names are numbers."""
    monkeypatch.chdir(tmp_path)
    for name in ("1", "2", "10"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (8, 8), (0, 20 * int(name), index)).save(tmp_path / "images" / name / f"{index}.png")
    (tmp_path / "images" / "notes.txt").write_text("")
    return tmp_path


def kept() -> list[list[str]]:
    """Return the names that the run and its weights keep."""
    files = (Path("run/config.json"), Path("run/model/config.json"))
    return [json.loads(file.read_text())["config"]["target"]["classes"] for file in files]


def forget(file: Path) -> None:
    """Take the names out of a config.json, as version 0.2 wrote it."""
    described = json.loads(file.read_text())
    del described["config"]["target"]["classes"], described["config"]["target"]["follow_links"]
    file.write_text(json.dumps(described))


def test_classes_are_told_kept_and_asked_for_by_name(
    here: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main([*ARGV, "1"]) == 0
    assert caplog.messages.count("label → folder of the target: 0 1, 1 2, 2 10") == 1
    assert caplog.messages.count("target images: passed over: 1 .txt") == 1
    assert kept() == [["1", "2", "10"]] * 2
    assert launch.main([*ARGV, "2"]) == 0, "the same command goes on"
    assert "resuming from" in caplog.text
    assert launch.main([*ARGV, "3", "--target.classes", "1", "10", "2"]) == 2
    assert "target.classes (got ('1', '10', '2'), started with ('1', '2', '10'))" in capsys.readouterr().err
    assert launch.main("sample --pipeline run --labels 10,2 --per-label 1 --output drawn".split()) == 0
    assert {file.name for file in Path("drawn").iterdir()} == {"00000-2.png", "00001-1.png", "sheet.png"}
    assert launch.main("sample --pipeline run --labels 3 --output drawn".split()) == 2
    assert "the names 1, 2, 10" in capsys.readouterr().err
    translate = "translate --pipeline run --reverse --input images/1 --output back --labels".split()
    assert launch.main([*translate, "10"]) == 0
    assert json.loads(Path("back/manifest.jsonl").read_text().splitlines()[0])["labels"] == 2
    assert launch.main([*translate, "1,10"]) == 2
    assert "--labels: got '1,10', expected one class" in capsys.readouterr().err
    assert launch.main("export --pipeline run --output shared".split()) == 0
    card = Path("shared/README.md").read_text()
    assert "| classes | 0 1, 1 2, 2 10 |" in card and "labels=torch.arange(16) % 3" in card


def test_a_run_from_before_there_were_names_keeps_its_labels(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    alphabetical = ["1", "10", "2"]
    assert launch.main([*ARGV, "1", "--target.classes", *alphabetical]) == 0
    for file in (Path("run/config.json"), Path("run/model/config.json")):
        forget(file)
    caplog.clear()
    assert launch.main([*ARGV, "2"]) == 0
    assert "resuming from" in caplog.text
    assert "label → folder of the target: 0 1, 1 10, 2 2" in caplog.messages
    assert kept() == [alphabetical] * 2


def test_inspect_tells_the_classes(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert launch.main([*ARGV, "1", "--inspect"]) == 0
    assert "label → folder of the target: 0 1, 1 2, 2 10" in caplog.messages
