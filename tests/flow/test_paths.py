"""Laws of the paths: pipelines/flow/paths.py."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flowferry.pipelines.flow.paths import PATHS, Path, diffusion

each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
each_shape = pytest.mark.parametrize("shape", [(2,), (3, 5, 4)], ids=str)

LEVELS = {"linear": None, "cosine": None, "ddpm": 300}
# Between two levels of the path ddpm: at a level, its velocity jumps.
SMOOTH = (torch.linspace(15, 284, 9, dtype=torch.float64).round() + 0.5) / 300

# Variance of x_t for independent x0, x1 ~ N(0, 1).
VARIANCE = {"linear": lambda t: 1 - 2 * t * (1 - t), "cosine": lambda t: 1.0}


def pair(count: int, shape: tuple[int, ...], device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x0, x1 = torch.randn(2, count, *shape, generator=g, dtype=torch.float64).to(device)
    return x0, x1


def test_the_paths_and_their_levels_are_these() -> None:
    assert {name: path.levels for name, path in PATHS.items()} == LEVELS


def test_training_sees_the_whole_path_or_all_levels_but_the_clean_image() -> None:
    assert {name: path.max_time for name, path in PATHS.items()} == {"linear": 1, "cosine": 1, "ddpm": 299 / 300}


class Copies(TorchDispatchMode):
    """Counts what is copied from one device to another, which a GPU makes the host wait for."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.found += func.name() == "aten::_to_copy" and (kwargs or {}).get("device") is not None
        return func(*args, **(kwargs or {}))


def test_the_table_of_a_path_is_copied_to_a_device_once() -> None:
    path = diffusion(torch.linspace(1e-4, 0.02, 10, dtype=torch.float64))
    t = torch.rand(3, device="meta")  # stands in for a GPU
    for wanted in (1, 0):
        with Copies() as copies:
            for function in (path.alpha, path.beta, path.dalpha, path.dbeta):
                function(t)
        assert copies.found == wanted


@each_path
def test_a_path_ends_at_the_target(path: Path, device: torch.device) -> None:
    x0, x1 = pair(2, (3,), device)
    end = torch.ones(2, dtype=torch.float64, device=device)
    torch.testing.assert_close(path.alpha(end), torch.zeros_like(end), rtol=0, atol=1e-15)
    torch.testing.assert_close(path.beta(end), end, rtol=0, atol=1e-15)
    torch.testing.assert_close(path.interpolate(x0, x1, end), x1, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in PATHS if name != "ddpm"])  # which keeps something of the image
def test_a_path_starts_at_the_source(name: str, device: torch.device) -> None:
    path, (x0, x1) = PATHS[name], pair(2, (3,), device)
    start = torch.zeros(2, dtype=torch.float64, device=device)
    assert torch.equal(path.alpha(start), torch.ones_like(start))
    assert torch.equal(path.beta(start), start)
    assert torch.equal(path.interpolate(x0, x1, start), x0)


@each_path
@each_shape
def test_the_velocity_is_the_derivative_of_the_interpolation(
    path: Path, shape: tuple[int, ...], device: torch.device
) -> None:
    (x0, x1), t, h = pair(9, shape, device), SMOOTH.to(device), 1e-6
    slope = (path.interpolate(x0, x1, t + h) - path.interpolate(x0, x1, t - h)) / (2 * h)
    torch.testing.assert_close(path.velocity(x0, x1, t), slope, rtol=1e-8, atol=1e-8)


def test_the_linear_path_has_the_velocity_x1_minus_x0(device: torch.device) -> None:
    x0, x1 = pair(9, (2,), device)
    t = torch.rand(9, dtype=torch.float64, device=device)
    torch.testing.assert_close(PATHS["linear"].velocity(x0, x1, t), x1 - x0)


@pytest.mark.parametrize("name", ["cosine", "ddpm"])
def test_a_variance_preserving_path_preserves_the_sum_of_squares(name: str, device: torch.device) -> None:
    path, t = PATHS[name], torch.linspace(0, 1, 333, dtype=torch.float64, device=device)
    torch.testing.assert_close(path.alpha(t) ** 2 + path.beta(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", VARIANCE)
@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_the_variance_between_unit_gaussians_has_its_closed_form(name: str, t: float, device: torch.device) -> None:
    count = 100_000
    x0, x1 = pair(count, (1,), device)
    xt = PATHS[name].interpolate(x0, x1, torch.full((count,), t, dtype=torch.float64, device=device))
    expected = VARIANCE[name](t)
    # The standard error of the variance of n normal numbers is σ²·√(2/n).
    assert abs(xt.var().item() - expected) < 5 * expected * math.sqrt(2 / count)


def test_the_linear_path_loses_half_of_the_variance_halfway_and_no_more(device: torch.device) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64, device=device)
    variance = PATHS["linear"].alpha(t) ** 2 + PATHS["linear"].beta(t) ** 2
    assert variance.min().item() == pytest.approx(0.5)
    assert t[variance.argmin()].item() == pytest.approx(0.5)


@each_path
@each_shape
def test_each_sample_of_a_batch_has_its_own_time(path: Path, shape: tuple[int, ...], device: torch.device) -> None:
    count = shape[0]  # as many samples as the next axis is long: times put on a wrong axis would not raise
    (x0, x1), t = pair(count, shape, device), torch.linspace(0.1, 0.8, count, dtype=torch.float64, device=device)
    for function in (path.interpolate, path.velocity, lambda *of: torch.cat(path.endpoints(*of), dim=-1)):
        one_by_one = [function(x0[i : i + 1], x1[i : i + 1], t[i : i + 1]) for i in range(count)]
        torch.testing.assert_close(function(x0, x1, t), torch.cat(one_by_one))


@each_path
@each_shape
def test_the_ends_are_recovered_from_a_point_and_its_velocity(
    path: Path, shape: tuple[int, ...], device: torch.device
) -> None:
    x0, x1 = pair(9, shape, device)
    t = torch.linspace(0, 0.99, 9, dtype=torch.float64, device=device)  # at t = 1 ddpm's v is infinite
    found = path.endpoints(path.interpolate(x0, x1, t), path.velocity(x0, x1, t), t)
    torch.testing.assert_close(found, (x0, x1), rtol=0, atol=1e-12)
