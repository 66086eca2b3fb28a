"""Laws of the paths: pipelines/paths.py."""

import math

import pytest
import torch

from pipelines.paths import PATHS, Path

each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
each_shape = pytest.mark.parametrize("shape", [(2,), (3, 5, 4)], ids=str)

# Variance of x_t for independent x0, x1 ~ N(0, 1).
VARIANCE = {"linear": lambda t: 1 - 2 * t * (1 - t), "cosine": lambda t: 1.0}


def pair(count: int, shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x0, x1 = torch.randn(2, count, *shape, generator=g, dtype=torch.float64)
    return x0, x1


@each_path
def test_a_path_starts_at_the_source_and_ends_at_the_target(path: Path) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(path.alpha(ends), torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(path.beta(ends), torch.tensor([0.0, 1.0], dtype=torch.float64))
    x0, x1 = pair(2, (3,))
    torch.testing.assert_close(path.interpolate(x0, x1, ends), torch.stack([x0[0], x1[1]]))


@each_path
@each_shape
def test_the_velocity_is_the_derivative_of_the_interpolation(path: Path, shape: tuple[int, ...]) -> None:
    x0, x1 = pair(9, shape)
    t, h = torch.linspace(0.05, 0.95, 9, dtype=torch.float64), 1e-5
    slope = (path.interpolate(x0, x1, t + h) - path.interpolate(x0, x1, t - h)) / (2 * h)
    torch.testing.assert_close(path.velocity(x0, x1, t), slope, rtol=1e-8, atol=1e-8)


def test_the_linear_path_has_the_velocity_x1_minus_x0() -> None:
    x0, x1 = pair(9, (2,))
    torch.testing.assert_close(PATHS["linear"].velocity(x0, x1, torch.rand(9, dtype=torch.float64)), x1 - x0)


def test_the_cosine_path_preserves_the_sum_of_squares() -> None:
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(PATHS["cosine"].alpha(t) ** 2 + PATHS["cosine"].beta(t) ** 2, torch.ones_like(t))


@pytest.mark.parametrize("name", VARIANCE)
@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_the_variance_between_unit_gaussians_has_its_closed_form(name: str, t: float) -> None:
    count = 100_000
    x0, x1 = pair(count, (1,))
    xt = PATHS[name].interpolate(x0, x1, torch.full((count,), t, dtype=torch.float64))
    expected = VARIANCE[name](t)
    # The standard error of the variance of n normal numbers is σ²·√(2/n).
    assert abs(xt.var().item() - expected) < 5 * expected * math.sqrt(2 / count)


def test_the_linear_path_loses_half_of_the_variance_halfway_and_no_more() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    variance = PATHS["linear"].alpha(t) ** 2 + PATHS["linear"].beta(t) ** 2
    assert variance.min().item() == pytest.approx(0.5)
    assert t[variance.argmin()].item() == pytest.approx(0.5)


@each_path
@each_shape
def test_each_sample_of_a_batch_has_its_own_time(path: Path, shape: tuple[int, ...]) -> None:
    count = shape[0]  # as many samples as the next axis is long: times put on a wrong axis would not raise
    (x0, x1), t = pair(count, shape), torch.linspace(0.1, 0.8, count, dtype=torch.float64)
    for function in (path.interpolate, path.velocity):
        one_by_one = [function(x0[i : i + 1], x1[i : i + 1], t[i : i + 1]) for i in range(count)]
        torch.testing.assert_close(function(x0, x1, t), torch.cat(one_by_one))
