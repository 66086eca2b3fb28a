"""DDPM against another library, and ancestral sampling against its closed form: pipelines/flow/{paths,solvers}.py."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.datasets.rng import generator
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.paths import PATHS, Path, diffusion
from flowferry.pipelines.flow.predictions import velocity_from_source, velocity_from_target
from flowferry.pipelines.flow.solvers import SOLVERS, Noise, Velocity, trajectory
from flowferry.pipelines.flow.times import list_length, rest_of, strided_grid, time_grid

CPU = torch.device("cpu")
T = 300
DDPM = PATHS["ddpm"]
LEVELS = torch.arange(1, T + 1)
TIMES = 1 - LEVELS.double() / T


def published() -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=T,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        variance_type="fixed_large",
        clip_sample=False,
        prediction_type="epsilon",
        timestep_spacing="trailing",  # with fewer steps: from the most noise on, as here
    )


@pytest.fixture
def oracle() -> DDPMScheduler:
    """Their formulas on tables in double precision; theirs are in single. Timestep s − 1 is our level s."""
    made = published()
    made.betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    made.alphas = 1 - made.betas
    made.alphas_cumprod = made.alphas.cumprod(0)
    made.one = made.one.double()
    made.set_timesteps(T)
    return made


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_from(seed: int) -> tuple[Noise, torch.Generator]:
    """For our solver and for theirs, the same numbers."""
    ours, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
    return lambda x: torch.randn(x.shape, generator=ours, dtype=x.dtype), theirs


# --- the forward process --------------------------------------------------------------------------------


def test_the_noise_levels_are_those_of_another_library(oracle: DDPMScheduler) -> None:
    abar = DDPM.beta(TIMES) ** 2
    torch.testing.assert_close(abar, published().alphas_cumprod.double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(abar, oracle.alphas_cumprod, rtol=1e-13, atol=0)
    torch.testing.assert_close(DDPM.alpha(TIMES) ** 2, 1 - oracle.alphas_cumprod, rtol=1e-11, atol=0)


def test_the_forward_process_is_that_of_another_library_at_every_level(oracle: DDPMScheduler) -> None:
    x, eps = normal(2, T, 1, 2, 2)
    torch.testing.assert_close(
        DDPM.interpolate(eps, x, TIMES), oracle.add_noise(x, eps, LEVELS - 1), rtol=0, atol=1e-13
    )


def test_single_precision_meets_the_levels_too() -> None:
    """Where 1 − s/T is rounded to beyond a level, the slope would be that of the wrong side."""
    grid = time_grid(T, device=CPU)
    next_to = torch.stack([t + (t_next - t) for t, t_next in pairwise(grid)])  # as the solvers compute it
    for t, exact in ((TIMES.float(), TIMES), (grid[:-1], TIMES.flip(0)), (next_to[:-1], TIMES.flip(0)[1:])):
        for function in (DDPM.alpha, DDPM.beta, DDPM.dalpha, DDPM.dbeta):
            assert function(t).dtype == torch.float32
            torch.testing.assert_close(function(t), function(exact).float(), rtol=1e-6, atol=0)


def test_at_a_level_the_velocity_leads_towards_the_image(device: torch.device) -> None:
    (x0, x1), t, h = normal(2, T, 2).to(device), TIMES.to(device), 1e-5  # of a 1/300 to the next level
    ahead = (DDPM.interpolate(x0, x1, t + h) - DDPM.interpolate(x0, x1, t)) / h
    torch.testing.assert_close(DDPM.velocity(x0, x1, t), ahead, rtol=5e-3, atol=1e-3)


# --- ancestral sampling ---------------------------------------------------------------------------------


def test_each_step_is_that_of_another_library(oracle: DDPMScheduler) -> None:
    x, eps = normal(2, 4, 1, 2, 2)
    noise, theirs = noise_from(1)
    step = SOLVERS["ancestral"].make_step(lambda x, t: velocity_from_source(DDPM, eps, x, t), DDPM, noise)
    for s, t in zip(LEVELS.tolist(), TIMES, strict=True):
        x_next = step(x, t, (1 - (s - 1) / T) - t)
        expected = oracle.step(eps, s - 1, x, generator=theirs).prev_sample
        torch.testing.assert_close(x_next, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 30, 7])
@pytest.mark.parametrize("start", [0, 1, 10])
def test_a_strided_chain_from_any_level_is_that_of_another_library(stride: int, start: int) -> None:
    """As published: 34 steps of stride 30 on T = 1000, or what is left of them, down to the clean image."""
    length, timesteps = list_length(1000, stride), [*range((list_length(1000, stride) - 1) * stride, -1, -stride)]
    path = diffusion(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
    theirs = DDPMScheduler(1000, 1e-4, 0.02, "linear", variance_type="fixed_large", clip_sample=False)
    theirs.alphas_cumprod, theirs.one = path.beta(1 - torch.arange(1, 1001).double() / 1000) ** 2, theirs.one.double()
    theirs.set_timesteps(timesteps=timesteps)
    start = start * length // 34 if stride < 30 else start
    expected = x = normal(3, 1, 4, 4, seed=3)
    noise, random = noise_from(1)
    grid = rest_of(strided_grid(length, stride, levels=1000).double(), 1 - (timesteps[start] + 1) / 1000)
    assert len(grid) == len(timesteps) - start + 1
    step = SOLVERS["ancestral"].make_step(
        lambda x, t: velocity_from_source(path, made_up_noise(x, t), x, t), path, noise
    )
    *_, end = trajectory(step, x, grid)
    for timestep in timesteps[start:]:
        eps = made_up_noise(expected, torch.tensor(1 - (timestep + 1) / 1000))
        expected = theirs.step(eps, timestep, expected, generator=random).prev_sample
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-5)


def made_up_noise(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x.roll(1, -1) - x.mean(dim=-1, keepdim=True) + torch.sin(9 * t.double()))


class MadeUp(nn.Module):
    """Predicts noise that depends on the whole sample and on the time, and remembers the times it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.zero, self.asked = nn.Parameter(torch.zeros(1)), []

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        self.asked.append(t)
        t = t.reshape(-1, *[1] * (xt.ndim - 1))
        return torch.tanh(xt.roll(1, -1) - xt.mean(dim=-1, keepdim=True) + torch.sin(9 * t)) + self.zero.to(xt)


def their_chain(oracle: DDPMScheduler, x: Tensor, random: torch.Generator | list[torch.Generator]) -> list[Tensor]:
    """Their sampling loop around the made-up network; the last point is the clean image that they predict."""
    network, points = MadeUp(), [x]
    for timestep in oracle.timesteps.tolist():
        eps = network(x, torch.full((len(x),), 1 - (timestep + 1) / T, dtype=x.dtype)).detach()
        done = oracle.step(eps, timestep, x, generator=random)
        x = done.prev_sample
        points.append(x)
    return [*points[:-1], done.pred_original_sample]


@pytest.mark.parametrize("steps", [300, 50])
def test_a_whole_chain_is_that_of_another_library(steps: int, oracle: DDPMScheduler) -> None:
    """But for the last step of a strided one, to which they add noise: to an image that is already clean."""
    oracle.set_timesteps(steps)
    network, x = MadeUp(), normal(3, 1, 4, 4, seed=3)
    noise, theirs = noise_from(1)

    def v(x: Tensor, t: Tensor) -> Tensor:
        return velocity_from_source(DDPM, network(x, t).detach(), x, t)

    grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    points = list(trajectory(SOLVERS["ancestral"].make_step(v, DDPM, noise), x, grid))
    torch.testing.assert_close(points, their_chain(oracle, x, theirs), rtol=0, atol=1e-10)


def test_the_pipeline_runs_that_chain(tiny: Callable[..., Config], oracle: DDPMScheduler) -> None:
    """The preset, in single precision, with the noise that is each sample's own."""
    network, x = MadeUp(), normal(3, 1, 28, 28).float()
    points = list(Pipeline(tiny("ddpm-mnist"), network).trajectory(x, seed=7, rows=range(2, 2 + len(x))))
    own = [generator(CPU, 7, "row", row) for row in (2, 3, 4)]
    torch.testing.assert_close(points, their_chain(oracle, x, own), rtol=0, atol=2e-4)
    torch.testing.assert_close(torch.stack(network.asked), TIMES.flip(0).float()[:, None].expand(T, 3))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_the_last_step_gives_the_predicted_target_and_adds_nothing(path: Path, device: torch.device) -> None:
    x, x1 = normal(2, 5, 3).to(device)

    def nan(x: Tensor) -> Tensor:
        return torch.full_like(x, torch.nan)

    step = SOLVERS["ancestral"].make_step(lambda x, t: velocity_from_target(path, x1, x, t), path, nan)
    for t in torch.tensor([0, 0.3, 299 / 300], dtype=torch.float64, device=device):
        end = step(x, t, 1 - t)
        torch.testing.assert_close(end, x1, rtol=0, atol=1e-10)


# --- from noise to one Gaussian, in closed form -----------------------------------------------------------


def exact_velocity(path: Path, m: float, s: float) -> Velocity:
    """E[dx_t/dt | x_t] for x0 ~ N(0, 1) and x1 ~ N(m, s²): that of E[x1 | x_t] = m + β·s²/V·(x_t − β·m)."""

    def v(x: Tensor, t: Tensor) -> Tensor:
        a, b = path.alpha(t), path.beta(t)
        return velocity_from_target(path, m + b * s**2 / (a**2 + b**2 * s**2) * (x - b * m), x, t)

    return v


def closed_form(path: Path, m: float, s: float, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of what ancestral sampling from N(0, 1) with the exact prediction ends at.

    V_t = α_t² + β_t²·s² is the variance of x_t, and E[ε | x_t] = α_t·(x_t − β_t·m)/V_t. With this, a step of
    algorithm 2, x_u = (x_t − q/α_t·E[ε | x_t])/r + √q·z, multiplies x_t − β_t·m by r·V_u/V_t, as V_t = r²·V_u + q.
    With r = β_t/β_u the product of these factors from u to 1 is β_u·s²/V_u. So the start, whose mean is off by
    −β_0·m and whose variance is 1, and each step's noise, of variance q, reach the end times that factor.
    """
    a, b = path.alpha(grid), path.beta(grid)
    factor = b * s**2 / (a**2 + b**2 * s**2)
    q = a[:-1] ** 2 - (b[:-1] / b[1:] * a[1:]) ** 2
    return m - factor[0] * b[0] * m, factor[0] ** 2 + (q[:-1] * factor[1:-1] ** 2).sum()


def moments(path: Path, m: float, s: float, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The same of the solver itself, without chance: its end is linear in the start and in each step's noise.

    Row 0 starts at 0 and gets no noise, row 1 starts at 1, and row k + 1 gets noise 1 at step k.
    """
    rows, calls = len(grid), iter(range(2, len(grid)))

    def one_in(row: int) -> Tensor:
        return (torch.arange(rows, device=grid.device) == row).to(grid.dtype)[:, None]

    def noise(x: Tensor) -> Tensor:
        return one_in(next(calls))

    step = SOLVERS["ancestral"].make_step(exact_velocity(path, m, s), path, noise)
    *_, end = trajectory(step, one_in(1), grid)
    assert next(calls, None) is None  # each step but the last asked for noise, once
    return end[0, 0], (end[1:] - end[0]).square().sum()


@pytest.mark.parametrize("name, steps", [("ddpm", 300), ("ddpm", 50), ("linear", 40), ("cosine", 40), ("linear", 1)])
@pytest.mark.parametrize("m, s", [(0.0, 1.0), (-3.0, 0.5), (2.0, 1.5)])
def test_ancestral_sampling_of_one_gaussian_has_its_closed_form(
    name: str, steps: int, m: float, s: float, device: torch.device
) -> None:
    grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=device)
    found, expected = moments(PATHS[name], m, s, grid), closed_form(PATHS[name], m, s, grid)
    torch.testing.assert_close(found, tuple(map(torch.as_tensor, expected)), rtol=1e-9, atol=1e-12, check_dtype=False)


def test_where_data_are_unit_noise_ddpm_loses_only_the_noise_of_its_first_level(oracle: DDPMScheduler) -> None:
    mean, variance = moments(DDPM, 0.0, 1.0, torch.linspace(0, 1, T + 1, dtype=torch.float64))
    assert mean == 0
    torch.testing.assert_close(variance, oracle.alphas_cumprod[0])


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("s", [0.5, 2.0])
def test_ancestral_sampling_comes_as_close_as_its_steps_are_short(name: str, s: float, device: torch.device) -> None:
    """The mean is exact where the path starts at its source; the variance is off in proportion to the step."""

    def error(steps: int) -> Tensor:
        grid = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=device)
        mean, variance = moments(PATHS[name], 2.0, s, grid)
        torch.testing.assert_close(mean.item(), 2.0)
        return (variance - s**2).abs()

    assert error(400) < 0.02 * s**2
    torch.testing.assert_close((error(400) / error(800)).item(), 2.0, rtol=0.05, atol=0)


class ExactNoise(nn.Module):
    """E[ε | x_t] for data ~ N(m, s²·I)."""

    def __init__(self, m: float, s: float) -> None:
        super().__init__()
        self.m, self.s, self.zero = m, s, nn.Parameter(torch.zeros(1))

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        a, b = (of(t)[:, None, None, None] for of in (DDPM.alpha, DDPM.beta))
        return a * (xt - b * self.m) / (a**2 + b**2 * self.s**2) + self.zero


def test_samples_of_a_pipeline_have_these_moments(tiny: Callable[..., Config]) -> None:
    m, s = 0.2, 0.15  # far from where images are clipped
    samples = Pipeline(tiny("ddpm-mnist"), ExactNoise(m, s)).sample(64)
    mean, variance = closed_form(DDPM, m, s, torch.linspace(0, 1, T + 1, dtype=torch.float64))
    assert abs(samples.mean() - mean) < 5 * (variance / samples.numel()) ** 0.5
    assert abs(samples.var() - variance) < 5 * variance * (2 / samples.numel()) ** 0.5
