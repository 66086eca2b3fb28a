"""What a network is trained for: pipelines/flow/objectives.py."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import SolverConfig
from flowferry.configs.schema import Config
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.losses import LOSSES
from flowferry.pipelines.flow.objectives import OBJECTIVES
from flowferry.pipelines.flow.paths import PATHS
from flowferry.pipelines.flow.predictions import PREDICTIONS
from flowferry.pipelines.flow.solvers import SOLVERS, Step, Velocity

each_path = pytest.mark.parametrize("path", PATHS)
each_power = pytest.mark.parametrize("power", [1.0, 2.0])

T = 300
LOG_ABAR = torch.cat([torch.zeros(1), torch.log1p(-torch.linspace(1e-4, 0.02, T, dtype=torch.float64)).cumsum(0)])


def coefficients(path: str, t: float) -> tuple[float, float, float, float]:
    """Return α, β, α', β' at t, written out once more; of ddpm at a level s, where β' = β/2·T·(log ᾱ_s−1 − log ᾱ_s)."""
    if path == "linear":
        return 1 - t, t, -1.0, 1.0
    if path == "cosine":
        angle, speed = math.pi / 2 * t, math.pi / 2
        return math.cos(angle), math.sin(angle), -speed * math.sin(angle), speed * math.cos(angle)
    s = round(T * (1 - t))
    log_abar, next_log_abar = LOG_ABAR[s].item(), LOG_ABAR[s - 1].item()
    a, b = math.sqrt(1 - math.exp(log_abar)), math.exp(log_abar / 2)
    db = b / 2 * T * (next_log_abar - log_abar)
    return a, b, -b * db / a, db


def numbers(*shape: int, seed: int, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(device)


def test_the_objectives_are_the_flow_and_one_step() -> None:
    told = {name: (o.max_time, o.max_steps, o.nfe) for name, o in OBJECTIVES.items()}
    assert told == {"flow": (1.0, None, None), "one-step": (0.0, 1, 1)}


# --- the times ------------------------------------------------------------------------------------------


@each_path
@each_power
def test_the_flow_is_trained_along_its_whole_path(path: str, power: float, device: torch.device) -> None:
    u = torch.linspace(0, 1, 2001, device=device)[:-1]
    t = OBJECTIVES["flow"].draw_times(u, power, 0.0, PATHS[path])
    expected = [value**power for value in u.double().tolist()]
    if path == "ddpm":  # at its levels alone
        levels = t.double() * T
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
        behind = torch.tensor(expected, device=device) - t
        assert behind.min() > -1e-6 and behind.max() < 1 / T + 1e-6
    else:
        assert t.tolist() == pytest.approx(expected, abs=1e-6)
    assert t.min() == 0 and t.max() > 0.99
    assert t.dtype == u.dtype and t.device == u.device


@each_path
@each_power
def test_one_step_is_trained_at_the_source_alone(path: str, power: float, device: torch.device) -> None:
    u = torch.rand(100, generator=torch.Generator().manual_seed(0)).to(device)
    t = OBJECTIVES["one-step"].draw_times(u, power, 0.5, PATHS[path])
    assert torch.equal(t, torch.zeros_like(u))
    assert t.dtype == u.dtype and t.device == u.device


# --- the loss -------------------------------------------------------------------------------------------


@each_path
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("shape", [(2,), (1, 3, 4)], ids=str)
def test_the_loss_is_its_formula(
    objective: str, path: str, prediction: str, shape: tuple[int, ...], device: torch.device
) -> None:
    """The mean of (network(α·x0 + β·x1, t) − answer)², with the sample's own α and β, for each sample by hand."""
    x0, x1 = numbers(3, *shape, seed=1, device=device), numbers(3, *shape, seed=2, device=device)
    times = [0.0, 0.0, 0.0] if objective == "one-step" else [0.2, 0.5, 0.9]

    def network(xt: Tensor, t: Tensor) -> Tensor:
        return torch.sin(3 * xt) * (1 + t.reshape(-1, *[1] * len(shape)))

    squares: list[Tensor] = []
    for one0, one1, time in zip(x0, x1, times, strict=True):
        a, b, da, db = coefficients(path, time)
        answer = {"velocity": da * one0 + db * one1, "source": one0, "target": one1}[prediction]
        squares.append((torch.sin(3 * (a * one0 + b * one1)) * (1 + time) - answer).square().flatten())
    t = torch.tensor(times, dtype=torch.float64, device=device)
    what = PATHS[path], PREDICTIONS[prediction], LOSSES["squared"]
    found = OBJECTIVES[objective].loss(network, *what, x0, x1, t)
    assert found.shape == ()
    torch.testing.assert_close(found, torch.cat(squares).mean(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_is_the_distance_of_answer_and_truth_in_this_order(objective: str, device: torch.device) -> None:
    x0, x1 = numbers(3, 2, seed=1, device=device), numbers(3, 2, seed=2, device=device)
    told: list[Tensor] = []

    def distance(answer: Tensor, truth: Tensor) -> Tensor:
        told.extend([answer, truth])
        return torch.tensor(7.0)

    t = torch.zeros(3, dtype=torch.float64, device=device)
    loss = OBJECTIVES[objective].loss(lambda xt, t: xt + 5, PATHS["linear"], PREDICTIONS["target"], distance, x0, x1, t)
    assert loss == 7
    assert torch.equal(told[0], x0 + 5) and torch.equal(told[1], x1)


# --- the step -------------------------------------------------------------------------------------------


def no_noise(x: Tensor) -> Tensor:
    raise AssertionError("noise was asked for")


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("prediction", ["target", "velocity"])
def test_the_jump_is_exact_whatever_the_solver(name: str, prediction: str, device: torch.device) -> None:
    """It gives what the network predicts at the source. The solvers of higher order alone would give something else."""
    x = numbers(5, 3, seed=1, device=device)
    asked: list[float] = []

    def v(x: Tensor, t: Tensor) -> Tensor:
        asked.append(t.item())
        answer = torch.sin(5 * x + t)
        return PREDICTIONS[prediction].velocity(PATHS["linear"], answer, x, t)

    zero, one = (torch.tensor(value, dtype=torch.float64, device=device) for value in (0, 1))
    step = OBJECTIVES["one-step"].step(v, lambda v: SOLVERS[name].make_step(v, PATHS["linear"], no_noise))
    expected = torch.sin(5 * x) + (x if prediction == "velocity" else 0)
    torch.testing.assert_close(step(x, zero, one), expected, rtol=0, atol=1e-12)
    assert asked == [0.0]  # once, at the source
    if SOLVERS[name].per_step > 1:
        alone = SOLVERS[name].make_step(v, PATHS["linear"], no_noise)(x, zero, 0.999 * one)
        assert (alone - expected).abs().max() > 0.1


def test_the_flow_is_followed_by_the_solver_s_own_step() -> None:
    def v(x: Tensor, t: Tensor) -> Tensor:
        return -x

    def made(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        return x

    given: list[Velocity] = []

    def solver(velocity: Velocity) -> Step:
        given.append(velocity)
        return made

    assert OBJECTIVES["flow"].step(v, solver) is made
    assert given == [v]


# --- the last time --------------------------------------------------------------------------------------


class Times(nn.Module):
    """Remembers the times that it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.zero, self.asked = nn.Parameter(torch.zeros(1)), []

    def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.asked += t.tolist()
        return xt * self.zero


@pytest.mark.parametrize(
    "objective, path, prediction, last",
    [
        ("flow", "linear", "velocity", 1.0),
        ("flow", "cosine", "velocity", 1.0),
        ("flow", "linear", "target", 0.999),
        ("flow", "cosine", "target", 0.999),
        ("flow", "ddpm", "velocity", 299 / 300),
        ("flow", "ddpm", "source", 299 / 300),
        ("flow", "ddpm", "target", 299 / 300),
        ("one-step", "linear", "velocity", 0.0),
        ("one-step", "linear", "target", 0.0),
        ("one-step", "ddpm", "source", 0.0),
    ],
)
def test_the_network_is_asked_until_its_last_time_and_no_later(
    objective: str, path: str, prediction: str, last: float, tiny: Callable[..., Config]
) -> None:
    """Where a trajectory begins at the target; where one ends there, it is asked at the start of the last step."""
    steps, network = 1 if objective == "one-step" else 4, Times()
    solver = SolverConfig(name="heun", num_steps=steps)
    config = tiny("gaussian2d", objective=objective, path=path, prediction=prediction, solver=solver)
    pipeline = Pipeline(config, network)
    assert pipeline.max_time == last
    assert pipeline.translate(torch.ones(2, 2)).isfinite().all()
    assert max(network.asked) == pytest.approx(min(last, 1 - 1 / steps), abs=1e-6)
    if objective == "flow":
        network.asked.clear()
        assert pipeline.invert(torch.ones(2, 2)).isfinite().all()
        assert max(network.asked) == pytest.approx(last, abs=1e-6)


@pytest.mark.parametrize("name", PIPELINES)
def test_no_named_pipeline_asks_its_network_at_the_target(name: str, tiny: Callable[..., Config]) -> None:
    """Training never draws t = 1, and a predicted x1 would be divided by almost 0 there."""
    network = Times()
    pipeline = Pipeline(tiny(name), network)
    pipeline.translate(torch.zeros(1, *pipeline.config.shape))
    assert max(network.asked) < 0.999


@pytest.mark.parametrize("solver", ["euler", "heun", "rk4", "ancestral"])
def test_one_step_costs_one_evaluation_whatever_the_solver(solver: str, tiny: Callable[..., Config]) -> None:
    network = Times()
    config = tiny("denoise-noise", solver=SolverConfig(name=solver, num_steps=1))
    pipeline = Pipeline(config, network)
    pipeline.translate(torch.zeros(3, 1, 28, 28))
    assert pipeline.nfe == 1
    assert network.asked == [0.0] * 3
