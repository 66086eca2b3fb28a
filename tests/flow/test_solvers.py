"""Laws of the solvers: pipelines/flow/solvers.py."""

import math
import weakref
from typing import get_args

import pytest
import torch
from torch import Tensor

from flowferry.configs.recipe import OdeSolverName, SolverConfig, SolverName
from flowferry.pipelines.flow.paths import PATHS, Path
from flowferry.pipelines.flow.solvers import SOLVERS, Noise, Solver, Velocity, adams_bashforth, last, trajectory
from flowferry.pipelines.flow.times import time_grid

ODES = get_args(OdeSolverName)
ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "ab2": 2}
each_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())
each_ode_solver = pytest.mark.parametrize("solver", [SOLVERS[name] for name in ODES], ids=ODES)


def no_noise(x: Tensor) -> Tensor:
    raise AssertionError("a solver of an ODE asked for noise")


def walk(solver: Solver, v: Velocity, x: Tensor, grid: Tensor, noise: Noise = no_noise) -> list[Tensor]:
    return list(trajectory(solver.make_step(v, PATHS["cosine"], noise), x, grid))


def end(solver: Solver, v: Velocity, x: Tensor, grid: Tensor) -> Tensor:
    return walk(solver, v, x, grid)[-1]


def test_the_solvers_are_those_of_the_configuration() -> None:
    assert tuple(SOLVERS) == get_args(SolverName)
    assert {name: SOLVERS[name].nfe(10) for name in ODES} == {
        "euler": 10,
        "midpoint": 20,
        "heun": 19,
        "rk4": 37,
        "ab2": 10,
    }
    assert SOLVERS["map"].nfe(10) == SOLVERS["ddim"].nfe(10) == 10
    assert [name for name, solver in SOLVERS.items() if solver.two_times] == ["map"]


def test_ancestral_alone_adds_noise(device: torch.device) -> None:
    assert SOLVERS.keys() - set(ODES) == {"ddim", "ancestral", "map"}
    for name, solver in SOLVERS.items():
        asked: list[Tensor] = []

        def noise(x: Tensor, asked: list[Tensor] = asked) -> Tensor:
            asked.append(x)
            return torch.zeros_like(x)

        walk(solver, lambda x, t: -x, torch.ones(2, device=device), time_grid(3, device=device), noise)
        assert bool(asked) == (name == "ancestral") == SolverConfig(name=name).adds_noise


@pytest.mark.parametrize("name", ODES)
def test_halving_the_step_divides_the_error_by_two_to_the_order(name: str, device: torch.device) -> None:
    """On a grid that ends before t = 1, where some solvers take an Euler step, and that starts with short steps."""
    # dx/dt = x²·cos t is solved by x(t) = 1 / (1/x(0) − sin t).
    x0 = torch.tensor([0.3, 0.5, -0.8], dtype=torch.float64, device=device)
    exact = 1 / (1 / x0 - math.sin(0.9))

    def error(steps: int) -> float:
        grid = 0.9 * torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=device) ** 2
        return (end(SOLVERS[name], lambda x, t: x**2 * t.cos(), x0, grid) - exact).norm().item()

    assert math.log2(error(32) / error(64)) == pytest.approx(ORDER[name], abs=0.2)


@each_solver
@pytest.mark.parametrize("steps", [1, 7])
def test_the_declared_evaluations_are_the_counted_ones(solver: Solver, steps: int, device: torch.device) -> None:
    times: list[float] = []

    def v(x: Tensor, t: Tensor) -> Tensor:
        times.append(t.flatten()[0].item())
        return x

    walk(solver, v, torch.ones(2, device=device), time_grid(steps, device=device), noise=torch.randn_like)
    assert len(times) == solver.nfe(steps)
    assert 0 <= min(times) <= max(times) < 1  # networks are hardly trained at t = 1, or not at all


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
@pytest.mark.parametrize("solver", ["heun", "midpoint", "rk4", "ab2"])
def test_one_gaussian_is_carried_to_another_by_the_exact_map_and_back(
    path: str, solver: str, device: torch.device
) -> None:
    g = torch.Generator().manual_seed(0)
    x0 = torch.randn(500, 2, generator=g, dtype=torch.float64).to(device)
    m, s = torch.tensor([1.5, -2.0], dtype=torch.float64, device=device), 0.5
    v = gaussian_velocity(PATHS[path], m, s)
    forth, back = (time_grid(200, device=device, reverse=reverse).double() for reverse in (False, True))
    x1 = end(SOLVERS[solver], v, x0, forth)
    torch.testing.assert_close(x1, m + s * x0, rtol=0, atol=1e-3)
    torch.testing.assert_close(end(SOLVERS[solver], v, x1, back), x0, rtol=0, atol=1e-3)


@each_ode_solver
def test_a_trajectory_is_the_start_and_a_point_for_each_step_of_any_grid(solver: Solver, device: torch.device) -> None:
    x, speed = torch.tensor([1.0, -2.0], device=device), torch.tensor([3.0, 0.5], device=device)
    grid = torch.tensor([0.0, 0.1, 0.5, 1.0], device=device)
    points = walk(solver, lambda x, t: speed, x, grid)
    assert points[0] is x
    torch.testing.assert_close(torch.stack(points), x + grid[:, None] * speed)


def test_a_step_is_told_its_time_and_its_length_of_any_grid(device: torch.device) -> None:
    """Also of a falling grid, on which the length is negative."""
    for grid in ([0.0, 0.1, 0.5, 1.0], [1.0, 0.25, 0.0]):
        told: list[tuple[float, float]] = []

        def step(x: Tensor, t: Tensor, h: Tensor, told: list[tuple[float, float]] = told) -> Tensor:
            told.append((t.item(), h.item()))
            return x + h

        *_, x = trajectory(step, torch.zeros(2, device=device), torch.tensor(grid, device=device))
        assert [t for t, _ in told] == pytest.approx(grid[:-1])
        assert [t + h for t, h in told] == pytest.approx(grid[1:])
        assert x.tolist() == pytest.approx([grid[-1] - grid[0]] * 2)


@pytest.mark.parametrize("grid", [[0.0, 1.0], [0.0, 0.1, 0.5, 1.0], [0.2, 0.7]], ids=str)
def test_the_map_is_exact_for_steps_of_any_length(grid: list[float], device: torch.device) -> None:
    """Of dx/dt = x²·cos t, which leads from x at s to 1/(1/x + sin s − sin t) at t."""

    def flow(x: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        s, t = (torch.as_tensor(time, dtype=torch.float64, device=device) for time in (s, t))
        return 1 / (1 / x + s.sin() - t.sin())

    def mean_velocity(x: Tensor, t: Tensor) -> Tensor:
        start, end = t
        return (flow(x, start, end) - x) / (end - start)

    x = torch.tensor([0.3, 0.5, -0.8], dtype=torch.float64, device=device)
    points = walk(SOLVERS["map"], mean_velocity, x, torch.tensor(grid, dtype=torch.float64, device=device))
    for t, point in zip(grid, points, strict=True):
        torch.testing.assert_close(point, flow(x, grid[0], t), rtol=0, atol=1e-12)


def test_the_multistep_solver_forgets_what_was_before_a_jump(device: torch.device) -> None:
    """Along v = 2t from t = 0.5: with the step before it is exact, 0.75² − 0.5²; without, it is Euler's, 0.25·1."""
    zero, h = torch.zeros(1, dtype=torch.float64, device=device), torch.tensor(0.25, dtype=torch.float64, device=device)
    for start, expected in ((0.25, 0.3125), (0.0, 0.25)):
        step = SOLVERS["ab2"].make_step(lambda x, t: 2 * t + 0 * x, PATHS["linear"], no_noise)
        step(zero, torch.tensor(start, dtype=torch.float64, device=device), h)
        assert step(zero, torch.tensor(0.5, dtype=torch.float64, device=device), h).item() == pytest.approx(expected)


def test_the_multistep_solver_that_is_told_of_no_jump_compares_no_times(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where steps do follow one another, it takes the same."""

    def v(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(3 * x) - t

    x, grid = torch.tensor([0.3, -1.0], device=device), torch.linspace(0, 1, 5, device=device) ** 2
    found = list(trajectory(adams_bashforth(v), x, grid))
    assert not torch.allclose(found[-1], end(SOLVERS["euler"], v, x, grid), atol=1e-2)
    monkeypatch.setattr(torch, "allclose", None)
    told = list(trajectory(adams_bashforth(v, unbroken=True), x, grid))
    assert all(torch.equal(one, other) for one, other in zip(found, told, strict=True))


# --- DDIM -----------------------------------------------------------------------------------------------


def test_ddim_is_euler_on_the_linear_path_and_exact_for_one_pair_on_any(device: torch.device) -> None:
    x0, x1 = torch.tensor([[0.3, -1.0], [0.7, 2.0]], dtype=torch.float64, device=device)
    t, h = torch.tensor(0.2, dtype=torch.float64, device=device), torch.tensor(0.5, dtype=torch.float64, device=device)

    def v(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(3 * x) - t

    steps = [SOLVERS[name].make_step(v, PATHS["linear"], no_noise) for name in ("ddim", "euler")]
    torch.testing.assert_close(*(step(x0, t, h) for step in steps))
    for path in PATHS.values():
        straight = SOLVERS["ddim"].make_step(lambda x, t, path=path: path.velocity(x0, x1, t), path, no_noise)  # type: ignore[misc]
        torch.testing.assert_close(straight(path.interpolate(x0, x1, t), t, h), path.interpolate(x0, x1, t + h))
        torch.testing.assert_close(straight(path.interpolate(x0, x1, t), t, 1 - t), x1)


def test_the_last_state_is_all_that_is_kept() -> None:
    """A thousand states of a large image would not fit in memory."""
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def step(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        nonlocal most
        new = x + h
        alive.append(weakref.ref(new))
        most = max(most, sum(state() is not None for state in alive))
        return new

    end = last(trajectory(step, torch.zeros(2), torch.linspace(0, 1, 101)))
    torch.testing.assert_close(end, torch.ones(2))
    assert most <= 3
