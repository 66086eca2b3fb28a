"""Image files that cannot be read are found before training, all at once, and stop it or are left out."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets import file_checks
from flowferry.datasets.bad_files import BadFiles
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_splits
from flowferry.datasets.image_folder import image_folder
from flowferry.datasets.streaming import ImageFiles
from picture_folders import half, no_header, noisy_png, pictures

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)


def of(a: Path, b: Path, on_bad_file: str = "stop", cache_mb: int = 2048, **changes: object) -> Config:
    source, target = (
        ImageFolderConfig(root=str(root), on_bad_file=on_bad_file, cache_mb=cache_mb, resize="stretch")  # type: ignore[arg-type]
        for root in (a, b)
    )
    return replace(PIPELINES["folders"], source=source, target=target, shape=SHAPE, **changes)  # type: ignore[arg-type]


def built(config: Config) -> list[tuple[Sampler, Sampler]]:
    return build_splits(config, data_root=Path(), splits=("train", "test"), device=CPU)


def samples(config: Config) -> list[Tensor]:
    """All samples of both splits and both sides."""
    return [side.draw(side.size or 0, seed=0, step=0).samples for pair in built(config) for side in pair]


@pytest.mark.parametrize("cache_mb", [2048, 0], ids=["cached", "streamed"])
def test_all_bad_files_of_both_sides_are_named_at_once(
    cache_mb: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In whichever split they are; a line for each, and one for all."""
    a, b = pictures(tmp_path / "a", 12), pictures(tmp_path / "b", 30)
    bad = [*sorted(a.iterdir())[::4], *sorted(b.iterdir())[:8]]
    for path in bad:
        no_header(path)
    with pytest.raises(BadFiles) as error, caplog.at_level(logging.WARNING):
        built(of(a, b, cache_mb=cache_mb))
    assert sorted(line.split(": ")[1] for line in caplog.messages) == sorted(map(str, bad))
    assert all(line.endswith(")") and "something else" in line for line in caplog.messages)
    told = str(error.value)
    assert f"{a}: 3 images cannot be read: " in told and f"{b}: 8 images cannot be read: " in told
    assert "\n" not in told and "--source.on-bad-file skip" in told


def test_a_cached_folder_names_what_is_damaged_behind_its_header_too(tmp_path: Path) -> None:
    a, b = pictures(tmp_path / "a", 12), pictures(tmp_path / "b", 12)
    for path in (a / "003.png", b / "007.png"):
        half(path)
    with pytest.raises(BadFiles, match=r"b: 1 image .*: 007\.png.*a: 1 image .*: 003\.png"):
        built(of(a, b))


def test_headers_are_read_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand files take seconds; a doubtful one alone is decoded."""
    a = pictures(tmp_path / "a", 12)
    files = ImageFiles(ImageFolderConfig(root=str(a)), [path.name for path in sorted(a.iterdir())], SHAPE)
    decoded: list[int] = []
    plain = ImageFiles.__getitem__
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, index: decoded.append(index) or plain(self, index))
    file_checks.check_headers(files)
    assert decoded == []
    no_header(a / "005.png")
    half(a / "007.png")
    with pytest.raises(BadFiles, match=r"a: 1 image cannot be read: 005\.png: "):
        file_checks.check_headers(files)
    assert decoded == [5]


def test_what_decoding_accepts_is_not_refused_for_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = pictures(tmp_path / "a", 12)

    def refused(*args: object, **options: object) -> None:
        raise SyntaxError("broken PNG file")

    files = ImageFiles(ImageFolderConfig(root=str(a)), [path.name for path in sorted(a.iterdir())], SHAPE)
    monkeypatch.setattr(file_checks.Image, "open", refused)
    monkeypatch.setattr(ImageFiles, "__getitem__", lambda self, index: torch.zeros(SHAPE))
    file_checks.check_headers(files)


def test_a_wrong_size_is_found_in_the_header_where_no_other_is_accepted(tmp_path: Path) -> None:
    a = pictures(tmp_path / "a", 12)
    noisy_png(a / "004.png", 4, size=(24, 25))
    config = ImageFolderConfig(root=str(a), resize="none", cache_mb=0)
    with pytest.raises(BadFiles, match=r"1 image cannot be read: 004\.png: resize none: got 24 × 25 pixels"):
        for split in ("train", "test"):
            image_folder(config, (3, 24, 24), split, CPU)


@pytest.mark.parametrize("cache_mb", [2048, 0], ids=["cached", "streamed"])
@pytest.mark.parametrize("coupling", ["independent", "given"])
def test_skipping_trains_on_what_there_would_be_without_the_bad_files(
    cache_mb: int, coupling: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those with and those without a good header, each pair as a whole; and what is left out is counted."""
    a, b = pictures(tmp_path / "a", 30), pictures(tmp_path / "b", 30)
    half(a / "003.png"), no_header(a / "011.png"), half(b / "011.png"), half(b / "020.png")
    with caplog.at_level(logging.WARNING):
        skipped = samples(of(a, b, "skip", cache_mb, coupling=coupling))
    assert f"{a}: skipped 2 of 30 images, which cannot be read" in caplog.messages
    assert f"{b}: skipped 2 of 30 images, which cannot be read" in caplog.messages
    assert sum(line.startswith("skipped: ") for line in caplog.messages) == 4
    pairs = "coupling given: left out 3 of 30 pairs, of which an image cannot be read"
    assert (pairs in caplog.messages) == (coupling == "given")

    gone = {a: ["003", "011"], b: ["011", "020"]}
    if coupling == "given":
        gone = {side: ["003", "011", "020"] for side in (a, b)}
    for side, names in gone.items():
        for name in names:
            (side / f"{name}.png").unlink()
    removed = samples(of(a, b, "stop", cache_mb, coupling=coupling))
    assert all(torch.equal(one, other) for one, other in zip(skipped, removed, strict=True))
    assert [len(one) for one in removed] == ([25, 25, 2, 2] if coupling == "given" else [26, 26, 2, 2])


def test_a_folder_alone_skips_too(tmp_path: Path) -> None:
    a = pictures(tmp_path / "a", 12)
    half(a / "003.png")
    config = ImageFolderConfig(root=str(a), on_bad_file="skip")
    assert [image_folder(config, SHAPE, split, CPU).size for split in ("train", "test")] == [10, 1]


def test_a_folder_of_bad_files_alone_is_refused(tmp_path: Path) -> None:
    a, b = pictures(tmp_path / "a", 3), pictures(tmp_path / "b", 3)
    for path in a.iterdir():
        half(path)
    with pytest.raises(UserError, match="got no images to train on"):
        built(of(a, b, "skip"))
