"""Laws of where samples come from: datasets/ and pipelines/batches.py."""

import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

from configs.checks import UserError
from configs.parts import (
    AugmentConfig,
    Cifar10Config,
    DrawnColoursConfig,
    DrawnDigitsConfig,
    DrawnGarmentsConfig,
    FashionMnistConfig,
    GaussianConfig,
    GaussianRingConfig,
    ImageFolderConfig,
    MLPConfig,
    MnistConfig,
    MoonsConfig,
    NoisyConfig,
    SamplerConfig,
    SvhnConfig,
)
from configs.schema import Config, TrainConfig
from datasets import build_sampler, build_samplers, build_source
from datasets.augment import augmented
from datasets.keyed import normal_rows
from datasets.pixels import to_images
from datasets.sampler import Augmented, InMemory, Noisy
from datasets.toys import Gaussian, GaussianRing, Moons
from pipelines.batches import Pairs, draw_pairs
from pipelines.couplings import given, independent

CPU = torch.device("cpu")
IMAGE, COLOUR = (1, 28, 28), (3, 32, 32)
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


def test_a_label_that_nothing_has_is_refused_in_one_line(numbered: InMemory) -> None:
    with pytest.raises(UserError, match=r"samples of label 12 were asked, found are those of \[0, 1, .*9\]") as refused:
        numbered.of_labels(torch.tensor([3, 12]), seed=0, step=0)
    assert "\n" not in str(refused.value)


def test_images_are_kept_as_uint8_and_given_in_minus_1_to_1(numbered: InMemory) -> None:
    assert numbered.images.dtype == torch.uint8
    samples = numbered.draw(SIZE, seed=0, step=0).samples
    assert samples.dtype == torch.float32
    assert torch.equal(samples[numbers(samples).argsort()], to_images(numbered.images))
    assert (numbered.shape, numbered.size, numbered.classes) == ((1, 2, 2), SIZE, 10)


# --- noisy images ---------------------------------------------------------------------------------------


@pytest.fixture
def clean() -> InMemory:
    """400 images of even grey, black and white included: image i has the label i mod 10."""
    greys = torch.linspace(0, 255, 400).round().to(torch.uint8)[:, None, None, None]
    return InMemory(greys.expand(-1, 1, 8, 8).contiguous(), torch.arange(400) % 10, classes=10, device=CPU)


@pytest.mark.parametrize("sigma", [0.2, 0.5])
def test_noisy_images_are_the_clean_ones_and_twice_sigma_of_noise(clean: InMemory, sigma: float) -> None:
    """Twice, because σ is told where white − black is 1, and here it is 2. Nothing is clipped."""
    z, labels = Noisy(clean, sigma).draw(400, seed=3, step=2)
    x, expected = clean.draw(400, seed=3, step=2)
    assert torch.equal(labels, expected)
    noise = (z - x).flatten(1)
    assert abs(noise.mean().item()) < 5 * 2 * sigma / math.sqrt(noise.numel())
    for some in (noise, noise[x[:, 0, 0, 0] > 0.8], noise[x[:, 0, 0, 0] < -0.8]):
        assert abs(some.std().item() / (2 * sigma) - 1) < 5 / math.sqrt(2 * some.numel())
    assert noise.square().mean(dim=1).std() < 2 * (2 * sigma) ** 2 * math.sqrt(2 / 64)  # as much in each image
    correlation = torch.corrcoef(noise.T) - torch.eye(64)
    assert correlation.abs().max() < 6 / math.sqrt(400)


def test_the_noise_of_noisy_images_is_a_function_of_seed_and_step(clean: InMemory) -> None:
    def noise(seed: int, step: int) -> Tensor:
        return Noisy(clean, 0.5).draw(40, seed=seed, step=step).samples - clean.draw(40, seed=seed, step=step).samples

    drawn = [noise(seed, step) for seed in (0, 1) for step in (0, 1, 10)]  # step 10: the next epoch
    torch.manual_seed(99)
    assert torch.equal(noise(1, 1), drawn[4])
    correlation = torch.corrcoef(torch.stack(drawn).flatten(1)) - torch.eye(6)
    assert correlation.abs().max() < 5 / math.sqrt(drawn[0].numel())


def test_noisy_images_of_no_noise_are_the_clean_ones(clean: InMemory) -> None:
    noisy = Noisy(clean, 0.0)
    assert torch.equal(noisy.draw(70, seed=1, step=5).samples, clean.draw(70, seed=1, step=5).samples)
    assert (noisy.shape, noisy.size, noisy.classes) == (clean.shape, clean.size, clean.classes)


# --- noise for each row ---------------------------------------------------------------------------------


def test_noise_by_rows_is_standard_normal_and_independent() -> None:
    noise, x = normal_rows(0, range(20)), torch.zeros(20, 1, 28, 28)
    values = torch.stack([noise(x) for _ in range(5)]).flatten(2)  # [call, row, element]
    assert abs(values.mean().item()) < 5 / math.sqrt(values.numel())
    assert abs(values.var().item() - 1) < 5 * math.sqrt(2 / values.numel())
    inside = (values.abs() < 1).double().mean().item()
    assert abs(inside - math.erf(math.sqrt(1 / 2))) < 5 * math.sqrt(0.22 / values.numel())
    streams = torch.corrcoef(values.flatten(0, 1)) - torch.eye(100)  # calls and rows share nothing
    assert streams.abs().max() < 6 / math.sqrt(784)


def test_the_noise_of_a_row_does_not_depend_on_its_neighbours() -> None:
    together, apart = normal_rows(3, range(7)), [normal_rows(3, range(row, row + 1)) for row in range(7)]
    part = normal_rows(3, range(2, 5))
    x = torch.zeros(7, 1, 28, 28)
    for _ in range(3):
        rows = together(x)
        assert torch.equal(torch.cat([noise(x[:1]) for noise in apart]), rows)
        assert torch.equal(part(x[:3]), rows[2:5])


def test_the_noise_of_a_row_is_a_function_of_the_seed() -> None:
    x = torch.zeros(2, 3)
    draws = [normal_rows(seed, range(2))(x) for seed in (0, 1, 2)]
    torch.manual_seed(99)
    assert torch.equal(normal_rows(1, range(2))(x), draws[1])
    assert len(torch.cat(draws).unique(dim=0)) == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_noise_of_rows_is_of_the_type_of_what_it_is_added_to(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3, dtype=dtype)
    assert normal_rows(0, range(2))(x).dtype == dtype


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


def test_drawn_colours_have_the_shape_of_the_colour_data_sets(tmp_path: Path) -> None:
    train, test = (build(DrawnColoursConfig(count=20), tmp_path, COLOUR, split) for split in ("train", "test"))
    assert (train.shape, train.size, train.classes) == (COLOUR, 20, 10)
    assert not torch.equal(train.images, test.images)


@pytest.mark.parametrize(
    "config, shape, name, where",
    [
        (MnistConfig(), IMAGE, "MNIST", "MNIST/raw"),
        (FashionMnistConfig(), IMAGE, "FashionMNIST", "FashionMNIST/raw"),
        (Cifar10Config(), COLOUR, "CIFAR10", "cifar-10-batches-py"),
        (SvhnConfig(), COLOUR, "SVHN", "train_32x32.mat and test_32x32.mat"),
    ],
)
@pytest.mark.parametrize("error", [RuntimeError("broken"), URLError("no network"), PermissionError("read-only")])
def test_missing_data_is_told_with_what_to_do(
    config: SamplerConfig,
    shape: tuple[int, ...],
    name: str,
    where: str,
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def download(self: object) -> None:
        raise error

    monkeypatch.setattr(getattr(torchvision.datasets, name), "download", download)
    with pytest.raises(UserError, match=f"^no {name} in ") as told:
        build(config, tmp_path, shape)
    for part in (str(tmp_path), where, "--data-root", "--quick", str(error)):
        assert part in str(told.value)
    assert "\n" not in str(told.value)


# --- data sets in colour --------------------------------------------------------------------------------


def colour_pixels(first: int, count: int) -> np.ndarray:
    """uint8 [count, 3, 32, 32]: red is 7 × the row, green 7 × the column, blue the image's number."""
    row, column = np.mgrid[:32, :32]
    images = [np.stack([7 * row, 7 * column, np.full_like(row, first + i)]) for i in range(count)]
    return np.stack(images).astype(np.uint8)


def write_cifar10(root: Path) -> None:
    """Two images in each of the published files: five to train on, numbers 0 to 9, and one to test on, 10 and 11."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate([*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]):
        entry = {"data": colour_pixels(2 * i, 2).reshape(2, 3072), "labels": [(2 * i) % 10, (2 * i + 1) % 10]}
        (folder / name).write_bytes(pickle.dumps(entry))


class StandInSVHN:
    """What torchvision's class holds: the published X [32, 32, 3, N] seen as [N, 3, 32, 32], and numpy labels."""

    def __init__(self, root: Path, split: str, download: bool) -> None:
        assert download
        first, count = {"train": (0, 10), "test": (10, 2)}[split]
        published = np.asfortranarray(colour_pixels(first, count).transpose(2, 3, 1, 0))
        self.data = published.transpose(3, 2, 0, 1)
        self.labels = np.arange(first, first + count, dtype=np.int64) % 10


@pytest.mark.parametrize("config", [Cifar10Config(), SvhnConfig()], ids=lambda config: config.kind)
@pytest.mark.parametrize("split, first, count", [("train", 0, 10), ("test", 10, 2)])
def test_the_colour_data_sets_are_read_as_they_were_written(
    config: SamplerConfig, split: str, first: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path)
    for replaced in ("download", "_check_integrity", "_load_meta"):  # torchvision's own reading stays
        monkeypatch.setattr(torchvision.datasets.CIFAR10, replaced, lambda self: True)
    monkeypatch.setattr(torchvision.datasets, "SVHN", StandInSVHN)
    sampler = build(config, tmp_path, COLOUR, split)
    assert (sampler.images.dtype, sampler.size, sampler.classes) == (torch.uint8, count, 10)
    assert torch.equal(sampler.images, torch.from_numpy(colour_pixels(first, count)))
    assert sampler.images.is_contiguous()
    batch = sampler.draw(count, seed=0, step=0)
    number = ((batch.samples[:, 2, 0, 0] + 1) * 127.5).round().long()
    assert sorted(number.tolist()) == list(range(first, first + count))
    assert torch.equal(batch.labels, number % 10)
    assert batch.labels.dtype == torch.int64


# --- augmented images -------------------------------------------------------------------------------------

MIRRORED = AugmentConfig(mirrored=True)
ALL = AugmentConfig(mirrored=True, hidden=7, shifted=2)


@pytest.fixture
def leaning() -> InMemory:
    """400 images, grey on the left and white on the right: image i has the label i mod 10."""
    images = torch.full((400, 1, 4, 4), 255, dtype=torch.uint8)
    images[..., 0] = torch.linspace(0, 254, 400).round().to(torch.uint8)[:, None, None]
    return InMemory(images, torch.arange(400) % 10, classes=10, device=CPU)


def test_half_of_the_images_are_mirrored_and_all_stay_who_they_are(leaning: InMemory) -> None:
    plain, drawn = (sampler.draw(400, seed=3, step=2) for sampler in (leaning, Augmented(leaning, MIRRORED)))
    turned = (drawn.samples[:, 0, 0, 0] == 1) & (plain.samples[:, 0, 0, 0] < 1)
    assert abs(turned.float().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(400)
    assert torch.equal(drawn.samples[turned], plain.samples[turned].flip(3))
    assert torch.equal(drawn.samples[~turned], plain.samples[~turned])
    assert torch.equal(drawn.labels, plain.labels)
    again = [Augmented(leaning, MIRRORED).draw(400, seed=3, step=step).samples for step in (2, 2, 4)]
    assert torch.equal(again[0], again[1]) and not torch.equal(again[0], again[2])


def test_images_asked_for_by_label_are_mirrored_too(leaning: InMemory) -> None:
    labels = torch.arange(100) % 10
    plain, drawn = (s.of_labels(labels, seed=3, step=2) for s in (leaning, Augmented(leaning, MIRRORED)))
    turned = (drawn.samples != plain.samples).flatten(1).any(dim=1)
    assert 20 < turned.sum() < 80 and torch.equal(drawn.labels, labels)
    assert torch.equal(drawn.samples[turned], plain.samples[turned].flip(3))


def g() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_shift_moves_each_image_whole_by_a_few_pixels_of_its_own() -> None:
    x = torch.full((500, 1, 16, 16), -1.0)
    x[:, :, 8, 8] = 1.0
    moved = augmented(x, AugmentConfig(shifted=2), g())
    assert ((moved == 1).sum(dim=(1, 2, 3)) == 1).all()
    places = (moved[:, 0] == 1).nonzero()[:, 1:]
    assert len(places.unique(dim=0)) == 25 and (places - 8).abs().max() == 2


@pytest.mark.parametrize("side", [7, 4])
def test_a_square_is_hidden_somewhere_on_each(side: int) -> None:
    areas = (augmented(torch.full((4000, 1, 16, 16), 0.5), AugmentConfig(hidden=side), g()) == -1).float()
    assert areas.sum(dim=(1, 2, 3)).max() == side**2
    assert areas.sum(dim=(1, 2, 3)).min() == math.ceil(side / 2) ** 2  # cut where its middle is at the corner
    middle = areas.mean(dim=0)[0, side:-side, side:-side]  # all of these are equally often hidden
    torch.testing.assert_close(middle, torch.full_like(middle, side**2 / 16**2), atol=0.04, rtol=0)


def test_what_is_not_asked_for_is_not_done_and_all_of_it_is_done_together() -> None:
    x = torch.rand(200, 1, 16, 16, generator=g())
    assert augmented(x, AugmentConfig(), g()) is x
    changed = augmented(x, ALL, g())
    assert changed.shape == x.shape and (changed != x).flatten(1).any(dim=1).all()
    back = augmented(x.flip(3), ALL, g())  # the same numbers: mirrored where the other is not, the rest alike
    alike = (changed == -1) & (back == -1)
    assert torch.equal(changed == -1, alike) and not torch.equal(changed, back)


@pytest.mark.parametrize("wrong", [{"hidden": -1}, {"shifted": -1}, {"shifted": 17}])
def test_augmentations_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(wrong))}: found"):
        AugmentConfig(**wrong)


def test_only_training_images_are_augmented(tmp_path: Path) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    config = ImageFolderConfig(root=str(tmp_path), augment=ALL)
    built = build(config, tmp_path)
    assert isinstance(built, Augmented) and built.how == ALL
    assert not isinstance(build(config, tmp_path, split="test"), Augmented)
    assert not isinstance(build(replace(config, augment=AugmentConfig()), tmp_path), Augmented)


def test_of_given_pairs_both_are_augmented_alike(tiny: Callable[..., Config]) -> None:
    one, both = (
        {"source": FashionMnistConfig(augment=MIRRORED), "target": target}
        for target in (MnistConfig(), FashionMnistConfig(augment=MIRRORED))
    )
    with pytest.raises(UserError, match="coupling given: source and target are augmented differently"):
        tiny("fashion2mnist", coupling="given", **one)
    tiny("fashion2mnist", coupling="given", **both)
    tiny("fashion2mnist", coupling="independent", **one)
    tiny("denoise-mnist", target=FashionMnistConfig(augment=MIRRORED))  # whose source is made of the target


def test_given_pairs_are_changed_alike(leaning: InMemory) -> None:
    x0, x1 = given(Augmented(leaning, ALL), Augmented(leaning, ALL), 40, seed=0, step=3)
    assert torch.equal(x0.samples, x1.samples)


# --- source and target together -------------------------------------------------------------------------


def test_a_noisy_source_is_made_of_the_targets_own_images(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("denoise-mnist")
    source, target = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    assert isinstance(source, Noisy)
    assert source.clean is target  # held once
    assert source.sigma == 0.5
    alone = build_source(config, data_root=tmp_path, split="test", device=CPU)
    assert isinstance(alone, Noisy)
    assert torch.equal(alone.clean.images, build(config.target, tmp_path, split="test").images)


def test_noisy_is_refused_as_a_target(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("noise2mnist", target=NoisyConfig())
    for building in (build_samplers, build_source):
        asked = config if building is build_samplers else replace(config, source=NoisyConfig())
        with pytest.raises(UserError, match="noisy: found as a target") as told:
            building(asked, data_root=tmp_path, split="train", device=CPU)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "source, told",
    [(DrawnGarmentsConfig(count=20), "20 samples of drawn-garments"), (GaussianConfig(), ".* gaussian")],
)
def test_given_pairs_of_data_sets_of_different_sizes_are_refused(
    source: SamplerConfig, told: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("fashion2mnist-published", source=source, coupling="given")
    with pytest.raises(UserError, match=f"^coupling given: found {told} and 64 of drawn-digits"):
        build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    build_samplers(replace(config, coupling="independent"), data_root=tmp_path, split="train", device=CPU)


def test_classes_that_the_target_does_not_have_are_refused(tiny: Callable[..., Config], tmp_path: Path) -> None:
    for config in (tiny("noise2mnist-cfg", classes=7), tiny("noise2mnist-cfg", target=GaussianConfig())):
        with pytest.raises(UserError, match=r" classes, the pipeline has (7|10)$"):
            build_samplers(config, data_root=tmp_path, split="train", device=CPU)


def test_given_pairs_are_the_same_items_of_both(numbered: InMemory, clean: InMemory) -> None:
    mirrored = InMemory(200 - numbered.images, numbered.labels, classes=10, device=CPU)
    for step in range(4):  # 28 of 10 images: across the epochs
        x0, x1 = given(mirrored, numbered, 7, seed=1, step=step)
        torch.testing.assert_close(x0.samples + x1.samples, torch.full_like(x0.samples, 200 / 127.5 - 2))
        assert torch.equal(x0.labels, x1.labels)
    x0, x1 = given(Noisy(clean, 0.01), clean, 400, seed=1, step=0)
    assert (x0.samples - x1.samples).abs().max() < 2 * 0.01 * 6
    assert torch.equal(x0.labels, x1.labels)


def test_independent_pairs_are_not(clean: InMemory) -> None:
    x0, x1 = independent(clean, clean, 400, seed=1, step=0)
    greys = torch.stack([x0.samples[:, 0, 0, 0], x1.samples[:, 0, 0, 0]])
    assert abs(torch.corrcoef(greys)[0, 1]) < 5 / math.sqrt(400)
    assert (greys[0] == greys[1]).sum() < 10  # one is expected
    assert abs((x0.labels == x1.labels).float().mean().item() - 0.1) < 0.1


def test_the_coupling_asked_for_makes_the_pairs(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """For a denoiser, the target is what the source was before noise: both couplings, on noise of strength 0."""
    for coupling in ("given", "independent"):
        config = tiny("denoise-mnist", source=NoisyConfig(sigma=0.0), coupling=coupling)
        source, target = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
        pairs = draw_pairs(config, source, target, 32, seed=0, step=1)
        assert torch.equal(pairs.x0, pairs.x1) == (coupling == "given")


# --- the global batch of a step -------------------------------------------------------------------------


def toy_pairs(
    count: int, *, seed: int = 0, step: int = 0, classes: int = 2, dropout: float = 0.1, path: str = "linear"
) -> Pairs:
    config = Config(
        name="toy",
        summary="Gaussian to two moons",
        source=GaussianConfig(),
        target=MoonsConfig(noise=0),
        model=MLPConfig(),
        shape=(2,),
        classes=classes,
        path=path,
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
        model=MLPConfig(),
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
