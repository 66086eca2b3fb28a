"""Data sets that torchvision downloads, whole, damaged and missing: datasets/downloads.py."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from flowferry import launch
from flowferry.configs.components import Cifar10Config, FashionMnistConfig, MnistConfig, SamplerConfig, SvhnConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.downloads import Download, downloaded
from sample_data import COLOR, CPU, IMAGE, build

# --- read as they were written ------------------------------------------------------------------------------


def color_pixels(first: int, count: int) -> np.ndarray:
    """uint8 [count, 3, 32, 32]: red is 7 × the row, green 7 × the column, blue the image's number."""
    row, column = np.mgrid[:32, :32]
    images = [np.stack([7 * row, 7 * column, np.full_like(row, first + i)]) for i in range(count)]
    return np.stack(images).astype(np.uint8)


def write_cifar10(root: Path) -> None:
    """Two images in each of the published files: five to train on, numbers 0 to 9, and one to test on, 10 and 11."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate([*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]):
        entry = {"data": color_pixels(2 * i, 2).reshape(2, 3072), "labels": [(2 * i) % 10, (2 * i + 1) % 10]}
        (folder / name).write_bytes(pickle.dumps(entry))


class StandInSVHN:
    """What torchvision's class holds: the published X [32, 32, 3, N] seen as [N, 3, 32, 32], and numpy labels."""

    def __init__(self, root: Path, split: str, download: bool) -> None:
        assert download
        first, count = {"train": (0, 10), "test": (10, 2)}[split]
        published = np.asfortranarray(color_pixels(first, count).transpose(2, 3, 1, 0))
        self.data = published.transpose(3, 2, 0, 1)
        self.labels = np.arange(first, first + count, dtype=np.int64) % 10


@pytest.mark.parametrize("config", [Cifar10Config(), SvhnConfig()], ids=lambda config: config.kind)
@pytest.mark.parametrize("split, first, count", [("train", 0, 10), ("test", 10, 2)])
def test_the_color_data_sets_are_read_as_they_were_written(
    config: SamplerConfig, split: str, first: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path)
    for replaced in ("download", "_check_integrity", "_load_meta"):  # torchvision's own reading stays
        monkeypatch.setattr(torchvision.datasets.CIFAR10, replaced, lambda self: True)
    monkeypatch.setattr(torchvision.datasets, "SVHN", StandInSVHN)
    sampler = build(config, tmp_path, COLOR, split)
    assert (sampler.images.dtype, sampler.size, sampler.num_classes) == (torch.uint8, count, 10)
    assert torch.equal(sampler.images, torch.from_numpy(color_pixels(first, count)))
    assert sampler.images.is_contiguous()
    batch = sampler.draw(count, seed=0, step=0)
    number = ((batch.samples[:, 2, 0, 0] + 1) * 127.5).round().long()
    assert sorted(number.tolist()) == list(range(first, first + count))
    assert torch.equal(batch.labels, number % 10)
    assert batch.labels.dtype == torch.int64


@pytest.mark.parametrize("config, first", [(MnistConfig(), 5), (FashionMnistConfig(), 9)])
def test_the_real_data_is_whole(config: SamplerConfig, first: int, data_root: Path) -> None:
    train, test = (build(config, data_root, split=split) for split in ("train", "test"))
    assert (train.images.shape, train.images.dtype) == ((60_000, 1, 28, 28), torch.uint8)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert train.labels[0] == first
    assert not torch.equal(train.images[:10_000], test.images)
    for sampler in (train, test):
        share = sampler.labels.bincount(minlength=10) / len(sampler.labels)
        assert ((share > 0.08) & (share < 0.12)).all()


# --- missing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config, shape, name, where",
    [
        (MnistConfig(), IMAGE, "MNIST", "MNIST/raw"),
        (FashionMnistConfig(), IMAGE, "FashionMNIST", "FashionMNIST/raw"),
        (Cifar10Config(), COLOR, "CIFAR10", "cifar-10-batches-py"),
        (SvhnConfig(), COLOR, "SVHN", "train_32x32.mat and test_32x32.mat"),
    ],
)
@pytest.mark.parametrize("error", [RuntimeError("broken"), URLError("no network"), PermissionError("read-only")])
def test_missing_data_is_told_with_what_to_do(
    config: SamplerConfig,
    shape: tuple[int, ...],
    name: str,
    where: str,
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(self: object) -> None:
        raise error

    monkeypatch.setattr(getattr(torchvision.datasets, name), "download", download)
    with pytest.raises(UserError, match=f"^no {name} in ") as told:
        build(config, tmp_path, shape)
    for part in (str(tmp_path), where, "--data-root", "--quick", str(error)):
        assert part in str(told.value)
    assert "\n" not in str(told.value)


# --- damaged: one line says what is wrong, before anything is written, and the exit code is 2 ---------------


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


def error_of(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Return the one line in which a command tells the user's error."""
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
    line = error_of(capsys, *train(root))
    assert name.lower() in line.replace("-", "").lower() and (str(root) in line or "shape (1, 32, 32)" in line), line
    assert not (root / "run").exists()


def test_data_that_is_not_there_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "MNIST" / "raw" / LABELS).unlink()
    line = error_of(capsys, *train(root))
    assert "no MNIST" in line and "--data-root" in line and "--quick" in line


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0"])
def test_a_number_out_of_range_is_refused_before_data_is_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    line = error_of(capsys, *train(tmp_path / "nowhere", f"--train.lr={value}"))
    assert line == f"error: lr: got {float(value)}, expected a number > 0"
    if value != "0":
        line = error_of(capsys, *train(tmp_path / "nowhere", f"--solver.guidance={value}"))
        assert line == f"error: guidance: got {float(value)}, expected a number ≥ 0"


def test_data_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    def load(root: Path, train: bool) -> None:
        raise PermissionError(13, "Permission denied", str(root / "MNIST"))

    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^MNIST in .* cannot be read: .*Permission denied: '[^\n]*MNIST'$"):
        downloaded(Download("MNIST", "MNIST/raw", 10, load), data_root=tmp_path, train=True, device=CPU)
