"""Weights as files: equal tensors and metadata give equal bytes, which safetensors itself reads back."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.pipelines.storage import weights
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


def test_a_digest_is_of_the_weights_and_of_their_configuration(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """Both decide what the weights make of an image; the metadata says nothing of the solver."""
    torch.manual_seed(0)
    pipeline = Pipeline(tiny("fashion2mnist"))

    def digest(pipeline: Pipeline, name: str) -> str:
        pipeline.save_pretrained(tmp_path / name)
        return weights.digest(tmp_path / name)

    first = digest(pipeline, "first")
    assert digest(pipeline, "again") == first
    assert digest(pipeline.using(steps=3), "other steps") != first
    next(pipeline.model.parameters()).data[0] += 1
    assert digest(pipeline, "other weights") != first
