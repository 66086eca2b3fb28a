"""The example translates a folder where there is no torch, as the verb does where there is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowferry import Pipeline, launch
from translations import contents, translate, write_images

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "translate_with_onnx.py"
WITHOUT_TORCH = """
import runpy, sys
sys.modules["torch"] = sys.modules["flowferry"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(shaken: Callable[..., Pipeline], tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Path]:
    """exported(noise): a folder with the weights of a translator in one step, and in onnx/ what was made of them."""

    def make(noise: float) -> Path:
        folder = tmp_path_factory.mktemp("weights")
        shaken("fashion2mnist-fast", source_noise=noise).save_pretrained(folder)
        argv = ["export", "--pipeline", folder, "--format", "onnx", "--output", folder / "onnx"]
        assert launch.main([*map(str, argv)]) == 0
        return folder

    return make


def by_example(folder: Path, source: Path, output: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, EXAMPLE, folder / "onnx" / "translation.onnx", source, output]
    subprocess.run([*map(str, command)], check=True)


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {str(file.relative_to(folder)): np.asarray(Image.open(file)).astype(int) for file in folder.rglob("*.png")}


def test_its_results_are_those_of_translate_to_rounding(exported: Callable[[float], Path], tmp_path: Path) -> None:
    folder, source = exported(0.0), write_images(tmp_path / "in", 40)
    Image.new("RGB", (60, 40), "gray").save(source / "wide.jpg")
    by_example(folder, source, tmp_path / "theirs")
    assert translate(folder, source, tmp_path / "ours", "--format", "png") == 0
    theirs, ours = pixels(tmp_path / "theirs"), pixels(tmp_path / "ours")
    assert theirs.keys() == ours.keys() and len(ours) == 41
    assert max(abs(theirs[name] - ours[name]).max() for name in ours) <= 1
    assert np.mean([np.mean(theirs[name] != ours[name]) for name in ours]) < 1e-3
    assert min(np.ptp(image) for image in ours.values()) > 50


def test_the_noise_of_an_image_is_its_own_whatever_lies_beside_it(
    exported: Callable[[float], Path], tmp_path: Path
) -> None:
    folder, source = exported(0.5), write_images(tmp_path / "in", 9)
    by_example(folder, source, tmp_path / "all")
    by_example(folder, source / "1", tmp_path / "some")
    together, alone = contents(tmp_path / "all"), contents(tmp_path / "some")
    assert len(together) == 9 and len(alone) == 3
    assert all(together[f"1/{name}"] == data for name, data in alone.items())
    Image.open(source / "1" / "1.png").save(source / "1" / "copy.png")
    by_example(folder, source / "1", tmp_path / "again")
    assert contents(tmp_path / "again")["copy.png"] == alone["1.png"]
