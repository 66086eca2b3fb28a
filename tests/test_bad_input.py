"""What is wrong with what was given: one line says what, before anything is written; the exit code is 2."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import launch
from configs.checks import UserError
from datasets.samplers import Place, published

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    """The format of yann.lecun.com/exdb/mnist: two zero bytes, a type (8: uint8), the number of sizes, the sizes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with forty images of each kind in both splits."""
    for name in ("MNIST", "FashionMNIST"):
        raw = tmp_path / name / "raw"
        raw.mkdir(parents=True)
        for split in ("train", "t10k"):
            (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(np.zeros((40, 28, 28), np.uint8)))
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx((np.arange(40) % 10).astype(np.uint8)))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that the command ends with, having failed as a user's error."""
    assert launch.main([str(word) for word in argv]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


def train(root: Path, *more: object) -> list[object]:
    options = ["--train.threads", 1, "--train.max-steps", 1, "--train.batch-size", 8, "--train.show-epochs", 0]
    where = ["--data-root", root, "--output-dir", root / "run"]
    return ["--pipeline", "fashion2mnist-published", "--model.width", 4, *options, *where, *more]


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def damage(raw: Path) -> None:
        (raw / name).write_bytes(change((raw / name).read_bytes()))

    return damage


DAMAGES = {
    "images truncated": changed(IMAGES, lambda data: data[:-100]),
    "images cut within the heading": changed(IMAGES, lambda data: data[:7]),
    "images empty": changed(IMAGES, lambda data: b""),
    "a web page instead of images": changed(IMAGES, lambda data: b"<!DOCTYPE html><title>404</title>" * 9),
    "another number of sizes": changed(IMAGES, lambda data: idx(np.zeros((40, 784), np.uint8))),
    "images of another size": changed(IMAGES, lambda data: idx(np.zeros((40, 32, 32), np.uint8))),
    "no images": changed(IMAGES, lambda data: idx(np.zeros((0, 28, 28), np.uint8))),
    "labels truncated": changed(LABELS, lambda data: data[:-3]),
    "fewer labels than images": changed(LABELS, lambda data: idx(np.zeros(39, np.uint8))),
    "labels beyond the classes": changed(LABELS, lambda data: idx(np.full(40, 10, np.uint8))),
    "a folder in a file's place": lambda raw: ((raw / IMAGES).unlink(), (raw / IMAGES).mkdir()),
}


def test_whole_files_train(root: Path) -> None:
    assert launch.main([str(word) for word in train(root)]) == 0


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_damaged_data_is_refused_by_name(
    root: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Callable[[Path], object]
) -> None:
    damage(root / name / "raw")
    line = told(capsys, *train(root))
    assert name.lower() in line.replace("-", "").lower() and (str(root) in line or "shape (1, 32, 32)" in line), line
    assert not (root / "run").exists()


def test_data_that_is_not_there_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "MNIST" / "raw" / LABELS).unlink()
    line = told(capsys, *train(root))
    assert "no MNIST" in line and "--data-root" in line and "--quick" in line


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0"])
def test_a_number_out_of_range_is_refused_before_data_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    line = told(capsys, *train(tmp_path / "nowhere", f"--train.lr={value}"))
    assert "lr" in line and "accepted" in line
    if value != "0":
        line = told(capsys, *train(tmp_path / "nowhere", f"--solver.guidance={value}"))
        assert "guidance" in line and "accepted" in line


def test_data_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    def load(root: Path, train: bool) -> None:
        raise PermissionError(13, "Permission denied", str(root / "MNIST"))

    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^MNIST in .* cannot be read: .*Permission denied: '[^\n]*MNIST'$"):
        published("MNIST", "MNIST/raw", load, Place((1, 28, 28), tmp_path, "train", torch.device("cpu")))
