"""A pipeline saved and loaded, and what is refused: pipelines/pretrained.py and storage/weights.py."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.validation import UserError


def images(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(count, *shape).uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(pipeline: Callable[..., Pipeline], tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of a saved class-conditioned pipeline."""
    pipeline("noise2mnist-cfg-published").save_pretrained(tmp_path / "saved", step=123)
    yield tmp_path / "saved"


def load(folder: Path) -> Pipeline:
    return Pipeline.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        "fashion2mnist-published",
        "noise2mnist-published",
        "noise2mnist-cfg-published",
        "ddpm-mnist-cfg",
        "denoise-mnist",
        "noise2fashion",
        "noise2cifar",
        "moons",
    ],
)
def test_a_saved_pipeline_gives_the_same_bits(name: str, pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    original = pipeline(name)
    for buffer in original.model.buffers():  # BatchNorm's averages are part of the weights
        if buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer))
    original.save_pretrained(tmp_path / "run" / "model")
    x, steps = images(3, original.config.shape), min(2, original.config.solver.num_steps)
    expected = original.translate(x, steps=steps)
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        loaded = load(folder)
        assert loaded.config == original.config
        assert not loaded.model.training
        assert torch.equal(loaded.translate(x, steps=steps), expected)


def test_a_weaker_network_is_kept_in_half_the_bytes(pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    plain, other = pipeline("fashion2mnist-published"), pipeline("fashion2mnist-published")
    for parameter in other.model.parameters():
        parameter.data = (0.9 * parameter.data).half().float()
    original = Pipeline(plain.config, plain.model, weaker=other.model).using(guidance=2.0, steps=2)
    sizes = []
    for one in (plain, original):
        one.save_pretrained(tmp_path)
        sizes.append((tmp_path / "model.safetensors").stat().st_size)
    assert sizes[1] - sizes[0] < 0.7 * sizes[0]
    loaded, x = load(tmp_path), images(3, original.config.shape)
    assert torch.equal(loaded.translate(x), original.translate(x))
    assert not torch.equal(loaded.translate(x), plain.translate(x, steps=2))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop(next(name for name in tensors if name.startswith("weaker.")))
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"the weaker network's\) do not fit the network: missing: "):
        load(tmp_path)


def test_the_weights_describe_themselves(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    with safe_open(saved / "model.safetensors", "pt") as file:
        told = file.metadata()
    expected = {
        "pipeline": "noise2mnist-cfg-published",
        "source": "gaussian",
        "target": "synthetic-digits",
        "path": "linear",
        "prediction": "velocity",
        "time": "0 at the source, 1 at the target",
        "value_range": "[-1, 1]",
        "channels": "1",
        "shape": "[1, 28, 28]",
        "num_classes": "10",
        "objective": "flow",
        "infers_labels": "false",
        "format_version": "2",
        "step": "123",
    }
    assert {key: told.get(key) for key in expected} == expected
    assert json.loads(told["model"]) == {"kind": "course-unet", "width": 4, "time": "add"}
    assert told["data"] == "synthetic stand-ins (--quick), not the real data sets"
    assert told["flowferry"]


def test_the_weights_tell_what_they_predict_and_on_which_path(
    pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    original = pipeline("ddpm-mnist-cfg")
    original.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        told = file.metadata()
    assert (told["objective"], told["path"], told["prediction"]) == ("flow", "ddpm", "source")
    assert json.loads(told["model"]) == asdict(original.config.model)


DAMAGE: dict[str, tuple[str, Callable[[dict[str, Tensor]], Any]]] = {
    "missing": ("up1.0.0.weight", lambda tensors: tensors.pop("up1.0.0.weight")),
    "unexpected": ("stranger", lambda tensors: tensors.update(stranger=torch.zeros(2))),
    "misshapen": ("class1.0.weight", lambda tensors: tensors.update({"class1.0.weight": torch.zeros(8, 9)})),
    "not finite": ("init.0.1.running_mean", lambda tensors: tensors["init.0.1.running_mean"][2].fill_(math.nan)),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_weights_that_do_not_fit_are_refused_by_name(problem: str, saved: Path) -> None:
    name, damage = DAMAGE[problem]
    tensors = load_file(saved / "model.safetensors")
    damage(tensors)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError, match=f"{problem}: {name}") as told:
        load(saved)
    assert str(saved) in str(told.value)
    assert not any(other in str(told.value) for other in DAMAGE if other != problem)


def test_an_infinite_weight_is_refused(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["init.0.0.bias"][0] = -math.inf
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError, match=r"not finite: init\.0\.0\.bias"):
        load(saved)


@pytest.mark.parametrize("kept", [0, 4, 1000])
def test_half_a_weights_file_is_refused_by_name(kept: int, saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError) as told:
        load(saved)
    assert str(file) in str(told.value)


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    for folder, problem in ((tmp_path, "^no weights in "), (tmp_path / "nowhere", "^unknown pipeline: got ")):
        with pytest.raises(UserError, match=problem) as told:
            load(folder)
        assert str(folder) in str(told.value)


CHANGES: dict[str, tuple[str, Any]] = {  # what the message names: where in the configuration, another value
    "bogus": ("bogus", 1),
    "train.lr": ("train/lr", "fast"),
    "stray": ("train/stray", 1),
    "num_classes": ("num_classes", "ten"),
    "seed": ("seed", 0.5),
    "mnistt": ("target/kind", "mnistt"),
    "depth": ("model/depth", 3),
    "width": ("model/width", 0),
    "spiral": ("path", "spiral"),
    "shape": ("shape", ["a"]),
    "solver": ("solver", 3),
}


@pytest.mark.parametrize("named", CHANGES)
def test_a_configuration_with_a_wrong_entry_is_refused_by_name(named: str, saved: Path) -> None:
    path, value = CHANGES[named]
    told = json.loads((saved / "config.json").read_text())
    *outer, last = path.split("/")
    entry = told["config"]
    for name in outer:
        entry = entry[name]
    entry[last] = value
    (saved / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=named):
        load(saved)


@pytest.mark.parametrize("missing", ["model", "source", "name", "summary"])
def test_a_configuration_without_a_needed_entry_is_refused_by_name(missing: str, saved: Path) -> None:
    told = json.loads((saved / "config.json").read_text())
    del told["config"][missing]
    (saved / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=missing):
        load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": []}', "null"])
def test_what_is_no_configuration_is_refused(text: str, saved: Path) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(UserError, match="configuration"):
        load(saved)


def test_weights_without_a_configuration_are_refused_by_name(saved: Path) -> None:
    (saved / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        load(saved)
