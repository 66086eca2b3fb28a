"""Laws of the couplings: pipelines/couplings.py, and how training takes its batches out of them."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.checks import UserError
from configs.parts import DrawnDigitsConfig, DrawnGarmentsConfig, GaussianConfig, MoonsConfig
from configs.schema import Config
from datasets import Sampler, build_samplers
from datasets.sampler import InMemory
from datasets.toys import Gaussian, Moons
from pipelines.batches import draw_pairs
from pipelines.couplings import COUPLINGS, Pairing, best_permutation
from pipelines.pairing import duplicates, facts, inspect, transport_cost

CPU = torch.device("cpu")


def numbers(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def numbered(count: int, classes: int, *, shuffle: int) -> InMemory:
    """Images that tell who they are: the first pixel is the label, the second and third the number."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(shuffle))
    labels = order % classes
    images = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1], images[:, 0, 1, 0] = labels, order % 256, order // 256
    return InMemory(images, labels, classes=classes, device=CPU)


def bytes_of(samples: Tensor) -> Tensor:
    return ((samples + 1) * 127.5).round().long()


def label_in(samples: Tensor) -> Tensor:
    return bytes_of(samples)[:, 0, 0, 0]


def sorted_rows(samples: Tensor) -> Tensor:
    rows = bytes_of(samples).flatten(1)
    return rows[(rows * torch.tensor([256**3, 256**2, 256, 1])).sum(1).argsort()]


def paired(name: str, source: Sampler, target: Sampler, count: int = 60, *, seed: int = 1, step: int = 2) -> Pairing:
    return COUPLINGS[name](source, target, count, seed, step)


# --- transport --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_is_cheaper(seed: int) -> None:
    x0, x1 = numbers(6, 2, 2, seed=seed), numbers(6, 2, 2, seed=seed + 100)
    order = best_permutation(x0, x1)
    assert sorted(order.tolist()) == list(range(6))
    costs = [(x1[list(p)] - x0).square().sum().item() for p in permutations(range(6))]
    assert (x1[order] - x0).square().sum().item() == pytest.approx(min(costs))


def test_on_a_line_the_order_is_kept() -> None:
    """In one dimension the monotone map is the optimal one (Santambrogio 2015, theorem 2.9)."""
    x0, x1 = numbers(200, 1), 3 * numbers(200, 1, seed=1) + 5
    order = best_permutation(x0, x1)
    assert torch.equal(x1[order][x0[:, 0].argsort(), 0], x1[:, 0].sort().values)


@pytest.mark.parametrize("name", ["ot", "label-ot", "label"])
def test_the_labels_stay_with_their_images_and_no_image_comes_twice(name: str) -> None:
    source, target = numbered(300, 3, shuffle=0), numbered(300, 3, shuffle=1)
    for batch in paired(name, source, target):
        assert batch.labels is not None
        assert torch.equal(label_in(batch.samples), batch.labels)
        assert duplicates(batch.samples) == 0


def test_transport_permutes_what_independent_draws() -> None:
    source, target = numbered(300, 3, shuffle=0), numbered(300, 3, shuffle=1)
    (x0, x1), (a, b) = paired("ot", source, target), paired("independent", source, target)
    assert torch.equal(x0.samples, a.samples)
    assert torch.equal(sorted_rows(x1.samples), sorted_rows(b.samples))
    assert transport_cost((x0, x1)) < 0.8 * transport_cost((a, b))


# --- labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["label", "label-ot"])
def test_pairs_agree_in_their_labels(name: str) -> None:
    x0, x1 = paired(name, numbered(300, 3, shuffle=0), numbered(300, 3, shuffle=1))
    assert torch.equal(label_in(x0.samples), label_in(x1.samples))


def test_by_label_takes_any_sample_of_the_class() -> None:
    """Over many steps every target sample comes, each about as often, and none depends on its partner's number."""
    source, target = numbered(30, 3, shuffle=0), numbered(30, 3, shuffle=1)
    seen = torch.cat([bytes_of(paired("label", source, target, 30, step=s)[1].samples)[:, 0, 0, 1] for s in range(200)])
    counts = torch.bincount(seen, minlength=30)
    assert (counts == 200).all()  # 10 of a class in each epoch of the source, of 10 that there are
    numbers_ = [
        torch.stack([bytes_of(b.samples)[:, 0, 0, 1] for b in paired("label", source, target, 30, step=s)])
        for s in range(200)
    ]
    same = torch.cat(numbers_, dim=1).diff(dim=0).eq(0).double().mean()
    assert abs(same - 0.1) < 0.02


def test_more_of_a_class_than_there_are_come_again() -> None:
    target = numbered(6, 3, shuffle=0)
    wanted = torch.zeros(5, dtype=torch.long)
    drawn = target.of_labels(wanted, seed=0, step=0)
    assert torch.equal(label_in(drawn.samples), wanted)
    assert duplicates(drawn.samples) == 3
    with pytest.raises(UserError, match="label 7"):
        target.of_labels(wanted + 7, seed=0, step=0)


def test_transport_within_labels_is_the_best_within_each() -> None:
    source, target = numbered(300, 3, shuffle=0), numbered(300, 3, shuffle=1)
    x0, x1 = paired("label-ot", source, target)
    for label in range(3):
        rows = label_in(x0.samples) == label
        a, b = x0.samples[rows], x1.samples[rows]
        assert torch.equal(b[best_permutation(a, b)], b)


def test_to_labels_from_noise_the_noise_of_each_class_is_still_noise() -> None:
    """Label-blind transport gives each moon the noise that lies on its side, which sampling by label does not have."""
    source, target = Gaussian(GaussianConfig(), (2,), CPU), Moons(MoonsConfig(), CPU)
    means = {}
    for name in ("ot", "label-ot"):
        x0, x1 = paired(name, source, target, 800)
        assert x1.labels is not None
        means[name] = [x0.samples[x1.labels == label].mean(0) for label in (0, 1)]
        assert transport_cost((x0, x1)) < transport_cost(paired("independent", source, target, 800))
    assert all(mean.abs().max() < 5 / 400**0.5 for mean in means["label-ot"])
    assert (means["ot"][0] - means["ot"][1]).norm() > 0.5


@pytest.mark.parametrize("name", ["label", "label-ot"])
def test_data_without_labels_is_refused_in_one_line(name: str) -> None:
    gaussian = Gaussian(GaussianConfig(), (1, 2, 2), CPU)
    with pytest.raises(UserError, match=f"coupling {name}: found .*accepted") as refused:
        paired(name, gaussian, gaussian)
    assert "\n" not in str(refused.value)


# --- what training sees -----------------------------------------------------------------------------------


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


def test_times_are_the_power_of_uniform_ones(garments: Config, tmp_path: Path) -> None:
    source, target = samplers(garments, tmp_path)
    t, u = (
        draw_pairs(
            replace(garments, train=replace(garments.train, time_power=power)), source, target, 64, seed=5, step=1
        ).t
        for power in (2.0, 1.0)
    )
    torch.testing.assert_close(t, u**2)


# --- train --inspect --------------------------------------------------------------------------------------


def test_inspect_tells_what_is_paired_and_draws_it(
    garments: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = samplers(garments, tmp_path)
    count = 3 * garments.train.batch_size
    pairing = COUPLINGS["ot"](source, target, count, garments.seed, 0)
    told = facts(garments, pairing, source, target)
    assert f"{transport_cost(pairing):.4f}" in told["mean ‖x1 − x0‖², by element"]
    assert "to 1.000" in told["values of the source"]
    assert inspect(garments, tmp_path, data_root=tmp_path) == 0
    printed = capsys.readouterr().out
    assert all(value in printed for value in told.values())
    assert (tmp_path / "samples" / "pairs.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["samples"]


def test_inspect_counts_agreement_and_duplicates(tiny: Callable[..., Config]) -> None:
    config = tiny("fashion2mnist", coupling="label")
    assert (config.source, config.target) == (DrawnGarmentsConfig(count=64), DrawnDigitsConfig(count=64))
    source, target = numbered(6, 3, shuffle=0), numbered(6, 3, shuffle=1)
    told = facts(config, paired("label", source, target, 12), source, target)
    assert told["pairs that agree in their labels"] == "100.0%"
    assert told["duplicates"] == "6 in the source, 6 in the target"
