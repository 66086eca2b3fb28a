"""Metrics against closed forms and other people's code."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import entropy as kullback_leibler
from torch import Tensor

from flowferry.pipelines.evaluation.metrics import (
    closeness,
    closeness_of_each,
    embed,
    entropy,
    frechet,
    kernel,
    memorization_rate,
    mutual_information,
    nearest,
    neighborhoods,
    perceptual,
    radii,
    retrieval,
)


def numbers(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_of_two_gaussians_is_the_closed_form() -> None:
    """‖m‖² + D(1 − s)² between N(0, I) and N(m, s² I)."""
    m, s, width = 0.5, 2.0, 4
    found = frechet(numbers(40_000, width), m + s * numbers(40_000, width, seed=1))
    assert found == pytest.approx(width * m**2 + width * (1 - s) ** 2, rel=0.03)


def test_frechet_is_the_formula_of_means_and_covariances() -> None:
    a, b = numbers(50, 5), numbers(60, 5, seed=1) @ numbers(5, 5, seed=2) + 1
    root = sqrtm(np.cov(a.T.numpy()) @ np.cov(b.T.numpy()))
    wanted = (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real)
    assert frechet(a, b) == pytest.approx(wanted, rel=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=1e-8)


def test_kernel_is_the_unbiased_estimate() -> None:
    a, b = numbers(30, 3), numbers(30, 3, seed=1) + 0.5

    def k(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    n, pairs = 30, [(i, j) for i in range(30) for j in range(30)]
    within = sum(k(s[i], s[j]) for s in (a, b) for i, j in pairs if i != j) / (n * (n - 1))
    across = sum(k(a[i], b[j]) for i, j in pairs) / n**2
    assert kernel(a, b) == pytest.approx(within - 2 * across, rel=1e-4)


def test_kernel_is_the_same_twice_and_leaves_the_callers_generator() -> None:
    a, b = numbers(1500, 3).float(), numbers(1200, 3, seed=1).float()
    before = torch.get_rng_state()
    assert kernel(a, b) == kernel(a, b)
    assert torch.equal(torch.get_rng_state(), before)


def test_neighborhoods_on_a_line_counted_by_hand() -> None:
    """Real 0, 1, 2, 10 with k = 1: balls of radius 1, 1, 1, 8. Generated 0.5 and 30: balls of radius 29.5."""
    real, fake = (torch.tensor(x)[:, None] for x in ([0.0, 1.0, 2.0, 10.0], [0.5, 30.0]))
    assert radii(real, 1).tolist() == [1, 1, 1, 8]
    found = neighborhoods(real, fake, k=1)
    assert found.precision == 1 / 2
    assert found.recall == 1
    assert found.density == (2 + 0) / 2  # 0.5 lies in the balls of 0 and 1; 2.5 − 10 is more than 8
    assert found.coverage == 2 / 4


def test_of_two_sets_that_are_alike_the_expectations_are_the_papers() -> None:
    real, fake = numbers(2000, 4), numbers(2000, 4, seed=1)
    found = neighborhoods(real, fake)
    assert found.density == pytest.approx(1, abs=0.1)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)  # Naeem et al. 2020, section 3.3.2


def test_one_image_again_and_again_looks_real_and_covers_nothing() -> None:
    real = numbers(500, 4)
    found = neighborhoods(real, real[:1].repeat(500, 1) + 1e-3 * numbers(500, 4, seed=1))
    assert found.precision == 1 and found.coverage < 0.1 and found.recall < 0.1


def test_the_nearest_is_found_in_parts() -> None:
    samples, among = numbers(1203, 3), numbers(700, 3, seed=1)
    distance, index = nearest(samples, among)
    whole = torch.cdist(samples, among).min(dim=1)
    torch.testing.assert_close(distance, whole.values)
    assert torch.equal(index, whole.indices)
    assert nearest(among, among, exclude_self=True)[0].min() > 0


def test_the_memorization_rate_is_1_for_copies_and_0_for_strangers() -> None:
    train = numbers(300, 8).reshape(300, 1, 2, 4)
    assert memorization_rate(train[:50] + 1e-3, train) == 1
    assert memorization_rate(train[:50] + 100, train) == 0


def test_the_memorization_rate_of_new_samples_of_the_same_kind_is_between() -> None:
    assert 0.2 < memorization_rate(numbers(500, 2, seed=1), numbers(500, 2)) < 0.8


def test_entropy_of_all_alike_and_of_one() -> None:
    assert entropy(torch.full((10,), 7)) == pytest.approx(math.log(10))
    assert entropy(torch.tensor([5, 0, 0])) == 0


def test_mutual_information_is_the_divergence_from_independence() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randint(5, (300,), generator=g)
    b = torch.where(torch.rand(300, generator=g) < 0.5, a, torch.randint(7, (300,), generator=g))
    joint = np.histogram2d(a.numpy(), b.numpy(), bins=(range(6), range(8)))[0]
    apart = np.outer(joint.sum(1), joint.sum(0))
    assert mutual_information(a, b) == pytest.approx(kullback_leibler(joint.ravel(), apart.ravel()))
    assert mutual_information(a, a) == pytest.approx(entropy(torch.bincount(a)))
    assert mutual_information(a, torch.zeros_like(a)) == pytest.approx(0, abs=1e-12)


# --- how close images are to the true ones --------------------------------------------------------------


def test_closeness_of_equal_and_of_shifted_images_is_as_its_formulas_say() -> None:
    images = torch.empty(3, 3, 16, 20).uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(0))
    assert closeness(images, images) == (pytest.approx(100), pytest.approx(1), 0)
    for step in (0.02, 0.4):  # in [-1, 1], where white is 2 above black
        psnr, ssim, l1 = closeness(images + step, images)
        assert psnr == pytest.approx(20 * math.log10(2 / step), abs=1e-3)
        assert l1 == pytest.approx(255 * step / 2, rel=1e-4)
        assert ssim < 1
    both = closeness(torch.cat([images + 0.02, images + 0.4]), torch.cat([images, images])).psnr
    assert both == pytest.approx(20 * math.log10(2 / 0.02) / 2 + 20 * math.log10(2 / 0.4) / 2, abs=1e-3)  # over images


def test_structural_similarity_is_that_of_its_paper() -> None:
    """Wang et al. 2004, eq. 13, in a window of 11×11 pixels (σ = 1.5) around each pixel; borders are mirrored."""
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 12, 14))
    pixels[1] = 0.7 * pixels[0] + 0.3 * pixels[1]
    along = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    weight = np.outer(along, along) / along.sum() ** 2
    x, y = np.lib.stride_tricks.sliding_window_view(
        np.pad(pixels, ((0, 0), (5, 5), (5, 5)), "reflect"), (11, 11), (1, 2)
    )

    def mean(values: np.ndarray) -> np.ndarray:
        return (values * weight).sum(axis=(-2, -1))

    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    covariance = mean(x * y) - mean(x) * mean(y)
    luminance = (2 * mean(x) * mean(y) + c1) / (mean(x) ** 2 + mean(y) ** 2 + c1)
    expected = (luminance * (2 * covariance + c2) / (variances + c2)).mean()
    images = torch.from_numpy(pixels).float()[:, None, None]
    assert closeness(*images).ssim == pytest.approx(expected, abs=1e-4)
    assert 0.5 < expected < 0.95


# --- images beside their own truth ------------------------------------------------------------------------


def test_the_closeness_of_a_set_is_the_mean_of_each_image() -> None:
    x, y = (torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in (0, 1))
    each = closeness_of_each(x, y)
    assert all(values.shape == (5,) for values in each)
    for row in range(5):
        alone = closeness(x[row : row + 1], y[row : row + 1])
        assert alone == pytest.approx([values[row].item() for values in each], rel=1e-5)
    assert closeness(x, y) == pytest.approx([values.mean().item() for values in each])


def test_the_perceptual_distance_is_that_of_directions() -> None:
    """Of two channels at 2 × 2 places: b has the directions of a, c the opposite one at a place, d others at all."""
    a = torch.tensor([1.0, 0.0])[None, :, None, None].expand(3, 2, 2, 2)
    b = 7 * a
    c = a.clone()
    c[:, :, 0, 0] *= -1
    d = torch.tensor([0.0, 2.0])[None, :, None, None].expand(3, 2, 2, 2)
    assert torch.equal(perceptual(lambda x: [x], a, b), torch.zeros(3))
    assert perceptual(lambda x: [x], a, c).tolist() == [1, 1, 1]  # (2² + 0 + 0 + 0) / 4
    assert perceptual(lambda x: [x], a, d).tolist() == [2, 2, 2]
    assert perceptual(lambda x: [x, x.abs()], a, c).tolist() == [0.5, 0.5, 0.5]


def test_a_sample_counts_as_found_where_its_own_is_the_nearest() -> None:
    among = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    assert retrieval(torch.tensor([[0.4], [1.6], [1.9]]), among) == 2 / 3
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = embed(lambda x: [x, x[:, :, ::2, ::2]], images)
    assert found.shape == (6, 2 * 3 * 4 * 4)
    assert retrieval(embed(lambda x: [x, x[:, :, ::2, ::2]], 3 * images), found) == 1
