"""Classes that are asked for by name or number: configs/labels.py."""

from dataclasses import replace

import pytest

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.labels import parse_labels
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError


def of_classes(*names: str) -> Config:
    return replace(PIPELINES["noise2mnist-cfg"], target=ImageFolderConfig(classes=names), num_classes=len(names))


ANIMALS = of_classes("cat", "dog", "fox", "größe")
NUMBERS = of_classes("1", "2", "3", "10")


@pytest.mark.parametrize(
    ("config", "text", "labels"),
    [
        (PIPELINES["noise2mnist-cfg"], "7", [7]),
        (PIPELINES["noise2mnist-cfg"], "0-9", list(range(10))),
        (PIPELINES["noise2mnist-cfg"], "1,3,5-7,1", [1, 3, 5, 6, 7, 1]),
        (ANIMALS, "cat", [0]),
        (ANIMALS, "fox,cat", [2, 0]),
        (ANIMALS, "dog-größe", [1, 2, 3]),
        (ANIMALS, "fox,0-1,3", [2, 0, 1, 3]),
        (ANIMALS, "gro\u0308ße", [3]),
        (NUMBERS, "3", [2]),  # the name, not the number
        (NUMBERS, "1-3,10", [0, 1, 2, 3]),
        (NUMBERS, "0", [0]),  # no name, so the number
        (of_classes("t-shirt", "boot", "a,b"), "t-shirt,boot", [0, 1]),
        (of_classes("t-shirt", "boot", "a,b"), "t-shirt-boot", [0, 1]),
        (of_classes("t-shirt", "boot", "a,b"), "a,b", [2]),
    ],
)
def test_a_class_is_asked_for_by_its_name_or_its_number(config: Config, text: str, labels: list[int]) -> None:
    assert parse_labels(text, config) == labels


@pytest.mark.parametrize(
    "text", ["", "4", "-1", "cow", "cat,cow", "cat,", "3-0", "fox-cat", "0-9", "1-2-3", "1.0", "Cat"]
)
def test_what_is_no_class_is_refused_with_the_names(text: str) -> None:
    with pytest.raises(UserError) as told:
        parse_labels(text, ANIMALS)
    expected = r"numbers from 0 to 3 such as 7, 0-9 or 1,3,5, or the names cat, dog, fox, größe = 'gr\xf6\xdfe'"
    assert str(told.value) == f"--labels: got {text!r}, expected {expected}"


def test_a_pipeline_without_classes_is_asked_for_none() -> None:
    config = replace(ANIMALS, num_classes=0)
    with pytest.raises(UserError, match=r"got 'cat', expected none, because noise2mnist-cfg has no classes$"):
        parse_labels("cat", config)
