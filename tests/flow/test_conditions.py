"""What a network is told besides x_t and t: pipelines/flow/conditions.py."""

import pytest
import torch
from torch import Tensor

from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition

CLASSES = 10
PARTS = [(True, True), (True, False), (False, True), (False, False)]
each_parts = pytest.mark.parametrize(
    "label, image", PARTS, ids=["label and image", "label alone", "image alone", "nothing"]
)


def condition(label: bool, image: bool, device: torch.device, start: int = 0, count: int = 5) -> Condition:
    """Return the condition of samples number start … start + count − 1, with the parts that are asked for."""
    numbers = torch.arange(start, start + count, device=device)
    pictures = numbers[:, None, None, None] + torch.zeros(1, 2, 3, device=device)
    return Condition(numbers % CLASSES if label else None, pictures if image else None, CLASSES if label else 0)


def assert_same(a: Condition, b: Condition) -> None:
    assert a.num_classes == b.num_classes
    for first, second in ((a.label, b.label), (a.image, b.image)):
        assert (first is None) == (second is None)
        if first is not None:
            assert torch.equal(first, second) and first.dtype == second.dtype


@each_parts
@pytest.mark.parametrize("rows", [slice(1, 3), slice(0, 5), slice(3, 99), slice(2, 2)], ids=str)
def test_rows_are_those_of_each_part(rows: slice, label: bool, image: bool, device: torch.device) -> None:
    start, stop, _ = rows.indices(5)
    whole = condition(label, image, device)
    assert_same(whole.rows(rows), condition(label, image, device, start, stop - start))
    assert_same(whole, condition(label, image, device))  # which stays whole


@each_parts
def test_one_followed_by_another_is_the_condition_of_both(label: bool, image: bool, device: torch.device) -> None:
    first, second = condition(label, image, device, 0, 2), condition(label, image, device, 2, 3)
    both = first.followed_by(second)
    assert_same(both, condition(label, image, device))
    assert_same(both.rows(slice(0, 2)), first)
    assert_same(both.rows(slice(2, 5)), second)


@each_parts
def test_the_unconditional_one_forgets_the_labels_and_keeps_the_rest(
    label: bool, image: bool, device: torch.device
) -> None:
    told = condition(label, image, device)
    unconditional = told.unconditional()
    null = torch.full((5,), CLASSES, device=device) if label else None
    assert_same(unconditional, told._replace(label=null))
    assert unconditional.image is told.image  # not a copy
    assert_same(told, condition(label, image, device))  # which still knows them
    assert_same(unconditional.unconditional(), unconditional)


def test_no_condition_tells_nothing() -> None:
    parts: tuple[Tensor | None, Tensor | None, int] = (None, None, 0)
    assert tuple(NO_CONDITION) == parts
    assert Condition() == NO_CONDITION
    assert NO_CONDITION.unconditional() == NO_CONDITION.rows(slice(0, 3)) == NO_CONDITION.followed_by(NO_CONDITION)
    assert NO_CONDITION.unconditional() == NO_CONDITION
