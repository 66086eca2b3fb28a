"""What is measured while a pipeline trains: pipelines/training/validation.py."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.datasets.builders import build_samplers
from flowferry.models.encoder import Encoder
from flowferry.pipelines.evaluation import metrics
from flowferry.pipelines.evaluation.encoder import TrainedEncoder
from flowferry.pipelines.evaluation.reference import FeatureExtractor
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.training import validation
from flowferry.pipelines.training.batches import draw_pairs
from flowferry.pipelines.training.validation import HELD_OUT, Validation, held_out_loss


class Still(nn.Module):
    """Predicts the velocity 0, and remembers the points and times that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.zero, self.asked = nn.Parameter(torch.zeros(1)), []

    def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        self.asked.append(torch.cat([xt, t[:, None]], dim=1))
        return self.zero * xt


@pytest.mark.parametrize("batch", [64, 100, 3000])
def test_the_held_out_loss_is_that_of_a_thousand_pairs_that_training_never_sees(
    batch: int, tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From N(0, I) to N(1, I), at rest: x1 − x0 ~ N(1, 2), whose square has the mean 3 and the variance 16."""
    monkeypatch.setattr(validation, "HELD_OUT", HELD_OUT)  # as it is imported, not as the tests cut it down
    assert HELD_OUT == 1024
    config = tiny("gaussian2d", seed=3)
    config = replace(config, train=replace(config.train, batch_size=batch))
    samplers = build_samplers(config, data_root=tmp_path, split="test", device=torch.device("cpu"))
    network = Still()
    network.train()
    loss = held_out_loss(Pipeline(config, network), *samplers)
    rows = torch.cat(network.asked)
    assert HELD_OUT <= len(rows) < HELD_OUT + batch
    assert len(rows.unique(dim=0)) == len(rows)
    assert abs(loss - 3) < 5 * math.sqrt(16 / (2 * len(rows)))
    for step in range(3):
        trained = draw_pairs(config, *samplers, batch, seed=3, step=step).t
        assert torch.isin(trained, rows[:, 2]).float().mean() < 0.01  # equal by chance
    network.asked.clear()
    assert held_out_loss(Pipeline(config, network), *samplers) == loss
    assert torch.equal(torch.cat(network.asked), rows)


@pytest.mark.parametrize(("name", "paired"), [("denoise-mnist", True), ("fashion2mnist-published", False)])
def test_pairs_are_compared_with_the_truth_while_training(
    name: str, paired: bool, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny(name)
    test = build_samplers(config, data_root=tmp_path, split="test", device=torch.device("cpu"))
    figures = Validation(config, test[1], test, tmp_path, tmp_path).measure(Pipeline(config))
    names = {"eval/psnr", "eval/ssim", "eval/l1"}
    expected = names | {f"{name}_of_source" for name in names} if paired else set()
    assert figures.keys() == {"eval/loss", *expected}
    if paired:
        assert figures["eval/psnr_of_source"] == pytest.approx(20 * math.log10(1 / 0.5), abs=0.3)


@pytest.mark.parametrize(
    ("options", "perceived"), [({"best": "perceptual"}, True), ({"eval_samples": 8}, True), ({}, False)]
)
def test_pairs_are_perceived_where_that_is_asked_for(
    options: dict[str, Any],
    perceived: bool,
    tiny: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Encoder(channels=1).eval()
    extractor = FeatureExtractor(lambda x: (encoder.extract(x), None), TrainedEncoder(encoder, ""))
    monkeypatch.setattr(validation, "feature_extractor", lambda *_, **__: extractor)
    config = tiny("denoise-mnist")
    config = replace(config, train=replace(config.train, **options))
    test = build_samplers(config, data_root=tmp_path, split="test", device=torch.device("cpu"))
    measured = Validation(config, test[1], test, tmp_path, tmp_path)
    assert "perceptual" in measured.measured
    measured.prepare()
    assert ("extractor" in vars(measured)) == perceived
    figures = measured.measure(Pipeline(config))
    assert ({"eval/perceptual", "eval/perceptual_of_source"} <= figures.keys()) == perceived
    if perceived:
        pairs = measured.pairs
        distance = metrics.perceptual(encoder.maps, pairs.source.samples, pairs.truth)  # type: ignore[arg-type]
        assert figures["eval/perceptual_of_source"] == pytest.approx(distance.mean().item())
    else:
        assert not any("perceptual" in tag for tag in figures)
