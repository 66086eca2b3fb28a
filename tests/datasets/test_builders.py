"""Build the source and target of a configuration: datasets/builders.py."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowferry.configs.components import (
    AugmentConfig,
    GaussianConfig,
    GaussianRingConfig,
    ImageFolderConfig,
    MoonsConfig,
    NoisyConfig,
    SamplerConfig,
    SyntheticColorsConfig,
    SyntheticDigitsConfig,
    SyntheticGarmentsConfig,
)
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_samplers, build_source
from flowferry.datasets.wrappers import Augmented, Noisy
from sample_data import COLOR, CPU, IMAGE, build

# --- a source or target by itself --------------------------------------------------------------------------


def test_synthetic_train_and_test_images_differ(tmp_path: Path) -> None:
    train, test = (build(SyntheticDigitsConfig(count=20), tmp_path, split=split) for split in ("train", "test"))
    assert train.shape == IMAGE
    assert not torch.equal(train.images, test.images)


@pytest.mark.parametrize(
    "config, given, shape",
    [
        (MoonsConfig(), (2,), IMAGE),
        (GaussianRingConfig(), (2,), (3,)),
        (SyntheticDigitsConfig(count=1), IMAGE, (3, 28, 28)),
    ],
)
def test_a_sampler_of_another_shape_is_refused(
    config: SamplerConfig, given: tuple[int, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    message = f"{config.kind}: got samples of shape {given}, expected the pipeline's {shape}"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        build(config, tmp_path, shape)


def test_synthetic_colors_have_the_shape_of_the_color_data_sets(tmp_path: Path) -> None:
    train, test = (build(SyntheticColorsConfig(count=20), tmp_path, COLOR, split) for split in ("train", "test"))
    assert (train.shape, train.size, train.num_classes) == (COLOR, 20, 10)
    assert not torch.equal(train.images, test.images)


def test_only_training_images_are_augmented(tmp_path: Path) -> None:
    every_change = AugmentConfig(mirrored=True, cutout=7, shifted=2)
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    config = ImageFolderConfig(root=str(tmp_path), augment=every_change)
    built = build(config, tmp_path)
    assert isinstance(built, Augmented) and built.options == every_change
    assert not isinstance(build(config, tmp_path, split="test"), Augmented)
    assert not isinstance(build(replace(config, augment=AugmentConfig()), tmp_path), Augmented)


# --- source and target together -----------------------------------------------------------------------------


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
    message = "noisy: got a target, expected a source, because it is made of the target's images"
    for building in (build_samplers, build_source):
        asked = config if building is build_samplers else replace(config, source=NoisyConfig())
        with pytest.raises(UserError, match=f"^{message}$") as refused:
            building(asked, data_root=tmp_path, split="train", device=CPU)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "source, got",
    [
        (SyntheticGarmentsConfig(count=20), "20 samples of synthetic-garments"),
        (GaussianConfig(), "endless samples of gaussian"),
    ],
)
def test_given_pairs_of_data_sets_of_different_sizes_are_refused(
    source: SamplerConfig, got: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("fashion2mnist-published", source=source, coupling="given")
    message = f"coupling given: got {got} and 64 of synthetic-digits, expected as many of both"
    with pytest.raises(UserError, match=f"^{message}$"):
        build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    build_samplers(replace(config, coupling="independent"), data_root=tmp_path, split="train", device=CPU)


def test_classes_that_the_target_does_not_have_are_refused(tiny: Callable[..., Config], tmp_path: Path) -> None:
    for config, message in (
        (tiny("noise2mnist-cfg", num_classes=7), "synthetic-digits: got 10 classes, expected 7"),
        (tiny("noise2mnist-cfg", target=GaussianConfig()), "gaussian: got 0 classes, expected 10"),
    ):
        with pytest.raises(UserError, match=f"^{message}$"):
            build_samplers(config, data_root=tmp_path, split="train", device=CPU)
