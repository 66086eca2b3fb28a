"""Images in memory: datasets/in_memory.py."""

import math
import re

import pytest
import torch
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.pixels import to_images
from sample_data import label_in, labeled_images

SIZE = 10


def numbers(samples: Tensor) -> Tensor:
    """Which of the numbered images these are."""
    return ((samples[:, 0, 0, 0] + 1) * 127.5 / 20).round().long()


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
    message = f"samples of given labels: got label 12, expected one of {list(range(10))}"
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        numbered.sample_by_label(torch.tensor([3, 12]), seed=0, step=0)
    assert "\n" not in str(refused.value)


def test_images_asked_for_by_label_are_a_function_of_seed_and_step() -> None:
    """Other 10 of the class's 100 each time: of two such draws, one is the same in 100^10 or so."""
    target, wanted = labeled_images(300, 3, shuffle=0), torch.ones(10, dtype=torch.long)
    draws = [target.sample_by_label(wanted, seed=seed, step=step).samples for seed in (0, 1) for step in (0, 1)]
    torch.manual_seed(99)
    assert torch.equal(target.sample_by_label(wanted, seed=1, step=0).samples, draws[2])
    assert len(torch.stack(draws).unique(dim=0)) == 4


def test_more_of_a_class_than_there_are_come_again() -> None:
    target = labeled_images(6, 3, shuffle=0)
    wanted = torch.zeros(5, dtype=torch.long)
    drawn = target.sample_by_label(wanted, seed=0, step=0)
    assert torch.equal(label_in(drawn.samples), wanted)
    assert len(drawn.samples.unique(dim=0)) == 2  # so three are duplicates
    with pytest.raises(UserError, match=re.escape("got label 7, expected one of [0, 1, 2]")):
        target.sample_by_label(wanted + 7, seed=0, step=0)


def test_images_are_kept_as_uint8_and_given_in_minus_1_to_1(numbered: InMemory) -> None:
    assert numbered.images.dtype == torch.uint8
    samples = numbered.draw(SIZE, seed=0, step=0).samples
    assert samples.dtype == torch.float32
    assert torch.equal(samples[numbers(samples).argsort()], to_images(numbered.images))
    assert (numbered.shape, numbered.size, numbered.num_classes) == ((1, 2, 2), SIZE, 10)
