"""Weights as files: equal tensors and metadata give equal bytes, which safetensors itself reads back."""

import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.components import SyntheticDigitsConfig, SyntheticGarmentsConfig
from flowferry.configs.networks import PracticalUNetConfig
from flowferry.configs.recipe import SolverConfig
from flowferry.configs.schema import Config
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import aside, write_json
from tiny_runs import config_of, trained

DESCRIPTION = {f"entry {number}": f'größe {number} "quoted" \\ 日本語' for number in range(20)}


def tensors() -> dict[str, Tensor]:
    """Return tensors of several types and layouts, the same each time."""
    g = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 3, 3, generator=g)
    return {
        "b.kernel": kernel.to(memory_format=torch.channels_last),
        "a.half": torch.randn(5, generator=g).half(),
        "c.count": torch.tensor(7),
        "d.transposed": torch.randn(3, 2, generator=g).T,
        "e.empty": torch.zeros(0, 3),
    }


def reordered(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return equal tensors, inserted in the reverse order and all contiguous."""
    return {name: entries[name].contiguous() for name in reversed(entries)}


def saved(file: Path, entries: dict[str, Tensor], description: dict[str, str]) -> bytes:
    weights.save_tensors(file, entries, description)
    return file.read_bytes()


def test_fifty_files_of_equal_tensors_and_metadata_are_equal(tmp_path: Path) -> None:
    """safetensors by itself writes the metadata in another order each time."""
    backwards = dict(reversed(DESCRIPTION.items()))
    files = [saved(tmp_path / "one", tensors(), DESCRIPTION) for _ in range(25)]
    files += [saved(tmp_path / "other", reordered(tensors()), backwards) for _ in range(25)]
    assert len(files) == 50 and len(set(files)) == 1
    assert saved(tmp_path / "changed", tensors(), DESCRIPTION | {"entry 3": "else"}) != files[0]
    assert saved(tmp_path / "changed", tensors() | {"c.count": torch.tensor(8)}, DESCRIPTION) != files[0]


def test_safetensors_reads_back_what_was_written(tmp_path: Path) -> None:
    data, given = saved(tmp_path / "file", tensors(), DESCRIPTION), tensors()
    found = load_file(tmp_path / "file")
    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    with safe_open(tmp_path / "file", "pt") as opened:
        assert opened.metadata() == {"format": "pt", **DESCRIPTION}
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0  # tensors begin where the processor reads them fastest
    assert list(json.loads(data[8 : 8 + length])["__metadata__"]) == sorted(["format", *DESCRIPTION])


EXPORT = """
import sys, torch
from flowferry import launch, Pipeline
torch.set_num_threads(1)
assert launch.main(["export", "--pipeline", sys.argv[1], "--output", sys.argv[2]]) == 0
Pipeline.from_pretrained(sys.argv[1], device="cpu").save_pretrained(sys.argv[3], step=5)
"""


def test_two_processes_export_equal_files(tiny: Callable[..., Config], tmp_path: Path) -> None:
    torch.manual_seed(0)
    Pipeline(tiny("fashion2mnist-labels")).save_pretrained(tmp_path / "weights", step=5)
    expected = (tmp_path / "weights" / weights.WEIGHTS).read_bytes()
    for turn in ("first", "second"):
        output = [tmp_path / turn / how for how in ("exported", "saved again")]
        command = [sys.executable, "-c", EXPORT, tmp_path / "weights", *output]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        for folder in output:
            assert (folder / weights.WEIGHTS).read_bytes() == expected, folder
            assert (folder / weights.CONFIG).read_bytes() == (tmp_path / "weights" / weights.CONFIG).read_bytes()


@pytest.mark.parametrize("name", ["noise2mnist-cfg", "fashion2mnist"])
def test_two_identical_runs_leave_equal_weights(name: str, tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = config_of(tiny, steps=3, name=name, batch_size=8)
    files = []
    for turn in ("first", "second"):
        trained(config, tmp_path / turn)
        files.append((tmp_path / turn / "model" / weights.WEIGHTS).read_bytes())
    assert files[0] == files[1]
    trained(replace(config, seed=config.seed + 1), tmp_path / "other")
    assert (tmp_path / "other" / "model" / weights.WEIGHTS).read_bytes() != files[0]
    assert weights.digest(tmp_path / "first") == weights.digest(tmp_path / "second")


# --- the digest -----------------------------------------------------------------------------------------


def kept(config: Config, folder: Path) -> Path:
    """Save the same tensors with a configuration, and return the folder."""
    torch.manual_seed(0)
    Pipeline(config).save_pretrained(folder)
    return folder


def test_the_same_weights_saved_in_any_way_have_one_digest(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """Saved again, by safetensors itself in another order, for other steps, and after another training elsewhere."""
    config = tiny("fashion2mnist")
    digest = weights.digest(kept(config, tmp_path / "first"))
    held = load_file(tmp_path / "first" / weights.WEIGHTS)
    for number in range(4):
        again = tmp_path / f"again{number}"
        again.mkdir()
        shuffled = {name: held[name] for name in sorted(held, key=lambda name: hash((name, number)))}
        told = {f"entry {entry}": str(number) for entry in range(10)}
        save_file(shuffled, again / weights.WEIGHTS, metadata=told)
        text = (tmp_path / "first" / weights.CONFIG).read_text()
        (again / weights.CONFIG).write_text(json.dumps(json.loads(text), sort_keys=True, indent=number))
        assert weights.digest(again) == digest
    assert len({(tmp_path / f"again{number}" / weights.WEIGHTS).read_bytes() for number in range(4)}) == 4
    Pipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "resaved", step=7)
    assert weights.digest(tmp_path / "resaved") == digest
    train, solver = replace(config.train, epochs=3, batch_size=7), replace(config.solver, name="heun", num_steps=9)
    other = replace(config, train=train, solver=solver, seed=4, summary="x", source=replace(config.source, count=9))
    assert weights.digest(kept(other, tmp_path / "other")) == digest


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction": "target"},
        {"path": "cosine"},
        {"objective": "one-step"},
        {"num_classes": 3},
        {"shape": (1, 32, 32)},
        {"source": SyntheticDigitsConfig(count=64)},
        {"target": SyntheticGarmentsConfig(count=64)},
        {"solver": SolverConfig(grid_power=2.0)},
        {"model": PracticalUNetConfig(width=5)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_decides_a_result_changes_the_digest(
    changes: dict[str, Any], tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("fashion2mnist-published")
    digest = weights.digest(kept(config, tmp_path / "first"))
    shutil.copytree(tmp_path / "first", tmp_path / "other")
    write_json(tmp_path / "other" / weights.CONFIG, weights.describe(replace(config, **changes)))
    assert weights.digest(tmp_path / "other") != digest


def test_every_bit_name_shape_and_type_of_a_tensor_changes_the_digest(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    kept(tiny("fashion2mnist"), tmp_path)

    def digest(entries: dict[str, Tensor]) -> str:
        weights.save_tensors(tmp_path / weights.WEIGHTS, entries, {})
        return weights.digest(tmp_path)

    plain = {"a": torch.zeros(2, 3), "b": torch.ones(4)}
    bit = torch.zeros(2, 3)
    bit.view(torch.int32)[1, 2] = 1
    variants = [
        plain,
        plain | {"a": bit},
        plain | {"a": torch.zeros(3, 2)},
        plain | {"a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": plain["a"], "c": plain["b"]},
        {"a": plain["a"]},
        {"b": torch.zeros(2, 3), "a": torch.ones(4)},
    ]
    assert len({digest(variant) for variant in variants}) == len(variants)
    assert digest(dict(reversed(plain.items()))) == digest(plain)


def test_the_digest_holds_little_of_the_file_in_memory(tiny: Callable[..., Config], tmp_path: Path) -> None:
    kept(tiny("fashion2mnist"), tmp_path)
    large = torch.zeros(16 << 20)  # 64 MB
    weights.save_tensors(tmp_path / weights.WEIGHTS, {"large": large}, {})
    tracemalloc.start()
    try:
        digest = weights.digest(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    large[-1] = 1
    weights.save_tensors(tmp_path / weights.WEIGHTS, {"large": large}, {})
    assert weights.digest(tmp_path) != digest  # the last byte counts, too


def test_the_order_in_the_header_does_not_change_the_digest(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """safetensors itself always writes one order; other writers need not."""
    digest = weights.digest(kept(tiny("fashion2mnist"), tmp_path))
    data = (tmp_path / weights.WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(dict(reversed(json.loads(data[8 : 8 + length]).items()))).encode()
    (tmp_path / weights.WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert weights.digest(tmp_path) == digest


# --- files of several runs ------------------------------------------------------------------------------


def test_two_runs_that_write_a_shared_file_at_once_both_leave_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "pairs.safetensors"
    with aside(path, shared=True) as first:
        first.write_bytes(b"of the first")
        with aside(path, shared=True) as second:
            second.write_bytes(b"of the second")
        assert path.read_bytes() == b"of the second"
    assert path.read_bytes() == b"of the first"
    assert list(tmp_path.iterdir()) == [path]
