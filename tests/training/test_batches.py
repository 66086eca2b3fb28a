"""The global batch of a training step: pipelines/training/batches.py."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flowferry.configs.components import (
    GaussianConfig,
    GaussianRingConfig,
    MoonsConfig,
    NoisyConfig,
    SamplerConfig,
    SyntheticDigitsConfig,
)
from flowferry.configs.networks import MLPConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import TeacherConfig, TrainConfig
from flowferry.configs.schema import Config
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_sampler, build_samplers
from flowferry.datasets.couplings import COUPLINGS
from flowferry.datasets.toy import Gaussian, Moons
from flowferry.models import build_model
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.training.batches import Pairs, draw_pairs, steps_per_epoch
from sample_data import CPU, build

NOISE = GaussianConfig()


def toy_pairs(
    count: int,
    *,
    seed: int = 0,
    step: int = 0,
    num_classes: int = 2,
    dropout: float = 0.1,
    path: str = "linear",
    source: SamplerConfig = NOISE,
) -> Pairs:
    config = Config(
        name="toy",
        summary="points to two moons",
        source=source,
        target=MoonsConfig(noise=0),
        model=MLPConfig(),
        shape=(2,),
        num_classes=num_classes,
        path=path,
        train=TrainConfig(label_dropout=dropout),
    )
    start = build_sampler(source, (2,), data_root=Path(), split="train", device=CPU)
    return draw_pairs(config, start, Moons(config.target, CPU), count, seed=seed, step=step)


def tensors(pairs: Pairs) -> dict[str, Tensor]:
    """Return all that a labeled batch holds, by name, for a network that does not see the source."""
    assert pairs._fields == ("x0", "x1", "t", "condition")
    assert pairs.condition.label is not None and pairs.condition.image is None
    return {"x0": pairs.x0, "x1": pairs.x1, "t": pairs.t, "label": pairs.condition.label}


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_parts_of_a_batch_make_up_the_whole(parts: int, tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("noise2mnist-cfg")
    source, target = (build(part, tmp_path) for part in (config.source, config.target))
    whole = draw_pairs(config, source, target, 8, seed=3, step=5)
    pieces = [whole.shard(index, parts) for index in range(parts)]
    assert [len(piece.t) for piece in pieces] == [8 // parts] * parts
    assert {piece.condition.num_classes for piece in pieces} == {whole.condition.num_classes} == {10}
    for name, tensor in tensors(whole).items():
        assert torch.equal(torch.cat([tensors(piece)[name] for piece in pieces]), tensor)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    batches = [toy_pairs(64, seed=seed, step=step) for seed in (0, 1) for step in (0, 1)]
    torch.manual_seed(99)
    again = toy_pairs(64, seed=1, step=0)
    for name, tensor in tensors(again).items():
        assert torch.equal(tensor, tensors(batches[2])[name])
        assert len(torch.stack([tensors(batch)[name] for batch in batches]).unique(dim=0)) == 4


@pytest.mark.parametrize("batch", [1, 7, 63, 64, 65, 1000])
def test_an_epoch_is_as_many_batches_as_show_each_image_and_no_more(batch: int, tmp_path: Path) -> None:
    target = build(SyntheticDigitsConfig(count=64), tmp_path)
    steps = steps_per_epoch(TrainConfig(batch_size=batch, epoch_size=5), target)
    assert (steps - 1) * batch < 64 <= steps * batch
    endless = steps_per_epoch(TrainConfig(batch_size=batch, epoch_size=130), Gaussian(NOISE, (2,), CPU))
    assert (endless - 1) * batch < 130 <= endless * batch


# --- pairs --------------------------------------------------------------------------------------------------


def test_the_coupling_asked_for_makes_the_pairs(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """For a denoiser, the target is what the source was before noise: both couplings, on noise of strength 0."""
    for coupling in ("given", "independent"):
        config = tiny("denoise-mnist", source=NoisyConfig(sigma=0.0), coupling=coupling)
        source, target = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
        pairs = draw_pairs(config, source, target, 32, seed=0, step=1)
        assert torch.equal(pairs.x0, pairs.x1) == (coupling == "given")


def test_source_and_target_are_independent_even_where_they_are_alike() -> None:
    config = Config(
        name="toy",
        summary="Gaussian to Gaussian",
        source=GaussianConfig(),
        target=GaussianConfig(),
        model=MLPConfig(),
        shape=(2,),
    )
    gaussian = Gaussian(config.source, (2,), CPU)
    x0, x1, *_ = draw_pairs(config, gaussian, gaussian, 10_000, seed=0, step=0)
    columns = torch.cat([x0, x1], dim=1).T
    assert (torch.corrcoef(columns) - torch.eye(4)).abs().max() < 5 / math.sqrt(10_000)


@pytest.fixture
def garments(tiny: Callable[..., Config]) -> Config:
    config = tiny("fashion2mnist", coupling="ot", coupling_batches=3)
    return replace(config, train=replace(config.train, source_noise=0.0))


def samplers(config: Config, tmp_path: Path) -> tuple[Sampler, Sampler]:
    return build_samplers(config, data_root=tmp_path, split="train", device=CPU)


def test_the_batches_of_a_pool_make_up_the_pool(garments: Config, tmp_path: Path) -> None:
    source, target = samplers(garments, tmp_path)
    x0, x1 = COUPLINGS["ot"](source, target, 24, 5, 1)
    parts = [draw_pairs(garments, source, target, 8, seed=5, step=step) for step in (3, 4, 5)]
    assert torch.equal(torch.cat([p.x0 for p in parts]), x0.samples)
    assert torch.equal(torch.cat([p.x1 for p in parts]), x1.samples)
    late = draw_pairs(garments, source, target, 8, seed=5, step=4)  # entered in the middle, as after a resume
    assert torch.equal(late.x1, parts[1].x1)


def test_a_larger_pool_is_cheaper(garments: Config, tmp_path: Path) -> None:
    source, target = samplers(garments, tmp_path)

    def cost(batches: int) -> float:
        config = replace(garments, coupling_batches=batches)
        pairs = [draw_pairs(config, source, target, 4, seed=0, step=step) for step in range(16)]
        return sum((p.x1 - p.x0).square().mean().item() for p in pairs)

    assert cost(16) < cost(4) < cost(1)


def test_noise_is_added_to_the_source_after_it_was_coupled(garments: Config, tmp_path: Path) -> None:
    source, target = samplers(garments, tmp_path)
    clean, noisy = (
        draw_pairs(
            replace(garments, train=replace(garments.train, source_noise=noise)), source, target, 32, seed=5, step=1
        )
        for noise in (0.0, 0.5)
    )
    added = noisy.x0 - clean.x0
    assert torch.equal(noisy.x1, clean.x1) and torch.equal(noisy.t, clean.t)
    assert added.std().item() == pytest.approx(0.5, rel=0.02) and abs(added.mean().item()) < 0.02


def test_the_noise_on_the_source_is_another_one_at_each_step_and_seed(garments: Config, tmp_path: Path) -> None:
    source, target = samplers(garments, tmp_path)
    added = [
        draw_pairs(config, source, target, 32, seed=seed, step=step).x0
        for config in (garments, replace(garments, train=replace(garments.train, source_noise=0.5)))
        for seed in (0, 1)
        for step in (0, 1, 2)
    ]
    noise = torch.stack(added[6:]) - torch.stack(added[:6])
    correlation = torch.corrcoef(noise.flatten(1)) - torch.eye(6)
    assert correlation.abs().max() < 5 / math.sqrt(noise[0].numel())


# --- times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_times_are_uniform_from_0_to_1(path: str) -> None:
    t = toy_pairs(20_000, path=path).t
    assert t.min() >= 0
    assert t.max() < 1
    assert abs(t.mean().item() - 1 / 2) < 5 / math.sqrt(12 * 20_000)
    assert abs(t.var().item() - 1 / 12) < 5 / math.sqrt(180 * 20_000)  # Var (t − ½)² = 1/180


def test_times_of_ddpm_are_its_levels_each_as_often() -> None:
    times, counts = toy_pairs(300 * 400, path="ddpm").t.unique(return_counts=True)
    assert torch.equal(times, torch.arange(300) / 300)  # 1 − s/300 for s = 300 … 1: never the clean image
    assert (counts - 400).abs().max() < 5 * math.sqrt(400)


def test_a_denoiser_in_one_step_sees_the_source_alone() -> None:
    assert torch.equal(toy_pairs(1000, path="one-step").t, torch.zeros(1000))


def test_times_are_the_power_of_uniform_ones_after_the_share_at_the_start(garments: Config, tmp_path: Path) -> None:
    source, target = samplers(garments, tmp_path)
    u, squares, half_at_start = (
        draw_pairs(replace(garments, train=replace(garments.train, **options)), source, target, 64, seed=5, step=1).t
        for options in ({"time_power": 1.0}, {"time_power": 2.0}, {"time_power": 1.0, "start_share": 0.5})
    )
    torch.testing.assert_close(squares, u**2)
    torch.testing.assert_close(half_at_start, (2 * u - 1).clamp(min=0))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_parts_of_a_batch_of_steps_train_as_the_whole(
    parts: int, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    """Their mean loss is its own. With classes, so that a step that asked for another's would show."""
    config = tiny("noise2mnist-cfg")
    config = replace(config, objective="map", model=replace(config.model, two_times=True))
    source, target = (build(part, tmp_path) for part in (config.source, config.target))
    whole = draw_pairs(config, source, target, 8, seed=3, step=5)
    assert [bool(start < end) for start, end in whole.t] == [False, False, False, True] * 2
    pieces = [whole.shard(index, parts) for index in range(parts)]
    assert torch.equal(torch.cat([piece.t for piece in pieces]), whole.t)
    pipeline = Pipeline(config, disturbed(config))
    losses = torch.stack([pipeline.loss(*piece) for piece in pieces])
    torch.testing.assert_close(losses.mean(), pipeline.loss(*whole))


def disturbed(config: Config) -> nn.Module:
    """Return an untrained network, of which no part adds nothing."""
    torch.manual_seed(0)
    model = build_model(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


# --- labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_each_label_is_dropped_by_itself_with_the_probability_asked_for(p: float) -> None:
    count = 20_000
    told, dropped = toy_pairs(count, dropout=0.0), toy_pairs(count, dropout=p)
    null = dropped.condition.label == 2
    assert torch.equal(dropped.condition.label[~null], told.condition.label[~null])
    assert set(told.condition.label.tolist()) == {0, 1}
    for some in (slice(None), told.t < 0.3, told.condition.label == 1):  # whatever the time and the label
        rate, of = null[some].float().mean().item(), len(null[some])
        assert abs(rate - p) <= 5 * math.sqrt(p * (1 - p) / of)


def test_each_step_hides_labels_of_its_own() -> None:
    """Whether sample i is hidden says nothing of sample i of another step or another seed, nor of its time."""
    pairs = [toy_pairs(20_000, seed=seed, step=step, dropout=0.5) for seed in (0, 1) for step in (0, 1)]
    hidden = [(part.condition.label == 2).float() for part in pairs]
    correlation = torch.corrcoef(torch.stack([*hidden, *(part.t for part in pairs)])) - torch.eye(8)
    assert correlation.abs().max() < 5 / math.sqrt(20_000)


@pytest.mark.parametrize("name", [name for name, config in PIPELINES.items() if config.num_classes])
def test_a_named_pipeline_hides_one_label_in_ten(name: str, tiny: Callable[..., Config], tmp_path: Path) -> None:
    """Guidance needs both sides trained; of 0.1, 0.2 and 0.5, Ho & Salimans 2022 found the last too many (4.1)."""
    config, count = tiny(name, coupling="independent", coupling_batches=1, teacher=TeacherConfig()), 4000
    source, target = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    label = draw_pairs(config, source, target, count, seed=0, step=0).condition.label
    assert abs((label == config.num_classes).float().mean().item() - 0.1) < 5 * math.sqrt(0.1 * 0.9 / count)


def test_a_pipeline_without_classes_is_told_no_labels() -> None:
    assert toy_pairs(4, num_classes=0).condition.label is None


@pytest.mark.parametrize("source", [NOISE, GaussianRingConfig(modes=2)], ids=["unlabeled", "labeled"])
def test_the_label_is_that_of_the_target_beside_it(source: SamplerConfig) -> None:
    """Whatever labels the source has, where nothing couples them."""
    pairs = toy_pairs(200, dropout=0.0, source=source)
    center = torch.tensor([[0.0, 0.0], [1.0, 0.5]])[pairs.condition.label]
    torch.testing.assert_close((pairs.x1 - center).norm(dim=1), torch.ones(200))
