"""`train --inspect`: pipelines/inspect_pairs.py."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowferry.configs.components import SyntheticDigitsConfig, SyntheticGarmentsConfig
from flowferry.configs.schema import Config
from flowferry.datasets.builders import build_samplers
from flowferry.datasets.couplings import COUPLINGS
from flowferry.pipelines import inspect_pairs
from flowferry.pipelines.inspect_pairs import duplicates, facts, transport_cost
from sample_data import CPU, labeled_images, paired


def test_inspect_tells_what_is_paired_and_draws_it(
    tiny: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    garments = tiny("fashion2mnist", coupling="ot", coupling_batches=3)
    source, target = build_samplers(garments, data_root=tmp_path, split="train", device=CPU)
    count = 3 * garments.train.batch_size
    pairing = COUPLINGS["ot"](source, target, count, garments.seed, 0)
    told = facts(garments, pairing, source, target)
    assert f"{transport_cost(pairing):.4f}" in told["mean ‖x1 − x0‖², by element"]
    assert "to 1.000" in told["values of the source"]
    assert inspect_pairs.run(garments, tmp_path, data_root=tmp_path) == 0
    printed = capsys.readouterr().out
    assert all(value in printed for value in told.values())
    assert (tmp_path / "samples" / "pairs.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


def test_inspect_counts_agreement_and_duplicates(tiny: Callable[..., Config]) -> None:
    config = tiny("fashion2mnist", coupling="label")
    assert (config.source, config.target) == (SyntheticGarmentsConfig(count=64), SyntheticDigitsConfig(count=64))
    source, target = labeled_images(6, 3, shuffle=0), labeled_images(6, 3, shuffle=1)
    told = facts(config, paired("label", source, target, 12), source, target)
    assert told["pairs that agree in their labels"] == "100.0%"
    assert told["duplicates"] == "6 in the source, 6 in the target"


def test_duplicates_are_the_samples_that_another_one_equals_before_them() -> None:
    assert duplicates(torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])[:, None]) == 3
