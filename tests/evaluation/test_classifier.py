"""The classifiers that judge images, on synthetic digits."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowferry.configs.components import (
    AugmentConfig,
    FashionMnistConfig,
    GaussianConfig,
    ImageFolderConfig,
    MnistConfig,
    MoonsConfig,
    SamplerConfig,
    SyntheticColorsConfig,
    SyntheticDigitsConfig,
)
from flowferry.configs.locations import FEATURES
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import Split, build_sampler
from flowferry.models.classifier import Classifier, accuracy, extract
from flowferry.pipelines.evaluation import classifier
from flowferry.pipelines.evaluation.classifier import TrainedClassifier, file_name, train_classifier, trained_classifier

CPU = torch.device("cpu")
SHAPE = (1, 28, 28)
SYNTHETIC = SyntheticDigitsConfig(count=64)


def sampler(config: SamplerConfig, split: Split = "train", shape: tuple[int, ...] = SHAPE) -> Sampler:
    return build_sampler(config, shape, data_root=Path("data"), split=split, device=CPU)


def trained(folder: Path, config: SamplerConfig = SYNTHETIC, shape: tuple[int, ...] = SHAPE) -> TrainedClassifier:
    return trained_classifier(config, shape, num_classes=10, data_root=Path("data"), folder=folder, device=CPU)


def images(count: int, *shape: int) -> Tensor:
    return torch.empty(count, *(shape or SHAPE)).uniform_(-1, 1, generator=torch.Generator().manual_seed(1))


def the_file(folder: Path) -> Path:
    (file,) = folder.iterdir()  # and nothing half-written beside it
    return file


barely = partial(train_classifier, epochs=1)  # for those of which a file is looked at, not what they have learned


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the classifier of 64 synthetic digits."""
    folder = tmp_path_factory.mktemp("classifiers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "train_classifier", barely)
        trained(folder)
    return folder


@pytest.fixture
def untrainable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "train_classifier", None)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a classifier as it is before training, where learning is not what is tested."""

    def make(train: Sampler, *, augmentation: AugmentConfig) -> Classifier:
        return Classifier(channels=train.shape[0], num_classes=train.num_classes).eval()

    monkeypatch.setattr(classifier, "train_classifier", make)


@pytest.mark.usefixtures("untrained")
def test_each_folder_of_images_has_a_classifier_of_its_own(tmp_path: Path) -> None:
    for name, classes in (("animals", 3), ("tools", 2)):
        for label in range(classes):
            folder = tmp_path / name / f"class-{label}"
            folder.mkdir(parents=True)
            for number in range(20):
                Image.new("L", (28, 28), 20 * label + number).save(folder / f"{number}.png")
    kept = tmp_path / "classifiers"
    found = {}
    for name, classes in (("animals", 3), ("tools", 2)):
        config = ImageFolderConfig(root=str(tmp_path / name))
        place: Any = {"data_root": tmp_path, "folder": kept, "device": CPU}
        judge = trained_classifier(config, SHAPE, num_classes=classes, **place)
        assert judge.classifier.head.out_features == classes
        found[name] = judge.sha256
        again = replace(config, augment=AugmentConfig(mirrored=True), cache_mb=1)  # the same images
        assert trained_classifier(again, SHAPE, num_classes=classes, **place).sha256 == found[name]
        with pytest.raises(UserError, match=f"got {classes} classes, expected the 4 of image-folder"):
            trained_classifier(config, SHAPE, num_classes=4, **place)
    assert len(list(kept.iterdir())) == 2
    assert file_name(config, SHAPE) != file_name(replace(config, resize="stretch"), SHAPE)
    first, second = (replace(config, classes=(f"class-{label}", f"class-{1 - label}")) for label in (0, 1))
    assert file_name(first, SHAPE) == file_name(config, SHAPE), "alphabetical, as those of before"
    assert file_name(second, SHAPE) != file_name(config, SHAPE), "its labels are others"


# --- learning -------------------------------------------------------------------------------------------


def test_it_names_synthetic_digits_that_it_has_not_seen() -> None:
    model = train_classifier(sampler(SyntheticDigitsConfig(count=1024)), epochs=12)
    held_out, labels = sampler(SyntheticDigitsConfig(count=500), "test").draw(500, seed=0, step=0)
    assert labels is not None
    assert accuracy(model, held_out, labels) > 0.9


def test_the_same_seed_gives_the_same_classifier_and_leaves_the_callers_generator_alone() -> None:
    digits = sampler(SYNTHETIC)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train_classifier(digits, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)  # of no consequence
    again, other = train_classifier(digits, epochs=1), train_classifier(digits, seed=1, epochs=1)
    x = images(2)
    assert torch.equal(first(x), again(x))
    assert not torch.allclose(first(x), other(x))


@pytest.mark.parametrize("config, shape", [(GaussianConfig(), SHAPE), (MoonsConfig(), (2,))])
def test_samples_that_are_not_labeled_images_are_refused_in_one_line_and_nothing_is_kept(
    config: SamplerConfig, shape: tuple[int, ...], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="expected labeled images") as refused:
        trained(tmp_path, config, shape)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


# --- judging --------------------------------------------------------------------------------------------


class Corner(nn.Module):
    """Takes an image for the class that its first pixel says, in tenths."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot((10 * x[:, 0, 0, 0]).round().long(), 10).float()


@pytest.mark.parametrize("count", [1, 10, 1003])  # 1003: more than a batch, and no multiple of one
def test_accuracy_is_the_share_that_an_oracle_gets_right(count: int) -> None:
    shown = torch.arange(count) % 10
    x = (shown / 10)[:, None, None, None].expand(count, *SHAPE)
    asked = torch.where(torch.arange(count) % 3 == 0, shown, (shown + 1) % 10)
    assert accuracy(Corner(), x, asked) == pytest.approx(len(range(0, count, 3)) / count)  # type: ignore[arg-type]


def test_judging_changes_nothing_in_the_judge_and_does_not_depend_on_the_company() -> None:
    model = Classifier(channels=1, num_classes=10).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = images(5)
    accuracy(model, x, torch.arange(5))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())  # BatchNorm's too
    torch.testing.assert_close(torch.cat([model(one) for one in x.split(1)]), model(x))


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 17, 40)])
def test_any_size_from_16_on_gives_a_logit_for_each_class_from_less_than_a_megabyte(shape: tuple[int, ...]) -> None:
    model = Classifier(channels=shape[0], num_classes=7)
    assert model(images(2, *shape)).shape == (2, 7)
    features, probabilities = extract(model, images(2, *shape))
    assert features.shape == (2, 96)
    torch.testing.assert_close(probabilities, model.head(features).softmax(1))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2))


# --- kept in a file -------------------------------------------------------------------------------------


def test_it_is_trained_once_and_then_loaded_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "train_classifier", barely)
    with caplog.at_level(logging.INFO, logger="flowferry"):
        model, right, digest = trained(tmp_path)
    assert "training a classifier of synthetic-digits" in caplog.text and f"{100 * right:.2f} %" in caplog.text
    monkeypatch.setattr(classifier, "train_classifier", None)
    loaded, told, again = trained(tmp_path)
    x = images(3)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(loaded(x), model(x))
    assert told == right and not loaded.training
    assert digest == again == hashlib.sha256(the_file(tmp_path).read_bytes()).hexdigest()
    assert the_file(tmp_path).stat().st_size < 1_000_000


def test_the_file_says_what_it_is(kept: Path, untrainable: None) -> None:
    with safe_open(the_file(kept), "pt") as opened:
        told = opened.metadata()
    assert (told["shape"], told["num_classes"]) == ("[1, 28, 28]", "10")
    assert float(told["accuracy"]) == trained(kept).accuracy


def test_another_count_of_synthetic_images_is_another_file(tmp_path: Path, untrained: None) -> None:
    for count in (32, 64):
        trained(tmp_path, SyntheticDigitsConfig(count=count))
    assert len(list(tmp_path.iterdir())) == 2


def test_colors_have_a_classifier_of_three_channels(tmp_path: Path, untrained: None) -> None:
    model, *_ = trained(tmp_path, SyntheticColorsConfig(count=32), (3, 32, 32))
    assert model(images(2, 3, 32, 32)).shape == (2, 10)
    assert the_file(tmp_path).stat().st_size < 1_000_000


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def of_other_words(file: Path) -> None:
    file.write_text("no weights at all\n")


def without_metadata(file: Path) -> None:
    save_file(load_file(file), file)


def with_a_foreign_tensor(file: Path) -> None:
    with safe_open(file, "pt") as opened:
        told = opened.metadata()
    save_file({**load_file(file), "foreign": torch.zeros(1)}, file, metadata=told)


@pytest.mark.parametrize("spoil", [cut, of_other_words, without_metadata, with_a_foreign_tensor])
def test_a_broken_or_foreign_file_is_refused_by_name_and_left(
    spoil: Callable[[Path], None], kept: Path, tmp_path: Path, untrainable: None
) -> None:
    file = tmp_path / the_file(kept).name
    file.write_bytes(the_file(kept).read_bytes())
    spoil(file)
    spoilt = file.read_bytes()
    with pytest.raises(UserError, match=file.name) as refused:
        trained(tmp_path)
    assert "\n" not in str(refused.value)
    assert file.read_bytes() == spoilt


def test_a_classifier_of_other_channels_is_refused_by_name(kept: Path, untrainable: None, tmp_path: Path) -> None:
    file = tmp_path / "synthetic-colors-64-3x32x32.safetensors"
    file.write_bytes(the_file(kept).read_bytes())
    with pytest.raises(UserError, match=f"{file.name}.*got images of shape .*expected"):
        trained(tmp_path, SyntheticColorsConfig(count=64), (3, 32, 32))


# --- shipped ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config, right", [(MnistConfig(), 0.995), (FashionMnistConfig(), 0.93)])
def test_what_is_shipped_is_as_good_as_it_says_and_small(
    config: SamplerConfig, right: float, data_root: Path, tmp_path: Path, untrainable: None
) -> None:
    assert (FEATURES / file_name(config, SHAPE)).stat().st_size < 1_000_000
    judge = trained_classifier(config, SHAPE, num_classes=10, data_root=data_root, folder=tmp_path, device=CPU)
    test = build_sampler(config, SHAPE, data_root=data_root, split="test", device=CPU)
    x, labels = test.draw(10_000, seed=0, step=0)
    assert labels is not None
    assert accuracy(judge.classifier, x, labels) == pytest.approx(judge.accuracy, abs=3e-4)  # another machine rounds
    assert judge.accuracy >= right


def test_ones_own_classifier_comes_before_the_shipped_one(tmp_path: Path, untrainable: None) -> None:
    shipped = FEATURES / file_name(MnistConfig(), SHAPE)
    tensors = load_file(shipped)
    with safe_open(shipped, "pt") as opened:
        told = opened.metadata()
    tensors["head.bias"] += 1
    save_file(tensors, tmp_path / shipped.name, metadata=told)
    own, *_ = trained_classifier(
        MnistConfig(), SHAPE, num_classes=10, data_root=Path("data"), folder=tmp_path, device=CPU
    )
    assert torch.equal(own.head.bias, tensors["head.bias"].float())
