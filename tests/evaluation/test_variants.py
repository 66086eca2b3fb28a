"""How results of one source differ: on results whose distances are known."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.datasets.builders import build_samplers
from flowferry.pipelines.evaluation.reference import EvaluationSet
from flowferry.pipelines.evaluation.variants import SOURCES, variant_figures


def evaluation_set(config: Config, count: int) -> EvaluationSet:
    test = build_samplers(config, data_root=Path("data"), split="test", device=torch.device("cpu"))
    return EvaluationSet(config, test, count, seed=5)


def test_variants_are_compared_with_each_other_and_the_best_with_the_truth(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variant k of an image is its truth plus k·0.1, and pairs of variants are 1, 1, 1, 2, 2, 3 times 0.1 apart."""
    config = tiny("denoise-mnist")
    pipeline, samples = (
        Pipeline(replace(config, solver=replace(config.solver, source_noise=0.4))),
        evaluation_set(config, 20),
    )
    assert samples.truth is not None
    truth, asked = samples.truth, []

    def translate(x: Tensor, labels: Tensor | None, *, seed: int, batch_size: int | None) -> Tensor:
        assert torch.equal(x, samples.source.samples)
        asked.append(seed)
        return truth + 0.1 * (seed - 5)

    monkeypatch.setattr(pipeline, "translate", translate)
    figures, beside = variant_figures(pipeline, samples, lambda x: [x])
    assert asked == [5, 6, 7, 8]
    assert figures["distance"] == pytest.approx(0.1 * 10 / 6, rel=1e-4)
    assert beside["distance"] == pytest.approx((truth - truth.roll(1, 0)).square().mean().sqrt().item(), rel=1e-4)
    assert figures["psnr, best of 4"] == pytest.approx(100) and figures["l1, best of 4"] == pytest.approx(0, abs=1e-4)
    psnr = [100, *(-20 * math.log10(0.05 * k) for k in (1, 2, 3))]
    assert beside["psnr, best of 4"] == pytest.approx(sum(psnr) / 4, rel=1e-4)
    assert beside["l1, best of 4"] == pytest.approx(255 * 0.05 * 1.5, rel=1e-4)
    assert figures.keys() == beside.keys() >= {"perceptual", "perceptual, best of 4", "ssim, best of 4"}


def test_each_result_of_noise_on_the_source_is_another_one(tiny: Callable[..., Config]) -> None:
    config = tiny("paired", shape=(3, 16, 16))
    one_step = replace(config.solver, num_steps=1, source_noise=0.4)
    config = replace(config, prediction="velocity", solver=one_step)  # so that an untrained network keeps the noise
    samples = evaluation_set(config, 20)
    figures, beside = variant_figures(Pipeline(config), samples, None)
    assert 0.1 < figures["distance"] < beside["distance"] and "perceptual" not in figures
    assert figures["psnr, best of 4"] > beside["psnr, best of 4"] and figures["l1, best of 4"] < beside["l1, best of 4"]
    assert SOURCES >= 20


def test_without_noise_there_are_no_variants(tiny: Callable[..., Config]) -> None:
    config = tiny("denoise-mnist")
    assert variant_figures(Pipeline(config), evaluation_set(config, 4), None) == ({}, {})
