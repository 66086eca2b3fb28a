"""What the tests share: one thread, tiny versions of the named pipelines, the folder of the real data."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from flowferry.configs.components import SyntheticColorsConfig, SyntheticDigitsConfig, SyntheticGarmentsConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.datasets import builders
from flowferry.datasets.synthetic import draw_digits, draw_garments
from flowferry.pipelines.evaluation.classifier import train_classifier
from flowferry.pipelines.training import teacher, validation

torch.set_num_threads(1)

SYNTHETIC = {
    "mnist": SyntheticDigitsConfig(count=64),
    "fashion-mnist": SyntheticGarmentsConfig(count=64),
    "cifar10": SyntheticColorsConfig(count=64),
    "svhn": SyntheticColorsConfig(count=64),
    "image-folder": SyntheticColorsConfig(count=64),
}

# The least of each network's own options that still leaves all of its parts, and of one pipeline's.
SMALL: dict[str, dict[str, Any]] = {
    "practical-unet": {"width": 4},
    "course-unet": {"width": 4},
    "attention-unet": {"widths": (16, 32, 64), "middle": 32},
    "patch-unet": {"widths": (8, 16), "blocks": (1, 1)},
    "mlp": {"width": 8},
    "folders": {"widths": (16, 32, 32, 32)},
}


# The files that take longest begin first, so that of several processes none has one of them left at the end.
LONGEST = "train packaging notebooks signals evaluate report environment launch small_machines alone translate".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of LONGEST first, in the order of their files there."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--device`, on which the numerical tests run."""
    parser.addoption("--device", default="cpu", help="the device of the numerical tests, such as cuda; default: cpu")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return the device of the numerical tests."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session", autouse=True)
def brief() -> Iterator[None]:
    """Make tiny runs cheaper: fewer held-out samples, classifiers that are trained less, images that are drawn once.

    The tests of these state the numbers that they are about.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kind, draw in (("synthetic-digits", draw_digits), ("synthetic-garments", draw_garments)):
            patch.setitem(builders.SAMPLERS, kind, partial(builders.from_drawing, cache(draw)))
        patch.setattr(validation, "HELD_OUT", 64)
        patch.setattr(teacher, "HELD_OUT", 64)
        patch.setitem(train_classifier.__kwdefaults__, "epochs", 7)  # enough for more than nine drawn images in ten
        yield


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """tiny(name, **changes): the named pipeline on 64 synthetic images with a network a few channels wide."""

    def make(name: str, **changes: Any) -> Config:
        config = PIPELINES[name]
        source, target = (SYNTHETIC.get(part.kind, part) for part in (config.source, config.target))
        model = replace(config.model, **{**SMALL[config.model.kind], **SMALL.get(name, {})})
        teacher = replace(config.teacher, pairs=64) if config.has_teacher else config.teacher
        return replace(config, **{"source": source, "target": target, "model": model, "teacher": teacher, **changes})

    return make


@pytest.fixture
def data_root() -> Path:
    """FLOWFERRY_DATA, where it holds the real MNIST and FashionMNIST; skips where it does not."""
    root = os.environ.get("FLOWFERRY_DATA")
    if root is None:
        pytest.skip("FLOWFERRY_DATA names no folder with the real data")
    if missing := [name for name in ("MNIST", "FashionMNIST") if not Path(root, name, "raw").is_dir()]:
        pytest.skip(f"no {missing[0]} in FLOWFERRY_DATA={root}")
    return Path(root)


@pytest.fixture
def another_precision() -> Iterator[None]:
    """Give the test a precision of its own: Accelerate has one in a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
