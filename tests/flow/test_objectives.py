"""What a network is trained for: pipelines/flow/objectives.py."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

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
from flowferry.pipelines.flow.solvers import SOLVERS, Step, Velocity, trajectory

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


def test_the_objectives_are_the_flow_one_step_and_the_map() -> None:
    told = {name: (o.max_time, o.max_steps, o.nfe) for name, o in OBJECTIVES.items()}
    assert told == {"flow": (1.0, None, None), "one-step": (0.0, 1, 1), "map": (1.0, None, None)}
    assert [name for name, objective in OBJECTIVES.items() if objective.two_times] == ["map"]


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
@pytest.mark.parametrize("objective", ["flow", "one-step"])
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
        answers = {"velocity": da * one0 + db * one1, "source": one0, "target": one1}
        answer = {**answers, "v-prediction": b * one0 - a * one1}[prediction]
        squares.append((torch.sin(3 * (a * one0 + b * one1)) * (1 + time) - answer).square().flatten())
    t = torch.tensor(times, dtype=torch.float64, device=device)
    what = PATHS[path], PREDICTIONS[prediction], LOSSES["squared"]
    found = OBJECTIVES[objective].loss(network, *what, x0, x1, t)
    assert found.shape == ()
    torch.testing.assert_close(found, torch.cat(squares).mean(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("objective", ["flow", "one-step"])
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


# --- the map --------------------------------------------------------------------------------------------


def map_loss(network: Callable[..., Tensor], path: str, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    what = PATHS[path], PREDICTIONS["velocity"], LOSSES["squared"]
    return OBJECTIVES["map"].loss(network, *what, x0, x1, t)


def step_times(device: torch.device) -> Tensor:
    """Return starts and ends [9, 2], of which those of samples 0, 4 and 8 are steps: a part of a drawn batch."""
    times = [
        [0.0, 1.0],
        [0.3, 0.3],
        [0.0, 0.0],
        [0.9, 0.9],
        [0.2, 0.9],
        [0.1, 0.1],
        [0.4, 0.4],
        [0.7, 0.7],
        [0.5, 0.51],
    ]
    return torch.tensor(times, dtype=torch.float64, device=device)


def bent(x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
    """Answer something that depends on all it is told; where rows are told, by two equal times."""
    assert rows is None or torch.equal(t[:, 0], t[:, 1]), "the average is asked for its velocity, not for a step"
    return torch.sin(3 * x + t[:, :1]) - t[:, 1:] + (0 if rows is None else 1 + rows[:, None])


def answer_and_truth(network: Callable[..., Tensor], path: str, x0: Tensor, x1: Tensor, t: Tensor) -> list[Tensor]:
    """Return what the map's loss compares."""
    told: list[Tensor] = []

    def distance(answer: Tensor, truth: Tensor) -> Tensor:
        told.extend([answer, truth])
        return answer.sum()

    OBJECTIVES["map"].loss(network, PATHS[path], PREDICTIONS["velocity"], distance, x0, x1, t)
    return told


def test_a_step_is_trained_to_be_four_of_ab2_along_the_average_and_the_others_as_a_flow(device: torch.device) -> None:
    x0, x1, t = numbers(9, 3, seed=1, device=device), numbers(9, 3, seed=2, device=device), step_times(device)
    answer, truth = answer_and_truth(bent, "linear", x0, x1, t)
    for i, (start, end) in enumerate(t):
        xs, row = torch.lerp(x0[i], x1[i], start)[None], torch.tensor([i], device=device)
        torch.testing.assert_close(answer[i], bent(xs, t[i : i + 1])[0])
        expected = x1[i] - x0[i]
        if start < end:
            step = SOLVERS["ab2"].make_step(
                lambda x, t, row=row: bent(x, t.expand(1, 2), row), PATHS["linear"], no_noise
            )
            roots = torch.linspace(start**0.5, end**0.5, 5, dtype=torch.float64, device=device)
            *_, there = trajectory(step, xs, roots**2)
            expected = (there - xs)[0] / (end - start)
        torch.testing.assert_close(truth[i], expected)


def test_a_step_is_trained_to_be_the_map_up_to_the_error_of_the_solver(device: torch.device) -> None:
    """On the cosine path from x0 to 2·x0, x_t = g(t)·x0 with g = cos(πt/2) + 2·sin(πt/2), all is known."""

    def g(t: Tensor) -> Tensor:
        return (math.pi / 2 * t).cos() + 2 * (math.pi / 2 * t).sin()

    def slope(x: Tensor, t: Tensor, rows: Any = None) -> Tensor:
        angle = math.pi / 2 * t[:, :1]
        return math.pi / 2 * (2 * angle.cos() - angle.sin()) / g(t[:, :1]) * x

    x0 = numbers(1, 3, seed=1, device=device)
    errors = []
    for length in (0.4, 0.2, 0.1):
        t = torch.tensor([[0.2, 0.2 + length]], dtype=torch.float64, device=device)
        exact = (g(t[:, 1:]) - g(t[:, :1])) / length * x0
        _, truth = answer_and_truth(slope, "cosine", x0, 2 * x0, t)
        errors.append(((truth - exact).norm() / x0.norm()).item())
    assert errors[0] < 0.1
    for longer, shorter in pairwise(errors):
        assert 1.8 < longer / shorter < 2.5  # that of the first step, Euler's, is as its length squared


@pytest.mark.parametrize("start", [0.0, 0.3, 1 - 2**-24, 1.0])
def test_a_step_too_short_to_be_solved_has_the_velocity(start: float) -> None:
    x0, x1 = numbers(1, 3, seed=1, device=torch.device("cpu")).float(), torch.ones(1, 3)
    begin, asked = torch.tensor([start]), []
    end = torch.nextafter(begin, torch.tensor([2.0]))
    assert begin < end
    for t in (torch.stack([begin, end], dim=1), torch.stack([begin, begin], dim=1)):
        _, truth = answer_and_truth(lambda *told: asked.append(told[0]) or bent(*told), "linear", x0, x1, t)
        assert torch.equal(truth, x1 - x0)
    assert all(x.isfinite().all() for x in asked), "a network may compute statistics of its batch"


def test_no_gradient_goes_through_what_a_step_is_trained_for(device: torch.device) -> None:
    x, w = numbers(9, 3, seed=1, device=device), torch.ones(3, dtype=torch.float64, device=device, requires_grad=True)
    answer, truth = answer_and_truth(lambda x, t, rows=None: w * x, "linear", x, x, step_times(device))
    assert answer.requires_grad and not truth.requires_grad


def test_each_step_is_told_its_own_condition(device: torch.device) -> None:
    asked: list[list[int]] = []

    def network(x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        asked.append(list(range(9)) if rows is None else rows.tolist())
        assert len(asked[-1]) == len(x) == len(t)
        return x

    x = numbers(9, 3, seed=1, device=device)
    map_loss(network, "linear", x, x, step_times(device))
    assert asked == [[0, 4, 8]] * 4 + [list(range(9))]


@pytest.mark.parametrize("rows", [slice(1, 4), slice(1, 9), slice(2, 7)], ids=["no step", "all", "one of two"])
def test_a_part_of_any_size_is_trained_as_its_samples_are_in_the_batch(rows: slice, device: torch.device) -> None:
    """Also where it has fewer steps than others of its size: how many they are is not asked of the device."""

    def network(x: Tensor, t: Tensor, rows: Tensor | None = None) -> Tensor:
        return bent(x, t)

    x0, x1, t = numbers(9, 3, seed=1, device=device), numbers(9, 3, seed=2, device=device), step_times(device)
    whole = answer_and_truth(network, "linear", x0, x1, t)
    part = answer_and_truth(network, "linear", x0[rows], x1[rows], t[rows])
    for one, other in zip(whole, part, strict=True):
        torch.testing.assert_close(one[rows], other)


def test_the_result_of_a_step_to_the_target_is_its_end(device: torch.device) -> None:
    """All samples have one, so that which of them are judged depends on their places alone."""
    xt, u = numbers(3, 3, seed=1, device=device), numbers(3, 3, seed=2, device=device)
    t = torch.tensor([[0.0, 1.0], [0.75, 1.0], [1.0, 1.0]], dtype=torch.float64, device=device)
    found = OBJECTIVES["map"].results(PATHS["linear"], PREDICTIONS["velocity"], u, xt, t)
    torch.testing.assert_close(found, torch.stack([xt[0] + u[0], xt[1] + u[1] / 4, xt[2]]))


@each_power
def test_every_fourth_sample_is_a_step_and_half_of_those_start_at_the_source(
    power: float, device: torch.device
) -> None:
    objective, count = OBJECTIVES["map"], 4000
    u = torch.rand(count, *objective.uniforms, generator=torch.Generator().manual_seed(0)).to(device)
    start, end = objective.draw_times(u, power, 0.0, PATHS["linear"]).unbind(1)
    is_step = torch.arange(count, device=device) % 4 == 3
    assert torch.equal(start < end, is_step) and torch.equal(start == end, ~is_step)
    assert start.min() >= 0 and start.max() < 1 and end.max() <= 1
    assert torch.equal(is_step & (end == 1), torch.arange(count, device=device) % objective.judged_every == 7)
    assert (start[end == 1] == 0).double().mean().item() == pytest.approx(0.5, abs=0.07)
    assert (start[is_step] == 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
    flow = OBJECTIVES["flow"].draw_times(u[:, 0], power, 0.0, PATHS["linear"])
    assert torch.equal(start[~is_step], flow[~is_step])


# --- the step -------------------------------------------------------------------------------------------


def no_noise(x: Tensor) -> Tensor:
    raise AssertionError("noise was asked for")


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if not solver.two_times])
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
        self.asked += t.reshape(len(t), -1)[:, 0].tolist()  # of a step its start
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
