"""Images that are decoded batch by batch: datasets/streaming.py."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from flowferry.configs.components import ImageFolderConfig
from flowferry.datasets import streaming
from flowferry.datasets.couplings import given
from flowferry.datasets.image_folder import image_folder
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.streaming import STREAMS, ImageFiles, Streamed
from flowferry.datasets.wrappers import Noisy
from sample_data import CPU
from tiny_runs import wait_for

COUNT = 7  # images in a batch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of 40 images, of which 36 are trained on."""
    for index in range(40):
        Image.new("RGB", (8, 8), (0, index, 0)).save(tmp_path / f"{index:03d}.png")
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images were decoded so far "here", in the test's own thread, and "ahead"."""
    counts: Counter[str] = Counter()
    load = ImageFiles.load

    def counted(*arguments: object) -> Tensor | str:
        counts["here" if threading.current_thread() is threading.main_thread() else "ahead"] += 1
        return load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageFiles, "load", counted)
    return counts


def in_memory(root: Path) -> InMemory:
    return image_folder(ImageFolderConfig(root=str(root)), (3, 8, 8), "train", CPU)  # type: ignore[return-value]


def streamed(root: Path) -> Streamed:
    sampler = image_folder(ImageFolderConfig(root=str(root), cache_mb=0), (3, 8, 8), "train", CPU)
    assert isinstance(sampler, Streamed)
    return sampler


def drawn(sampler: InMemory | Streamed, seed: int, step: int) -> Tensor:
    return sampler.draw(COUNT, seed=seed, step=step).samples


def test_streams_that_are_drawn_in_turn_are_what_each_is_alone_and_decoded_ahead(
    root: Path, decoded: Counter[str]
) -> None:
    """As a critic draws from the target beside the pairs."""
    alone, in_turn = in_memory(root), streamed(root)
    decoded.clear()
    for step in range(3, 12):  # 36 images: across the epochs
        for seed in (1, 2):
            assert torch.equal(drawn(in_turn, seed, step), drawn(alone, seed, step))
    assert decoded["here"] == 2 * COUNT, "the first batch of each"
    again = [drawn(in_turn, 1, step) for step in (20, 21, 22)]  # one leaps, the other goes on
    assert torch.equal(torch.cat(again), torch.cat([drawn(alone, 1, step) for step in (20, 21, 22)]))
    assert torch.equal(drawn(in_turn, 2, 12), drawn(alone, 2, 12))
    assert decoded["here"] == 3 * COUNT


def test_what_a_noisy_source_and_its_target_both_draw_is_decoded_once(root: Path, decoded: Counter[str]) -> None:
    target, alone = streamed(root), in_memory(root)
    decoded.clear()
    for step in range(5):
        x0, x1 = given(Noisy(target, 0.001), target, COUNT, 0, step)
        drawn(target, 2, step)  # by a critic
        expected = given(alone, alone, COUNT, 0, step)[1]
        assert torch.equal(x1.samples, expected.samples) and 0 < (x0.samples - x1.samples).abs().max() < 0.02
    assert decoded["here"] == 2 * COUNT
    assert decoded["ahead"] <= 2 * (4 + 2) * COUNT, "two batches ahead"


def test_a_batch_that_is_drawn_again_is_not_what_was_made_of_it(root: Path) -> None:
    sampler = streamed(root)
    first = drawn(sampler, 1, 0)
    kept = first.clone()
    first.zero_()
    assert torch.equal(drawn(sampler, 1, 0), kept)


@pytest.fixture
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[threading.Thread]]:
    """Let a stream be decoded by one thread. Yields the threads that there were before."""
    monkeypatch.setattr(streaming, "THREADS", 1)
    yield set(threading.enumerate())


def test_few_streams_are_decoded_ahead_and_the_one_drawn_longest_ago_is_forgotten(
    root: Path, decoded: Counter[str], one_thread_each: set[threading.Thread]
) -> None:
    sampler, alone = streamed(root), in_memory(root)
    decoded.clear()
    seeds = range(STREAMS + 2)
    for seed in seeds:
        for step in (0, 1):
            drawn(sampler, seed, step)

    def at_work() -> int:
        return sum(one.name.startswith("look-ahead") for one in set(threading.enumerate()) - one_thread_each)

    wait_for(lambda: at_work() <= STREAMS, "the end of the threads of streams that are forgotten", 10)
    assert at_work() == STREAMS
    assert decoded["here"] == len(seeds) * COUNT
    for seed in reversed(seeds):  # the latest go on; the first two begin again
        assert torch.equal(drawn(sampler, seed, 2), drawn(alone, seed, 2))
    assert decoded["here"] == (len(seeds) + 2) * COUNT
