"""What a run was trained on is compared with what is there: pipelines/training/image_lists.py."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flowferry import launch
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.bad_files import Unreadable
from flowferry.datasets.builders import usable_images
from flowferry.pipelines.storage import checkpoint
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training.image_lists import changes, forget_sizes, list_images
from picture_folders import folder_run, half, no_header, noisy_png, pictures
from tiny_runs import assert_same_tensors, metrics, trained


def listed(config: Config) -> dict:
    return json.loads(json.dumps(list_images(config, usable_images(config))))  # as a checkpoint keeps it


@pytest.fixture
def config(tiny: Callable[..., Config], tmp_path: Path) -> Config:
    return folder_run(tiny, pictures(tmp_path / "a", 12), pictures(tmp_path / "b", 20), 2)


def test_each_image_is_listed_in_its_split_with_its_size(config: Config, tmp_path: Path) -> None:
    images = listed(config)
    assert {side: {split: len(names) for split, names in splits.items()} for side, splits in images.items()} == {
        "source": {"train": 11, "test": 1},
        "target": {"train": 18, "test": 2},
    }
    everything = images["source"]["train"] | images["source"]["test"]
    assert everything == {path.name: path.stat().st_size for path in (tmp_path / "a").iterdir()}


def test_nothing_has_changed_where_nothing_has(config: Config, tmp_path: Path) -> None:
    before = listed(config)
    for path in (tmp_path / "a").iterdir():
        path.touch()  # a copy of the data has other times
    assert changes(before, listed(config)) == ""


def test_what_was_added_removed_and_changed_is_told_side_by_side(config: Config, tmp_path: Path) -> None:
    before = listed(config)
    for number in range(7):
        noisy_png(tmp_path / "a" / f"new {number}.png", number)
    (tmp_path / "b" / "003.png").unlink()
    noisy_png(tmp_path / "b" / "005.png", 5, size=(10, 10))
    told = changes(before, listed(config))
    source, target = told.split("; ")
    assert source.startswith("source: 12 images → 19: 7 added (new 0.png, new 1.png, new 2.png, ")
    assert source.count("new ") == 5 and "…" in source
    assert target.startswith("target: 20 images → 19: 1 removed (003.png), 1 changed (005.png)")


def test_an_image_that_would_change_sides_is_told() -> None:
    before = {"source": {"train": {"a.png": 1, "b.png": 1}, "test": {"c.png": 1}}}
    now = {"source": {"train": {"a.png": 1, "c.png": 1}, "test": {"b.png": 1}}}
    told = "1 held out now, which were trained on (b.png), 1 trained on now, which were held out (c.png)"
    assert changes(before, now) == f"source: 3 images → 3: {told}"


def test_another_order_is_another_stream() -> None:
    before, now = ({"source": {"train": dict.fromkeys(order, 1), "test": {}}} for order in ("abc", "acb"))
    assert changes(before, now) == "source: 3 images → 3: in another order"


def test_a_damaged_file_may_be_repaired(config: Config, tmp_path: Path) -> None:
    before = listed(config)
    forget_sizes(before, config, [Unreadable(config.target.root, {"003.png": "it is half"})])  # type: ignore[union-attr]
    noisy_png(tmp_path / "b" / "003.png", 3, size=(30, 30))
    assert changes(before, listed(config)) == ""
    noisy_png(tmp_path / "a" / "003.png", 3, size=(30, 30))
    assert changes(before, listed(config)) == "source: 12 images → 12: 1 changed (003.png)"


def test_a_file_that_is_skipped_is_none_of_them(config: Config, tmp_path: Path) -> None:
    before = listed(config)
    no_header(tmp_path / "a" / "003.png")
    half(tmp_path / "a" / "004.png")
    skipping = replace(config, source=replace(config.source, on_bad_file="skip"))
    assert changes(before, listed(skipping)).startswith("source: 12 images → 10: 2 removed (003.png, 004.png)")


# --- resuming -------------------------------------------------------------------------------------------


def longer(config: Config, steps: int) -> Config:
    return replace(config, train=replace(config.train, max_steps=steps))


def test_a_run_does_not_go_on_with_other_images_unless_that_is_allowed(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    trained(config, run)
    for number in range(12, 15):
        noisy_png(tmp_path / "a" / f"{number:03d}.png", number)
    told = r"source: 12 images → 15: 3 added \(012.png, 013.png, 014.png\)"
    with pytest.raises(UserError, match=rf"^{run} was trained on other images: {told}.* --allow-changed-data") as error:
        trained(longer(config, 4), run)
    assert "\n" not in str(error.value) and len(metrics(run)) == 2
    caplog.set_level("INFO")
    trainer = Trainer(longer(config, 4), run, data_root=Path("data"))
    assert trainer.run(allow_changed_data=True) == 0
    assert any("with other images: source: 12 images → 15" in line for line in caplog.messages)
    assert len(metrics(run)) == 4
    trained(longer(config, 5), run)  # by now they are the run's own


def test_the_command_line_allows_it(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    trained(config, run)
    (tmp_path / "a" / "003.png").unlink()
    command = ["--pipeline", str(run), "--output-dir", str(run), "--train.max-steps", "3"]
    assert launch.main(command) == 2
    assert "source: 12 images → 11: 1 removed (003.png)" in capsys.readouterr().err
    assert launch.main([*command, "--allow-changed-data"]) == 0


def test_a_run_whose_checkpoints_list_no_images_goes_on(config: Config, tmp_path: Path) -> None:
    """Those of older versions; and to the bit as if they did."""
    trained(longer(config, 4), tmp_path / "whole")
    trained(config, tmp_path / "old")
    path = tmp_path / "old" / "checkpoints" / "step-0000002"
    tensors, state = checkpoint.load(path)
    del state["images"]
    checkpoint.save(path.parent, 2, tensors, state, keep=2)
    trained(longer(config, 4), tmp_path / "old")
    file = "checkpoints/step-0000004/model.safetensors"
    assert_same_tensors(tmp_path / "whole" / file, tmp_path / "old" / file)
