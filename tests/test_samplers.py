"""Laws of where samples come from: datasets/ and pipelines/batches.py."""

import math
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor

from configs.schema import (
    Config,
    DrawnDigitsConfig,
    FashionMnistConfig,
    GaussianConfig,
    GaussianRingConfig,
    MnistConfig,
    MoonsConfig,
    PracticalUNetConfig,
    SamplerConfig,
    TrainConfig,
    UserError,
)
from datasets import build_sampler
from datasets.pixels import to_images
from datasets.sampler import InMemory
from datasets.toys import Gaussian, GaussianRing, Moons
from pipelines.batches import Pairs, draw_pairs

CPU = torch.device("cpu")
IMAGE = (1, 28, 28)
SIZE = 10


@pytest.fixture
def numbered() -> InMemory:
    """Ten 1×2×2 images: image i is grey 20·i and has the label 9 − i."""
    images = 20 * torch.arange(SIZE, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    return InMemory(images.contiguous(), 9 - torch.arange(SIZE), classes=10, device=CPU)


def numbers(samples: Tensor) -> Tensor:
    """Which of the numbered images these are."""
    return ((samples[:, 0, 0, 0] + 1) * 127.5 / 20).round().long()


# --- images in memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 4, 10, 25])
def test_each_epoch_shows_each_image_once(numbered: InMemory, count: int) -> None:
    steps = math.ceil(3 * SIZE / count)
    stream = torch.cat([numbers(numbered.draw(count, seed=0, step=step).samples) for step in range(steps)])
    epochs = stream[: 3 * SIZE].view(3, SIZE)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(SIZE).expand(3, SIZE))
    assert len(epochs.unique(dim=0)) == 3  # each in its own order


def test_the_stream_can_be_entered_anywhere(numbered: InMemory) -> None:
    stream = numbered.draw(40, seed=5, step=0)
    for count, step in ((4, 7), (4, 2), (1, 39), (13, 2), (20, 1)):
        batch, window = numbered.draw(count, seed=5, step=step), slice(count * step, count * (step + 1))
        assert torch.equal(batch.samples, stream.samples[window])
        assert torch.equal(batch.labels, stream.labels[window])


def test_another_seed_is_another_stream(numbered: InMemory) -> None:
    streams = [numbers(numbered.draw(SIZE, seed=seed, step=0).samples) for seed in range(4)]
    assert len(torch.stack(streams).unique(dim=0)) == 4


def test_labels_travel_with_their_images(numbered: InMemory) -> None:
    batch = numbered.draw(25, seed=1, step=3)
    assert torch.equal(batch.labels, 9 - numbers(batch.samples))
    assert batch.labels.dtype == torch.int64


def test_images_are_kept_as_uint8_and_given_in_minus_1_to_1(numbered: InMemory) -> None:
    assert numbered.images.dtype == torch.uint8
    samples = numbered.draw(SIZE, seed=0, step=0).samples
    assert samples.dtype == torch.float32
    assert torch.equal(samples[numbers(samples).argsort()], to_images(numbered.images))
    assert (numbered.shape, numbered.size, numbered.classes) == ((1, 2, 2), SIZE, 10)


# --- distributions in closed form -----------------------------------------------------------------------


def test_gaussian_samples_have_the_mean_and_deviation_asked_for() -> None:
    x = Gaussian(GaussianConfig(mean=1.5, std=0.5), (2, 5, 5), CPU).draw(4000, seed=0, step=0).samples
    assert x.shape == (4000, 2, 5, 5)
    assert abs(x.mean().item() - 1.5) < 5 * 0.5 / math.sqrt(x.numel())
    assert abs(x.std().item() - 0.5) < 5 * 0.5 / math.sqrt(2 * x.numel())
    correlation = torch.corrcoef(x.flatten(1).T) - torch.eye(50)
    assert correlation.abs().max() < 6 / math.sqrt(4000)  # elements are independent of each other


def test_moons_without_noise_lie_on_their_half_circles() -> None:
    x, label = Moons(MoonsConfig(noise=0), CPU).draw(4000, seed=0, step=0)
    arc = torch.where(label[:, None] == 0, x, torch.tensor([1.0, 0.5]) - x)  # the lower one, turned onto the upper
    torch.testing.assert_close(arc.norm(dim=1), torch.ones(4000))
    assert arc[:, 1].min() >= -1e-6
    angle = torch.atan2(arc[:, 1], arc[:, 0])
    for moon in (0, 1):  # as many on each, and uniform in angle: mean π/2, standard deviation π/√12
        on_it = angle[label == moon]
        assert abs(len(on_it) - 2000) < 5 * math.sqrt(1000)
        assert abs(on_it.mean().item() - math.pi / 2) < 5 * math.pi / math.sqrt(12 * len(on_it))
        assert abs(on_it.std().item() - math.pi / math.sqrt(12)) < 0.05


def test_ring_samples_lie_about_the_mean_of_their_label() -> None:
    config = GaussianRingConfig(modes=5, radius=3.0, std=0.1)
    x, label = GaussianRing(config, CPU).draw(5000, seed=0, step=0)
    angle = math.tau * label / 5
    deviation = x - 3.0 * torch.stack([angle.cos(), angle.sin()], dim=1)
    assert abs(deviation.std().item() - 0.1) < 5 * 0.1 / math.sqrt(2 * 10_000)
    assert ((label.bincount(minlength=5) - 1000).abs() < 5 * math.sqrt(800)).all()


@pytest.mark.parametrize(
    "sampler",
    [
        Gaussian(GaussianConfig(), (3,), CPU),
        Moons(MoonsConfig(), CPU),
        GaussianRing(GaussianRingConfig(), CPU),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_endless_streams_are_functions_of_seed_and_step(sampler: Gaussian | Moons | GaussianRing) -> None:
    draws = [sampler.draw(50, seed=seed, step=step).samples for seed in (0, 1) for step in (0, 1)]
    torch.manual_seed(99)
    assert torch.equal(sampler.draw(50, seed=1, step=0).samples, draws[2])
    assert len(torch.stack(draws).unique(dim=0)) == 4


# --- building -------------------------------------------------------------------------------------------


def build(config: SamplerConfig, data_root: Path, shape: tuple[int, ...] = IMAGE, split: str = "train") -> InMemory:
    return build_sampler(config, shape, data_root=data_root, split=split, device=CPU)


def test_train_and_test_drawings_differ(tmp_path: Path) -> None:
    train, test = (build(DrawnDigitsConfig(count=20), tmp_path, split=split) for split in ("train", "test"))
    assert train.shape == IMAGE
    assert not torch.equal(train.images, test.images)


@pytest.mark.parametrize(
    "config, given, shape",
    [
        (MoonsConfig(), (2,), IMAGE),
        (GaussianRingConfig(), (2,), (3,)),
        (DrawnDigitsConfig(count=1), IMAGE, (3, 28, 28)),
    ],
)
def test_a_sampler_of_another_shape_is_refused(
    config: SamplerConfig, given: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{config.kind} ") as told:
        build(config, tmp_path, shape)
    for part in (given, shape):
        assert str(part) in str(told.value)


@pytest.mark.parametrize("config, name", [(MnistConfig(), "MNIST"), (FashionMnistConfig(), "FashionMNIST")])
@pytest.mark.parametrize("error", [RuntimeError("broken"), URLError("no network"), PermissionError("read-only")])
def test_missing_data_is_told_with_what_to_do(
    config: SamplerConfig, name: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)  # FashionMNIST inherits it
    with pytest.raises(UserError) as told:
        build(config, tmp_path)
    for part in (str(tmp_path / name), "--data-root", "--quick", str(error)):
        assert part in str(told.value)


# --- the global batch of a step -------------------------------------------------------------------------


def toy_pairs(count: int, *, seed: int = 0, step: int = 0, classes: int = 2, dropout: float = 0.1) -> Pairs:
    config = Config(
        name="toy",
        summary="Gaussian to two moons",
        source=GaussianConfig(),
        target=MoonsConfig(noise=0),
        model=PracticalUNetConfig(),
        shape=(2,),
        classes=classes,
        train=TrainConfig(label_dropout=dropout),
    )
    return draw_pairs(
        config, Gaussian(config.source, (2,), CPU), Moons(config.target, CPU), count, seed=seed, step=step
    )


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_parts_of_a_batch_make_up_the_whole(parts: int, tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("noise2mnist-cfg")
    source, target = (build(part, tmp_path) for part in (config.source, config.target))
    whole = draw_pairs(config, source, target, 8, seed=3, step=5)
    pieces = [whole.part(index, parts) for index in range(parts)]
    assert [len(piece.t) for piece in pieces] == [8 // parts] * parts
    for name in Pairs._fields:
        assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(whole, name))


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    batches = [toy_pairs(64, seed=seed, step=step) for seed in (0, 1) for step in (0, 1)]
    torch.manual_seed(99)
    again = toy_pairs(64, seed=1, step=0)
    for name in Pairs._fields:
        assert torch.equal(getattr(again, name), getattr(batches[2], name))
        assert len(torch.stack([getattr(batch, name) for batch in batches]).unique(dim=0)) == 4


def test_times_are_uniform_from_0_to_1() -> None:
    t = toy_pairs(20_000).t
    assert t.min() >= 0
    assert t.max() < 1
    assert abs(t.mean().item() - 1 / 2) < 5 / math.sqrt(12 * 20_000)
    assert abs(t.var().item() - 1 / 12) < 5 / math.sqrt(180 * 20_000)  # Var (t − ½)² = 1/180


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_each_label_is_dropped_by_itself_with_the_probability_asked_for(p: float) -> None:
    count = 20_000
    told, dropped = toy_pairs(count, dropout=0.0), toy_pairs(count, dropout=p)
    null = dropped.label == 2
    assert torch.equal(dropped.label[~null], told.label[~null])
    assert set(told.label.tolist()) == {0, 1}
    for some in (slice(None), told.t < 0.3, told.label == 1):  # whatever the time and the label
        rate, of = null[some].float().mean().item(), len(null[some])
        assert abs(rate - p) <= 5 * math.sqrt(p * (1 - p) / of)


def test_a_pipeline_without_classes_is_told_no_labels() -> None:
    assert toy_pairs(4, classes=0).label is None


def test_the_label_is_that_of_the_target_beside_it() -> None:
    pairs = toy_pairs(200, dropout=0.0)
    centre = torch.tensor([[0.0, 0.0], [1.0, 0.5]])[pairs.label]
    torch.testing.assert_close((pairs.x1 - centre).norm(dim=1), torch.ones(200))


def test_source_and_target_are_independent_even_where_they_are_alike() -> None:
    config = Config(
        name="toy",
        summary="Gaussian to Gaussian",
        source=GaussianConfig(),
        target=GaussianConfig(),
        model=PracticalUNetConfig(),
        shape=(2,),
    )
    gaussian = Gaussian(config.source, (2,), CPU)
    x0, x1, *_ = draw_pairs(config, gaussian, gaussian, 10_000, seed=0, step=0)
    columns = torch.cat([x0, x1], dim=1).T
    assert (torch.corrcoef(columns) - torch.eye(4)).abs().max() < 5 / math.sqrt(10_000)


# --- the real data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config, first", [(MnistConfig(), 5), (FashionMnistConfig(), 9)])
def test_the_real_data_is_whole(config: SamplerConfig, first: int, data_root: Path) -> None:
    train, test = (build(config, data_root, split=split) for split in ("train", "test"))
    assert (train.images.shape, train.images.dtype) == ((60_000, 1, 28, 28), torch.uint8)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert train.labels[0] == first
    assert not torch.equal(train.images[:10_000], test.images)
    for sampler in (train, test):
        share = sampler.labels.bincount(minlength=10) / len(sampler.labels)
        assert ((share > 0.08) & (share < 0.12)).all()
