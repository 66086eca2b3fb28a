"""The folder of a Hugging Face Space holds all that it needs; tests/pipelines/test_serve.py starts one."""

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from flowferry import Pipeline, launch
from flowferry.configs.schema import Config


@pytest.fixture(scope="module")
def space(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Space of a tiny noise2mnist-cfg, untrained."""
    folder = tmp_path_factory.mktemp("space")
    Pipeline(tiny("noise2mnist-cfg")).save_pretrained(folder / "weights")
    argv = ["export", "--pipeline", folder / "weights", "--format", "space", "--output", folder / "space"]
    assert launch.main([str(word) for word in argv]) == 0
    return folder / "space"


def test_it_says_what_a_space_needs_to_be_told(space: Path) -> None:
    header = (space / "README.md").read_text().split("---\n")[1]
    facts = dict(re.fullmatch(r'(\w+): "(.*)"', line).groups() for line in header.splitlines())  # type: ignore
    assert facts["sdk"] == "gradio" and facts["sdk_version"] == version("gradio")
    assert (space / facts["app_file"]).is_file() and facts["license"] == "apache-2.0"
    assert "Apache License" in (space / "LICENSE").read_text()


def test_it_requires_what_the_package_does_and_not_the_package(space: Path) -> None:
    lines = (space / "requirements.txt").read_text().splitlines()
    names = {re.split(r"[<>=]", line)[0] for line in lines}
    assert {"torch", "torchvision", "safetensors", "tyro", "gradio"} <= names
    assert not names & {"flowferry", "pytest", "playwright", "mypy", "onnxruntime"}
    assert f"gradio=={version('gradio')}" in lines


def test_it_holds_the_code_and_one_pipeline_alone(space: Path) -> None:
    files = {path.relative_to(space) for path in space.rglob("*") if path.is_file()}
    assert Path("flowferry/pipelines/serving/page.css") in files and Path("flowferry/__init__.py") in files
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert weights == [Path("model/model.safetensors")]
    assert not [path for path in files if "__pycache__" in path.parts or "tests" in path.parts]


@pytest.mark.parametrize(("missing", "told"), [("gradio", "pip install 'flowferry"), ("flowferry", "pip install -e .")])
def test_what_is_not_installed_is_told(
    missing: str, told: str, space: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from importlib.metadata import PackageNotFoundError, distribution

    def found(name: str) -> object:
        if name == missing:
            raise PackageNotFoundError(name)
        return distribution(name)

    monkeypatch.setattr("flowferry.pipelines.publishing.space.distribution", found)
    monkeypatch.setattr("flowferry.pipelines.publishing.space.version", lambda name: found(name) and version(name))
    argv = ["export", "--pipeline", str(space / "model"), "--format", "space", "--output", str(space / "other")]
    assert launch.main(argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        line.startswith(f"error: --format space: got {'no ' if missing == 'gradio' else ''}{missing}") and told in line
    )
    assert not (space / "other").exists()


def test_points_in_the_plane_are_refused(
    tiny: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Pipeline(tiny("moons")).save_pretrained(tmp_path / "moons")
    argv = ["export", "--pipeline", str(tmp_path / "moons"), "--format", "space", "--output", str(tmp_path / "space")]
    assert launch.main(argv) == 2
    told = "error: --format space: got moons, which carries points in the plane, expected images"
    assert capsys.readouterr().err.splitlines()[-1] == told
