"""The fixed samples of an evaluation and the real ones that they are held against."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.schema import Config
from flowferry.datasets.builders import build_samplers
from flowferry.pipelines.evaluation import reference
from flowferry.pipelines.evaluation.reference import EvaluationSet, Extracted, ReferenceSet, feature_extractor


def evaluation_set(config: Config, count: int, seed: int = 0) -> EvaluationSet:
    test = build_samplers(config, data_root=Path("data"), split="test", device=torch.device("cpu"))
    return EvaluationSet(config, test, count, seed)


def test_the_source_samples_are_a_function_of_the_seed(tiny: Callable[..., Config]) -> None:
    config = tiny("fashion2mnist")
    first, again, other = (evaluation_set(config, 20, seed).source.samples for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    of_another_name = evaluation_set(config, 20, 5)
    assert not torch.equal(of_another_name.draw(of_another_name.test[0], 20, "floor").samples, first)


def test_classes_are_asked_for_in_turn_where_a_user_can_ask_for_them(tiny: Callable[..., Config]) -> None:
    asked = evaluation_set(tiny("noise2mnist-cfg"), 12).asked
    assert asked is not None and asked.tolist() == [*range(10), 0, 1]
    assert evaluation_set(tiny("fashion2mnist"), 12).asked is None
    assert evaluation_set(tiny("fashion2mnist-labels"), 12).asked is None  # it infers them


def test_results_are_the_pipelines_own_of_those_samples(tiny: Callable[..., Config]) -> None:
    config = tiny("noise2mnist-cfg")
    pipeline = Pipeline(replace(config, solver=replace(config.solver, num_steps=1)))
    samples = evaluation_set(config, 12)
    expected = pipeline.translate(samples.source.samples, torch.arange(12) % 10)
    torch.testing.assert_close(samples.generate(pipeline), expected)


def test_real_samples_are_all_of_the_test_split_or_a_limited_number(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(evaluation_set(tiny("fashion2mnist"), 12).real) == 64
    monkeypatch.setattr(reference, "MAX_REAL", 50)
    assert len(evaluation_set(tiny("fashion2mnist"), 12).real) == 50
    assert len(evaluation_set(tiny("moons"), 12).real) == 50  # an endless stream


def test_samples_that_are_the_real_ones_have_the_figures_of_real_ones() -> None:
    """Features are the samples themselves, and their class the sign of the first number."""

    def extract(samples: Tensor) -> Extracted:
        return samples, F.one_hot((samples[:, 0] > 0).long(), 2).double() * 0.8 + 0.1

    real = torch.randn(400, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    held = ReferenceSet(extract, real)
    same = held.figures(extract(real))
    assert same["frechet"] == pytest.approx(held.frechet(real)) == pytest.approx(0, abs=1e-6)
    assert same["precision"] == same["recall"] == 1
    positive = (real[:, 0] > 0).double().mean().item()
    assert same["share of class 1"] == pytest.approx(positive) == pytest.approx(1 - same["share of class 0"])
    assert same["class entropy"] == pytest.approx(-sum(p * math.log(p) for p in (positive, 1 - positive)))
    assert same["confidence"] == pytest.approx(0.9)
    moved = held.figures(extract(real + 10))
    assert moved["frechet"] == pytest.approx(held.frechet(real + 10)) == pytest.approx(300)
    assert moved["precision"] == 0 and moved["share of class 1"] == 1 and moved["class entropy"] == 0


@pytest.mark.parametrize("other", [False, True])
def test_images_of_one_name_in_both_folders_may_be_partners(
    other: bool, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    """Image k is of one gray, k on one side and 10 more on the other, where the pipeline is not trained on pairs."""
    for side, shift in (("a", 0), ("b", 10)):
        (tmp_path / side).mkdir()
        for k in range(0, 200, 5):
            Image.new("RGB", (16, 16), (k + shift,) * 3).save(tmp_path / side / f"{k}.png")
    if other:
        (tmp_path / "b" / "0.png").rename(tmp_path / "b" / "another.png")
    sides = {name: ImageFolderConfig(root=str(tmp_path / root)) for name, root in (("source", "a"), ("target", "b"))}
    samples = evaluation_set(replace(tiny("folders", shape=(3, 16, 16)), **sides), 3)
    assert samples.truth is None
    if other:
        assert samples.candidates is None
        return
    assert samples.candidates is not None and len(samples.candidates) == 4
    gray = 127.5 * (samples.candidates[:3] - samples.source.samples)
    torch.testing.assert_close(gray, torch.full_like(gray, 10.0))


def test_points_are_their_own_features_and_an_endless_stream_of_images_has_none(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("moons")
    points = feature_extractor(config, evaluation_set(config, 2).test[1], data_root=tmp_path, folder=tmp_path)
    assert points is not None and points.network is points.maps is None
    x = torch.rand(5, 2)
    features, probabilities = points.extract(x)
    assert features is x and probabilities is None
    config = tiny("noise2mnist")
    noise = evaluation_set(config, 2).test[0]
    assert feature_extractor(config, noise, data_root=tmp_path, folder=tmp_path) is None
    assert not list(tmp_path.iterdir())
