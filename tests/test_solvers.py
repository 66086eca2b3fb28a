"""Laws of the solvers: pipelines/solvers.py."""

import math

import pytest
import torch
from torch import Tensor

from pipelines.paths import PATHS, Path
from pipelines.solvers import ODES, SOLVERS, Noise, Solver, Velocity, time_grid, trajectory

ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
each_ode_solver = pytest.mark.parametrize("solver", ODES.values(), ids=ODES.keys())
CPU = torch.device("cpu")


def no_noise(x: Tensor) -> Tensor:
    raise AssertionError("a solver of an ODE asked for noise")


def walk(solver: Solver, v: Velocity, x: Tensor, grid: Tensor, noise: Noise = no_noise) -> list[Tensor]:
    return list(trajectory(solver.step(PATHS["cosine"], noise), v, x, grid))


def end(solver: Solver, v: Velocity, x: Tensor, grid: Tensor) -> Tensor:
    return walk(solver, v, x, grid)[-1]


def test_ancestral_alone_adds_noise() -> None:
    assert SOLVERS.keys() - ODES.keys() == {"ancestral"}


@pytest.mark.parametrize("name", ODES)
def test_halving_the_step_divides_the_error_by_two_to_the_order(name: str) -> None:
    # dx/dt = x²·cos t is solved by x(t) = 1 / (1/x(0) − sin t).
    x0 = torch.tensor([0.3, 0.5, -0.8], dtype=torch.float64)
    exact = 1 / (1 / x0 - math.sin(1))

    def error(steps: int) -> float:
        grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return (end(ODES[name], lambda x, t: x**2 * t.cos(), x0, grid) - exact).norm().item()

    assert math.log2(error(32) / error(64)) == pytest.approx(ORDER[name], abs=0.2)


@each_solver
@pytest.mark.parametrize("steps", [1, 7])
def test_the_declared_evaluations_are_the_counted_ones(solver: Solver, steps: int) -> None:
    times: list[float] = []

    def v(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.item())
        return x

    walk(solver, v, torch.ones(2), time_grid(steps, device=CPU), noise=torch.randn_like)
    assert len(times) == solver.evaluations * steps
    assert 0 <= min(times) <= max(times) <= 1 + 1e-6


def gaussian_velocity(path: Path, m: Tensor, s: float) -> Velocity:
    """v(x, t) = E[dx_t/dt | x_t = x] for independent x0 ~ N(0, I) and x1 ~ N(m, s²·I).

    (dx_t/dt, x_t) are jointly normal with means β'm and βm, Var x_t = α² + β²s² and
    Cov(dx_t/dt, x_t) = αα' + ββ's², so v = β'm + Cov/Var·(x − βm). With σ² = Var x_t, Cov = σσ', and
    x = βm + σ·x0 solves dx/dt = v: the samples end at m + s·x0.
    """

    def v(x: Tensor, t: Tensor) -> Tensor:
        a, b, da, db = path.alpha(t), path.beta(t), path.dalpha(t), path.dbeta(t)
        return db * m + (a * da + b * db * s**2) / (a**2 + b**2 * s**2) * (x - b * m)

    return v


@pytest.mark.parametrize("path", ["linear", "cosine"])  # ddpm does not start at its source: see test_ddpm.py
@pytest.mark.parametrize("solver", ["heun", "midpoint", "rk4"])
def test_one_gaussian_is_carried_to_another_by_the_exact_map_and_back(path: str, solver: str) -> None:
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(500, 2, generator=g, dtype=torch.float64)
    m, s = torch.tensor([1.5, -2.0], dtype=torch.float64), 0.5
    v = gaussian_velocity(PATHS[path], m, s)
    forth, back = (time_grid(200, device=CPU, reverse=reverse).double() for reverse in (False, True))
    x1 = end(SOLVERS[solver], v, x0, forth)
    torch.testing.assert_close(x1, m + s * x0, rtol=0, atol=1e-3)
    torch.testing.assert_close(end(SOLVERS[solver], v, x1, back), x0, rtol=0, atol=1e-3)


@each_ode_solver
def test_a_trajectory_is_the_start_and_a_point_for_each_step_of_any_grid(solver: Solver) -> None:
    x, speed = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])
    grid = torch.tensor([0.0, 0.1, 0.5, 1.0])
    points = walk(solver, lambda x, t: speed, x, grid)
    assert points[0] is x
    torch.testing.assert_close(torch.stack(points), x + grid[:, None] * speed)


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_time_grid_has_a_point_more_than_steps_from_end_to_end(steps: int) -> None:
    forth, back = (time_grid(steps, device=CPU, reverse=reverse) for reverse in (False, True))
    assert (len(forth), forth[0], forth[-1]) == (steps + 1, 0, 1)
    torch.testing.assert_close(forth.diff(), torch.full((steps,), 1 / steps))
    torch.testing.assert_close(back, forth.flip(0))
    assert (back[0], back[-1]) == (1, 0)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_the_grid_is_a_power_of_the_uniform_one_and_the_same_points_back(power: float) -> None:
    grid = time_grid(8, power=power, device=torch.device("cpu"))
    assert grid.tolist() == pytest.approx([(k / 8) ** power for k in range(9)])
    back = time_grid(8, power=power, device=torch.device("cpu"), reverse=True)
    torch.testing.assert_close(back, grid.flip(0))
