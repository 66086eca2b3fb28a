"""What a translation keeps of its source, on pairs whose figures are known."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.datasets.builders import build_samplers
from flowferry.pipelines.evaluation.metrics import entropy
from flowferry.pipelines.evaluation.pairs import translation_figures
from flowferry.pipelines.evaluation.reference import EvaluationSet
from flowferry.pipelines.flow.conditions import Condition

COUNT = 60


class Still(nn.Module):
    """The velocity 0, which leaves every sample where it is; keeps the labels of its last condition."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(()))
        self.label: Tensor | None = None

    def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.label = condition.label
        return self.zero * xt


def evaluation_set(config: Config) -> EvaluationSet:
    test = build_samplers(config, data_root=Path("data"), split="test", device=torch.device("cpu"))
    return EvaluationSet(config, test, COUNT, batch_size=COUNT)


def certain(labels: Tensor) -> Tensor:
    """Return class probabilities [B, 10] that leave no doubt about labels [B]."""
    return F.one_hot(labels, 10).double()


def test_unchanged_samples_keep_everything_and_shuffled_ones_keep_little(tiny: Callable[..., Config]) -> None:
    config = tiny("fashion2mnist", coupling="label")
    samples = evaluation_set(config)
    x0, labels = samples.source
    assert labels is not None
    kept, chance = translation_figures(Pipeline(config, Still()), samples, x0, certain(labels))
    information = pytest.approx(entropy(torch.bincount(labels)))
    assert kept == {"distance": 0, "mutual information": information, "same label": 1, "round trip": 0}
    assert chance.keys() == kept.keys()
    assert chance["same label"] < 0.4 and chance["mutual information"] < 0.8 * kept["mutual information"]
    assert chance["distance"] == chance["round trip"] > 0.1


def test_the_same_label_counts_only_where_pairs_agree_in_their_labels(tiny: Callable[..., Config]) -> None:
    config = tiny("fashion2mnist")
    samples = evaluation_set(config)
    x0, labels = samples.source
    assert labels is not None
    kept, _ = translation_figures(Pipeline(config, Still()), samples, x0, certain(labels))
    assert kept.keys() == {"distance", "mutual information", "round trip"}


def test_inferred_labels_are_held_against_those_of_the_source(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, network = tiny("fashion2mnist-labels"), Still()
    samples = evaluation_set(config)
    x0, labels = samples.source
    assert labels is not None
    inferred = torch.where(torch.arange(COUNT) < COUNT // 4, (labels + 1) % 10, labels)
    pipeline = Pipeline(config, network).using(guidance=1)
    monkeypatch.setattr(pipeline, "inferred_labels", lambda images: inferred)
    kept, chance = translation_figures(pipeline, samples, x0, certain(torch.zeros_like(labels)))
    assert kept["inferred label"] == pytest.approx(0.75) and chance["inferred label"] < 0.4
    assert kept["same label"] == pytest.approx((labels == 0).double().mean().item())
    assert network.label is not None and torch.equal(network.label, inferred)  # of the way back


def test_the_class_of_a_result_is_held_against_the_asked_one(tiny: Callable[..., Config]) -> None:
    config, network = tiny("noise2mnist-cfg"), Still()
    samples = evaluation_set(config)
    asked = torch.arange(COUNT) % 10
    pipeline = Pipeline(config, network).using(guidance=1)
    kept, chance = translation_figures(pipeline, samples, samples.source.samples, certain(asked))
    assert kept == {"distance": 0, "asked class": 1, "round trip": 0}  # noise has no labels
    assert chance["asked class"] < 0.4
    assert network.label is not None and torch.equal(network.label, asked)


def test_a_pipeline_that_cannot_go_back_has_no_round_trip(tiny: Callable[..., Config]) -> None:
    config = tiny("denoise-noise")
    samples = evaluation_set(config)
    shifted = samples.source.samples + 0.5
    kept, chance = translation_figures(Pipeline(config, Still()), samples, shifted, None)
    assert kept == {"distance": pytest.approx(0.5)} and chance.keys() == {"distance"}


def test_results_of_pairs_are_compared_with_their_own_truth(tiny: Callable[..., Config]) -> None:
    """The truth of noisy digits are the clean ones, and what changes nothing is as good as the source."""
    config = tiny("denoise-mnist")
    samples = evaluation_set(config)
    assert samples.truth is not None
    noise = (samples.source.samples - samples.truth) / 2
    assert abs(noise.std() - 0.5) < 0.02  # σ where white is 1 above black
    kept, chance = translation_figures(Pipeline(config, Still()), samples, samples.source.samples, None)
    for name in ("psnr", "ssim", "l1"):
        assert kept[name] == kept[f"{name} of the source"] == chance[f"{name} of the source"]
    assert kept["psnr"] == pytest.approx(20 * math.log10(1 / 0.5), abs=0.2)
    perfect, shuffled = translation_figures(Pipeline(config, Still()), samples, samples.truth, None)
    assert perfect["psnr"] == pytest.approx(100) and perfect["ssim"] == pytest.approx(1) and shuffled["psnr"] < 50


def test_without_pairs_there_is_no_truth(tiny: Callable[..., Config]) -> None:
    assert evaluation_set(tiny("fashion2mnist")).truth is None


def test_the_own_source_and_the_own_partner_are_looked_for(tiny: Callable[..., Config]) -> None:
    """Results that are their source lead to it, results that are the truth to the truth, shuffled ones to neither."""
    config = tiny("denoise-mnist")
    samples = evaluation_set(config)
    assert samples.truth is not None and samples.candidates is not None
    assert torch.equal(samples.candidates[:COUNT], samples.truth) and len(samples.candidates) == 64
    pipeline = Pipeline(config, Still())

    def maps(x: Tensor) -> list[Tensor]:
        return [torch.cat([1 + x, 1 - x], dim=1)]

    for results, source, partner in ((samples.source.samples, 1, None), (samples.truth, None, 1)):
        kept, chance = translation_figures(
            pipeline, samples, results, None, lambda x: [torch.cat([1 + x, 1 - x], dim=1)]
        )
        assert source in (None, kept["source found"]) and partner in (None, kept["partner found"])
        assert chance["source found"] < 0.2 and chance["partner found"] < 0.2
        assert 0 <= kept["partner found of the source"] == chance["partner found of the source"] <= 1
    assert kept["perceptual"] == 0 < kept["perceptual of the source"]
    assert evaluation_set(tiny("fashion2mnist")).candidates is None
