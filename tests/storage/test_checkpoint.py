"""Resume state survives kills and damage: pipelines/storage/checkpoint.py."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowferry.pipelines.storage import checkpoint

TENSORS = {"model": {"w": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)}, "ema": {"w": torch.ones(2)}}


def save(folder: Path, *steps: int, keep: int = 100) -> None:
    for step in steps:
        checkpoint.save(folder, step, TENSORS, {"step": step}, keep=keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = {"step": 7, "seconds": 0.1, "nested": {"list": [1, None, "x"]}}
    path = checkpoint.save(tmp_path / "new", 7, TENSORS, state, keep=2)
    assert path == tmp_path / "new" / "step-0000007"
    tensors, loaded = checkpoint.load(path)
    assert loaded == state
    assert tensors.keys() == TENSORS.keys()
    for group, expected in TENSORS.items():
        assert tensors[group].keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensors[group][name], tensor)
            assert tensors[group][name].dtype == tensor.dtype


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def begin(seed: int, lr: float = 1e-2) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 2))
    model[0].bias.requires_grad_(False)  # a parameter without optimizer state
    return model, torch.optim.Adam(model.parameters(), lr=lr)


def test_a_resumed_adam_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = begin(0)
    train(model, optimizer, range(3))
    groups = {"model": model.state_dict(), "optimizer": checkpoint.optimizer_tensors(optimizer)}
    checkpoint.save(tmp_path, 3, groups, {}, keep=2)
    train(model, optimizer, range(3, 6))

    resumed, its_optimizer = begin(1)
    tensors, _ = checkpoint.load(tmp_path / "step-0000003")
    resumed.load_state_dict(tensors["model"])
    checkpoint.load_optimizer(its_optimizer, tensors["optimizer"])
    train(resumed, its_optimizer, range(3, 6))
    for name, tensor in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_loading_an_optimizer_leaves_its_settings(tmp_path: Path) -> None:
    model, optimizer = begin(0)
    train(model, optimizer, range(1))
    _, other = begin(0, lr=0.5)
    checkpoint.load_optimizer(other, checkpoint.optimizer_tensors(optimizer))
    assert other.param_groups[0]["lr"] == 0.5


def test_the_newest_few_stay(tmp_path: Path) -> None:
    save(tmp_path, 5, 10, 90, 100, keep=3)
    assert names(tmp_path) == ["step-0000010", "step-0000090", "step-0000100"]
    path, broken = checkpoint.newest(tmp_path)
    assert (path, broken) == (tmp_path / "step-0000100", [])


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere") == (None, [])


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def change(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, change, Path.unlink])
@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_by_name(file: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    damage(tmp_path / "step-0000003" / file)
    path, (problem,) = checkpoint.newest(tmp_path)
    assert path == tmp_path / "step-0000002"
    assert "step-0000003" in problem
    assert damage is Path.unlink or file in problem


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
def test_a_checkpoint_without_a_whole_manifest_is_passed_over_by_name(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    save(tmp_path, 1, 2)
    damage(tmp_path / "step-0000002" / "manifest.json")
    path, (problem,) = checkpoint.newest(tmp_path)
    assert path == tmp_path / "step-0000001"
    assert "step-0000002" in problem


def test_a_manifest_of_another_kind_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step-0000002" / "manifest.json").write_text("[]")
    assert checkpoint.newest(tmp_path)[0] == tmp_path / "step-0000001"


def test_where_all_are_damaged_each_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for step in (1, 2):
        truncate(tmp_path / f"step-000000{step}" / "state.json")
    path, problems = checkpoint.newest(tmp_path)
    assert path is None
    assert [problem.split(":")[0] for problem in problems] == ["step-0000002", "step-0000001"]


def test_a_damaged_checkpoint_can_be_written_again(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for _ in range(2):
        truncate(tmp_path / "step-0000002" / "model.safetensors")
        assert checkpoint.newest(tmp_path)[0] == tmp_path / "step-0000001"
        save(tmp_path, 2)
        assert checkpoint.newest(tmp_path) == (tmp_path / "step-0000002", [])


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    for step in (2, 3):
        truncate(tmp_path / f"step-{step:07d}" / "model.safetensors")
    checkpoint.newest(tmp_path)
    save(tmp_path, 2, keep=2)
    assert [path.name for path in checkpoint.published(tmp_path)] == ["step-0000002", "step-0000001"]


def test_checkpoints_are_ordered_by_step_and_not_by_name(tmp_path: Path) -> None:
    save(tmp_path, 9_999_999, 10_000_000)
    assert checkpoint.newest(tmp_path)[0] == tmp_path / "step-10000000"


@pytest.mark.parametrize("dies_in", ["save_file", "sha256", "flush", "os.replace"])
def test_a_killed_write_leaves_what_was_there(dies_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write dies at its second call of `dies_in`, or at its only one; then the same write succeeds."""
    save(tmp_path, 1)
    owner, name = (os, "replace") if dies_in == "os.replace" else (checkpoint, dies_in)
    real, calls = getattr(owner, name), []

    def dying(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == 2 or dies_in == "os.replace":
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, dying)
        save(tmp_path, 2)
    assert any(name.endswith(".part") for name in names(tmp_path))  # the leftovers
    assert checkpoint.newest(tmp_path) == (tmp_path / "step-0000001", [])
    (tmp_path / ".step-0000002.part" / "leftover.safetensors").write_text("of the killed write")
    save(tmp_path, 2)
    assert checkpoint.newest(tmp_path) == (tmp_path / "step-0000002", [])
    assert names(tmp_path) == ["step-0000001", "step-0000002"]
    assert not (tmp_path / "step-0000002" / "leftover.safetensors").exists()


def test_the_manifest_vouches_for_each_file_and_none_is_a_pickle(tmp_path: Path) -> None:
    model, optimizer = begin(0)
    train(model, optimizer, range(1))
    groups: dict[str, dict[str, Tensor]] = {
        "model": model.state_dict(),
        "optimizer": checkpoint.optimizer_tensors(optimizer),
    }
    path = checkpoint.save(tmp_path, 1, groups, {"step": 1}, keep=2)
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["step"] == 1
    assert manifest["sha256"].keys() == {file.name for file in path.iterdir()} - {"manifest.json"}


def test_what_a_kill_left_of_another_step_is_removed_by_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".step-0000003.part").mkdir(parents=True)
    (tmp_path / ".step-0000003.part" / "model.safetensors").write_bytes(b"half")
    checkpoint.save(tmp_path, 5, {}, {}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000005"]
