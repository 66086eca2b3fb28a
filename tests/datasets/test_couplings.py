"""The couplings: datasets/couplings.py."""

import math
from collections import Counter
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor

from flowferry.configs.components import AugmentConfig, GaussianConfig, MoonsConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.couplings import ambiguity, best_permutation, given, independent
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.pixels import to_images
from flowferry.datasets.toy import Gaussian, Moons
from flowferry.datasets.wrappers import Augmented, Noisy
from flowferry.pipelines.inspect_pairs import duplicates, transport_cost
from sample_data import CPU, bytes_of, label_in, labeled_images, paired


def normal_values(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def sorted_rows(samples: Tensor) -> Tensor:
    rows = bytes_of(samples).flatten(1)
    return rows[(rows * torch.tensor([256**3, 256**2, 256, 1])).sum(1).argsort()]


# --- independent and given ----------------------------------------------------------------------------------


def test_given_pairs_are_the_same_items_of_both(numbered: InMemory, clean: InMemory) -> None:
    mirrored = InMemory(200 - numbered.images, numbered.labels, num_classes=10, device=CPU)
    for step in range(4):  # 28 of 10 images: across the epochs
        x0, x1 = given(mirrored, numbered, 7, seed=1, step=step)
        torch.testing.assert_close(x0.samples + x1.samples, torch.full_like(x0.samples, 200 / 127.5 - 2))
        assert torch.equal(x0.labels, x1.labels)
    x0, x1 = given(Noisy(clean, 0.01), clean, 400, seed=1, step=0)
    assert (x0.samples - x1.samples).abs().max() < 2 * 0.01 * 6
    assert torch.equal(x0.labels, x1.labels)


def test_independent_pairs_are_not(clean: InMemory) -> None:
    x0, x1 = independent(clean, clean, 400, seed=1, step=0)
    grays = torch.stack([x0.samples[:, 0, 0, 0], x1.samples[:, 0, 0, 0]])
    assert abs(torch.corrcoef(grays)[0, 1]) < 5 / math.sqrt(400)
    assert (grays[0] == grays[1]).sum() < 10  # one is expected
    assert abs((x0.labels == x1.labels).float().mean().item() - 0.1) < 0.1


# --- transport ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_is_cheaper(seed: int) -> None:
    x0, x1 = normal_values(6, 2, 2, seed=seed), normal_values(6, 2, 2, seed=seed + 100)
    order = best_permutation(x0, x1)
    assert sorted(order.tolist()) == list(range(6))
    costs = [(x1[list(p)] - x0).square().sum().item() for p in permutations(range(6))]
    assert (x1[order] - x0).square().sum().item() == pytest.approx(min(costs))


def test_on_a_line_the_order_is_kept() -> None:
    """In one dimension the monotone map is the optimal one (Santambrogio 2015, theorem 2.9)."""
    x0, x1 = normal_values(200, 1), 3 * normal_values(200, 1, seed=1) + 5
    order = best_permutation(x0, x1)
    assert torch.equal(x1[order][x0[:, 0].argsort(), 0], x1[:, 0].sort().values)


@pytest.mark.parametrize("name", ["ot", "label-ot", "label"])
def test_the_labels_stay_with_their_images_and_no_image_comes_twice(name: str) -> None:
    source, target = labeled_images(300, 3, shuffle=0), labeled_images(300, 3, shuffle=1)
    for batch in paired(name, source, target):
        assert batch.labels is not None
        assert torch.equal(label_in(batch.samples), batch.labels)
        assert duplicates(batch.samples) == 0


def test_transport_permutes_what_independent_draws() -> None:
    source, target = labeled_images(300, 3, shuffle=0), labeled_images(300, 3, shuffle=1)
    (x0, x1), (a, b) = paired("ot", source, target), paired("independent", source, target)
    assert torch.equal(x0.samples, a.samples)
    assert torch.equal(sorted_rows(x1.samples), sorted_rows(b.samples))
    assert transport_cost((x0, x1)) < 0.8 * transport_cost((a, b))


def test_transport_of_content_finds_the_same_subject_in_another_style() -> None:
    """Disks of random color and place, as the target paler, blurred with noise, and before a gradient."""
    g = torch.Generator().manual_seed(0)
    grid = torch.linspace(-1, 1, 32)
    place = 1.2 * torch.rand(60, 2, 1, 1, generator=g) - 0.6
    blob = ((grid[:, None] - place[:, :1]) ** 2 + (grid - place[:, 1:]) ** 2 < 0.15).float()
    color = torch.rand(60, 3, 1, 1, generator=g)
    noise = 0.2 * torch.rand(60, 3, 32, 32, generator=g)
    images = [blob * color, 0.3 * blob * color + noise + 0.2 * (grid + 1)]
    source, target = (InMemory((255 * side).byte(), torch.arange(60), num_classes=60, device=CPU) for side in images)
    x0, x1 = paired("content-ot", source, target, 60)
    assert (x0.labels == x1.labels).double().mean() > 0.9
    x0, x1 = paired("independent", source, target, 60)
    assert (x0.labels == x1.labels).double().mean() < 0.2
    (x0, x1), (y0, y1) = (paired("content-ot", source, target, 60, step=step) for step in (0, 0))
    assert torch.equal(x0.samples, y0.samples) and torch.equal(x1.samples, y1.samples)


def disks_and_noise() -> tuple[InMemory, InMemory]:
    """Return two sets of 60 images, of which 30 are disks that are in both; the others are noise."""
    g = torch.Generator().manual_seed(0)
    grid = torch.linspace(-1, 1, 32)
    place = 1.2 * torch.rand(30, 2, 1, 1, generator=g) - 0.6
    disk = ((grid[:, None] - place[:, :1]) ** 2 + (grid - place[:, 1:]) ** 2 < 0.15).float()
    disk = disk * torch.rand(30, 3, 1, 1, generator=g)
    images = [torch.cat([disk, torch.rand(30, 3, 32, 32, generator=g)]) for _ in range(2)]
    source, target = (InMemory((255 * side).byte(), torch.arange(60), num_classes=60, device=CPU) for side in images)
    return source, target


def test_transport_of_content_leaves_out_what_has_no_partner() -> None:
    """The disks have one; any noise is as near to any other noise."""
    x0, x1 = paired("content-ot", *disks_and_noise(), 60)
    assert x0.labels is not None and x1.labels is not None
    assert torch.equal(x0.labels, x1.labels)
    assert sorted(x0.labels.tolist()) == sorted([*range(30)] * 2)


def test_partners_by_content_are_augmented_alike_after_they_have_met() -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 16, 16), generator=g).byte()
    plain = InMemory(images, torch.arange(40), num_classes=40, device=CPU)
    changed = Augmented(plain, AugmentConfig(mirrored=True, shifted=3))
    for step in range(2):
        (x0, x1), (y0, _) = (paired("content-ot", side, side, 40, step=step) for side in (changed, plain))
        assert x0.labels is not None and torch.equal(x0.labels, x1.labels)  # the same image is its own partner
        assert (x1.samples - x0.samples).abs().mean() < 0.1  # it is registered, which moves next to nothing here
        assert torch.equal(x0.labels, y0.labels) and not torch.equal(x0.samples, y0.samples)


def test_partners_by_content_are_moved_onto_each_other() -> None:
    """Patchworks, each two pixels up or down from where its partner has it."""
    source = torch.rand(32, 3, 4, 4, generator=torch.Generator().manual_seed(0)).mul(255).byte()
    source = source.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    target = torch.stack([image.roll(2 if index % 2 else -2, dims=1) for index, image in enumerate(source)])
    sides = [InMemory(side, torch.arange(32), num_classes=32, device=CPU) for side in (source, target)]
    x0, x1 = paired("content-ot", *sides, 32)
    assert x0.labels is not None and x1.labels is not None
    assert (x0.labels == x1.labels).double().mean() > 0.9
    apart = (to_images(target[x1.labels]) - x0.samples).square().mean()
    assert (x1.samples - x0.samples).square().mean() < 0.5 * apart


def test_a_pair_is_ambiguous_where_another_is_as_near_to_either_of_the_two() -> None:
    cost = torch.tensor([[1.0, 4.0, 9.0], [2.0, 3.0, 8.0], [5.0, 6.0, 7.0]])
    expected = [1 / 2, 3 / 2, 7 / 5]  # next best: of column 0, of row 1, of row 2
    each = torch.arange(3)
    assert ambiguity(cost, each, each, each).tolist() == pytest.approx(expected)
    swapped = cost[:, [1, 0, 2]]
    assert ambiguity(swapped, torch.tensor([1, 0, 2]), each, each).tolist() == pytest.approx(expected)


def test_a_copy_of_either_of_a_pair_does_not_make_it_ambiguous() -> None:
    cost = torch.rand(20, 20, generator=torch.Generator().manual_seed(0))
    each, partner = torch.arange(20), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    once = ambiguity(cost, partner, each, each)
    rows, columns = torch.arange(60) % 20, torch.arange(60) // 3  # three times each, in two orders
    repeated = ambiguity(cost[rows][:, columns], 3 * partner[rows] + torch.arange(60) // 20, rows, columns)
    assert torch.equal(repeated, once[rows])
    alone = torch.zeros(4, dtype=torch.long)
    assert ambiguity(torch.ones(4, 4), torch.arange(4), alone, alone).tolist() == [0, 0, 0, 0]


def test_transport_of_content_keeps_the_same_pairs_of_a_pool_that_has_each_image_four_times() -> None:
    """As where a folder has fewer images than the pool: 30 disks that are in both, and 30 images of noise in each."""
    source, target = disks_and_noise()
    once, often = (paired("content-ot", source, target, count, step=0) for count in (60, 240))
    kept = [Counter(zip(x0.labels.tolist(), x1.labels.tolist(), strict=True)) for x0, x1 in (once, often)]
    assert kept[0] == Counter({(disk, disk): 2 for disk in range(30)})
    assert kept[1] == Counter({pair: 4 * count for pair, count in kept[0].items()})


def test_transport_of_content_needs_images() -> None:
    gaussian = Gaussian(GaussianConfig(), (2,), CPU)
    with pytest.raises(UserError, match=r"^coupling content-ot: got samples of shape \(2,\), expected images$"):
        paired("content-ot", gaussian, gaussian)


# --- labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["label", "label-ot"])
def test_pairs_agree_in_their_labels(name: str) -> None:
    x0, x1 = paired(name, labeled_images(300, 3, shuffle=0), labeled_images(300, 3, shuffle=1))
    assert torch.equal(label_in(x0.samples), label_in(x1.samples))


def test_by_label_takes_other_samples_at_each_step_and_seed() -> None:
    """Of about 20 in 100 of each of three classes, two draws share 12, give or take less than 3: hypergeometric."""
    source, target = labeled_images(300, 3, shuffle=0), labeled_images(300, 3, shuffle=1)
    drawn = [paired("label", source, target, seed=seed, step=step)[1] for seed in (1, 2) for step in (0, 1)]
    which = [bytes_of(x1.samples)[:, 0].flatten(1) @ torch.tensor([0, 1, 256, 0]) for x1 in drawn]
    for one, other in combinations(which, 2):
        assert torch.isin(one, other).sum() < 12 + 5 * 3


def test_by_label_takes_any_sample_of_the_class() -> None:
    """Over many steps every target sample comes, each about as often, and none depends on its partner's number."""
    source, target = labeled_images(30, 3, shuffle=0), labeled_images(30, 3, shuffle=1)
    seen = torch.cat([bytes_of(paired("label", source, target, 30, step=s)[1].samples)[:, 0, 0, 1] for s in range(200)])
    counts = torch.bincount(seen, minlength=30)
    assert (counts == 200).all()  # 10 of a class in each epoch of the source, of 10 that there are
    numbers_ = [
        torch.stack([bytes_of(b.samples)[:, 0, 0, 1] for b in paired("label", source, target, 30, step=s)])
        for s in range(200)
    ]
    same = torch.cat(numbers_, dim=1).diff(dim=0).eq(0).double().mean()
    assert abs(same - 0.1) < 0.02


def test_transport_within_labels_is_the_best_within_each() -> None:
    source, target = labeled_images(300, 3, shuffle=0), labeled_images(300, 3, shuffle=1)
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
    with pytest.raises(UserError, match=f"^coupling {name}: got .*, expected .*") as refused:
        paired(name, gaussian, gaussian)
    assert "\n" not in str(refused.value)
