"""Laws of a pipeline, there and back and in batches: pipelines/pipeline.py."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.components import GaussianConfig, MoonsConfig
from flowferry.configs.networks import PatchUNetConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import SolverConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_sampler, build_samplers
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.paths import PATHS
from flowferry.pipelines.flow.predictions import velocity_from_source, velocity_from_target
from flowferry.pipelines.flow.solvers import SOLVERS, Velocity
from flowferry.pipelines.training.batches import draw_pairs

NULL = 10
COS, SIN = math.cos(math.pi / 8), math.sin(math.pi / 8)  # of πt/2 at t = 1/4
CPU = torch.device("cpu")
each_flow = pytest.mark.parametrize(
    "name", ["fashion2mnist-published", "noise2mnist-published", "noise2mnist-cfg-published"]
)
each_sort = pytest.mark.parametrize(
    "name",
    [
        "fashion2mnist-published",
        "noise2mnist-published",
        "noise2mnist-cfg-published",
        "ddpm-mnist-cfg",
        "denoise-mnist",
        "noise2fashion",
        "noise2cifar",
        "moons",
    ],
)


class Told(nn.Module):
    """Predicts the speed label/100 everywhere, or what `speed` gives, and remembers what it was asked."""

    def __init__(self, speed: float | None = None) -> None:
        super().__init__()
        self.zero, self.speed = nn.Parameter(torch.zeros(1)), speed
        self.asked: list[tuple[Tensor, Tensor, Condition]] = []

    def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.asked.append((xt, t, condition))
        speed = condition.label / 100 if self.speed is None else torch.full_like(t, self.speed)
        return (speed + self.zero)[:, None, None, None].expand_as(xt)


def images(count: int, reach: float = 0.5, shape: tuple[int, ...] = (1, 28, 28)) -> Tensor:
    return torch.empty(count, *shape).uniform_(-reach, reach, generator=torch.Generator().manual_seed(1))


# --- every name -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_each_named_pipeline_takes_a_step_and_samples(name: str, tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny(name)
    made = Pipeline(config)
    source, target = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    loss = made.loss(*draw_pairs(config, source, target, 4, seed=0, step=0))
    loss.backward()
    copies = getattr(config.model, "adds_source", False)  # at first, and here each target is its source
    assert loss == 0 if copies else 0 < loss < 100
    gradients = [parameter.grad for parameter in made.model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    for parameter in made.model.parameters():  # networks that open as zero would make the same of all sources
        parameter.data += 0.02 * torch.randn_like(parameter)
    samples = made.sample(3, steps=min(2, config.solver.num_steps), data_root=tmp_path)
    assert samples.shape == (3, *config.shape)
    assert samples.isfinite().all()
    assert len(samples.unique(dim=0)) == 3


# --- the loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, alpha, beta, dalpha, dbeta",
    [("linear", 0.75, 0.25, -1, 1), ("cosine", COS, SIN, -math.pi / 2 * SIN, math.pi / 2 * COS)],
)
def test_the_loss_is_the_mean_squared_error_of_the_velocity(
    path: str, alpha: float, beta: float, dalpha: float, dbeta: float, tiny: Callable[..., Config]
) -> None:
    x0, x1, t = images(3), images(6)[3:], torch.full((3,), 0.25)
    model, condition = Told(0.1), Condition(torch.tensor([4, NULL, 1]), num_classes=NULL)
    loss = Pipeline(tiny("noise2mnist-cfg-published", path=path), model).loss(x0, x1, t, condition)
    torch.testing.assert_close(loss, ((0.1 - (dalpha * x0 + dbeta * x1)) ** 2).mean())
    ((xt, *told),) = model.asked
    torch.testing.assert_close(xt, alpha * x0 + beta * x1)
    assert torch.equal(told[0], t)
    assert told[1] is condition


@pytest.mark.parametrize("name", ["ddpm-mnist", "denoise-mnist"])
def test_the_loss_is_the_mean_squared_error_of_what_is_predicted(name: str, tiny: Callable[..., Config]) -> None:
    """The noise, of an image at the most noise of DDPM's list; the clean image, of the noisy one alone."""
    x0, x1, t = images(3), images(6)[3:], torch.zeros(3)
    model = Told(0.1)
    loss = Pipeline(tiny(name), model).loss(x0, x1, t)
    abar = (1 - torch.linspace(1e-4, 0.02, 300, dtype=torch.float64)).prod().item()
    wanted, seen = {
        "ddpm-mnist": (x0, math.sqrt(1 - abar) * x0 + math.sqrt(abar) * x1),
        "denoise-mnist": (x1, x0),
    }[name]
    torch.testing.assert_close(loss, ((0.1 - wanted) ** 2).mean())
    ((xt, *_),) = model.asked
    torch.testing.assert_close(xt, seen)


# --- there and back -------------------------------------------------------------------------------------


@each_flow
def test_inverting_and_translating_returns_to_the_start(name: str, pipeline: Callable[..., Pipeline]) -> None:
    carrier, x = pipeline(name), images(4)
    there = carrier.invert(x, solver="rk4", steps=12)
    back = carrier.translate(there, solver="rk4", steps=12)
    assert (there - x).abs().mean() > 0.02  # it went somewhere
    assert there.abs().max() < 1  # and was not clipped
    torch.testing.assert_close(back, x, rtol=0, atol=1e-3)


def test_a_trajectory_runs_over_the_grid_and_leaves_gradients_as_they_were(tiny: Callable[..., Config]) -> None:
    model, x = Told(0.5), images(2)
    model.train()
    carrier = Pipeline(tiny("noise2mnist"), model).using(steps=4)
    points: list[Tensor] = []
    for point in carrier.trajectory(x):
        assert torch.is_grad_enabled()
        assert not point.requires_grad
        points.append(point)
    torch.testing.assert_close(torch.stack(points), x + 0.5 * torch.linspace(0, 1, 5)[:, None, None, None, None])
    torch.testing.assert_close(
        torch.stack([t for _, t, _ in model.asked]), torch.arange(4)[:, None] / 4 * torch.ones(2)
    )
    assert not model.training


@pytest.mark.parametrize("reverse", [False, True])
def test_a_trajectory_runs_over_the_grid_of_its_configuration(reverse: bool, tiny: Callable[..., Config]) -> None:
    """At a constant speed, where a sample has come to is what the time is."""
    model, x = Told(0.5), images(2)
    carrier = Pipeline(tiny("noise2mnist", solver=SolverConfig(num_steps=4, grid_power=2.0)), model)
    grid = torch.tensor([0, 1 / 16, 1 / 4, 9 / 16, 1])  # (k/4)²
    grid = grid.flip(0) if reverse else grid
    points = torch.stack(list(carrier.trajectory(x, reverse=reverse)))
    torch.testing.assert_close(points, x + 0.5 * (grid - grid[0])[:, None, None, None, None])
    asked = torch.stack([t for _, t, _ in model.asked])
    torch.testing.assert_close(asked, grid[:-1, None].expand(4, 2))


def test_a_trajectory_goes_on_from_where_its_start_is(tiny: Callable[..., Config]) -> None:
    """From a time of the grid bit for bit as the whole trajectory, from between two of them to the next one."""
    carrier = Pipeline(tiny("noise2mnist", solver=SolverConfig(num_steps=4, grid_power=2.0)))
    points = list(carrier.trajectory(images(2)))
    for k, t in enumerate([0, 1 / 16, 1 / 4, 9 / 16, 1]):
        rest = list(carrier.trajectory(points[k], start=t))
        assert len(rest) == 5 - k and torch.equal(torch.stack(rest), torch.stack(points[k:]))
        assert carrier.evaluations(t) == 4 - k
    told = Told(0.5)
    between = list(Pipeline(carrier.config, told).trajectory(images(2), start=0.1))
    torch.testing.assert_close(torch.stack([t[0] for _, t, _ in told.asked]), torch.tensor([0.1, 1 / 4, 9 / 16]))
    torch.testing.assert_close(between[-1], images(2) + 0.5 * 0.9)


def test_noise_on_the_source_and_its_label_are_for_the_source_alone(tiny: Callable[..., Config]) -> None:
    carrier, x = Pipeline(tiny("fashion2mnist-published"), Told(0.0)).using(source_noise=0.4), images(2)
    assert torch.equal(next(carrier.trajectory(x, start=0.1)), x) and not torch.equal(next(carrier.trajectory(x)), x)
    told = Told()
    list(Pipeline(tiny("fashion2mnist-labels"), told).using(steps=1).trajectory(x, start=0.5))
    assert [condition.label.tolist() for _, _, condition in told.asked] == [[NULL, NULL]]


@pytest.mark.parametrize(
    ("name", "start", "reverse", "match"),
    [
        ("noise2mnist", 1.1, False, "start: got 1.1, expected a time from 0 to 1"),
        ("noise2mnist", math.nan, False, "start: got nan, expected a time from 0 to 1"),
        ("noise2mnist", 0.3, True, "start: got 0.3 in reverse, expected 0"),
        ("denoise-noise", 0.3, False, "start: got 0.3 for denoise-noise, whose network was trained at 0 alone, "),
        ("paired", 0.3, False, "start: got 0.3 for paired, whose network sees the source, expected 0"),
    ],
)
def test_a_start_that_cannot_be_is_refused(
    name: str, start: float, reverse: bool, match: str, tiny: Callable[..., Config]
) -> None:
    carrier = Pipeline(tiny(name))
    refused(
        f"^{match}", lambda: carrier.trajectory(torch.zeros(1, *carrier.config.shape), start=start, reverse=reverse)
    )


def test_a_stride_takes_the_whole_list_of_a_paths_levels(tiny: Callable[..., Config]) -> None:
    carrier = Pipeline(tiny("ddpm-mnist"), Told(0.0))
    strided = carrier.using(stride=30)
    assert (strided.nfe, strided.sampling) == (10, "ancestral, 10 steps of stride 30, NFE 10")
    assert ((1 - strided.grid()) * 300).tolist() == pytest.approx([*range(271, 0, -30), 0], abs=1e-4)
    assert torch.equal(strided.grid(reverse=True), strided.grid().flip(0))
    assert strided.using(guidance=1).config.solver.stride == 30
    assert torch.equal(strided.using(steps=20).grid(), torch.linspace(0, 1, 21))
    refused("^solver steps: got 9 of stride 30, expected 10 for the 300 levels of ddpm$", strided_of(carrier, 9))
    linear = Pipeline(tiny("noise2mnist"), Told(0.0)).using(stride=30, steps=34, solver="ancestral")
    assert ((1 - linear.grid()) * 991).tolist() == pytest.approx([*range(991, 0, -30), 0], abs=1e-4)


def strided_of(carrier: Pipeline, steps: int) -> Callable[[], Pipeline]:
    return lambda: carrier.using(stride=30, steps=steps)


def test_ancestral_steps_of_stride_one_are_those_of_all_levels(tiny: Callable[..., Config]) -> None:
    carrier = Pipeline(tiny("ddpm-mnist"))
    assert torch.equal(carrier.using(stride=1).sample(1), carrier.sample(1))


def test_images_are_clipped_and_points_in_the_plane_are_not(tiny: Callable[..., Config]) -> None:
    config = tiny("noise2mnist")
    assert Pipeline(config, Told(5.0)).translate(images(2)).max() == 1
    plane = replace(config, shape=(2,), target=MoonsConfig())
    moved = Pipeline(plane, Plane()).translate(torch.zeros(3, 2))
    torch.testing.assert_close(moved, torch.full((3, 2), 5.0))


class Plane(Told):
    def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return torch.full_like(xt, 5.0)


@pytest.mark.parametrize("shape", [(1, 28, 27), (3, 28, 28), (28, 28)])
def test_samples_of_another_shape_are_refused(shape: tuple[int, ...], tiny: Callable[..., Config]) -> None:
    got = re.escape(str((2, *shape)))
    with pytest.raises(UserError, match=rf"^samples: got shape {got}, expected \(B, 1, 28, 28\)$"):
        Pipeline(tiny("noise2mnist"), Told(0.0)).translate(torch.zeros(2, *shape))


# --- batches and seeds ----------------------------------------------------------------------------------


@each_sort
def test_the_batch_size_changes_nothing(name: str, pipeline: Callable[..., Pipeline]) -> None:
    carrier = pipeline(name)
    x, steps = images(7, shape=carrier.config.shape), min(3, carrier.config.solver.num_steps)
    labels = torch.arange(7) if carrier.config.num_classes else None
    results = [carrier.translate(x, labels, steps=steps, batch_size=size) for size in (7, 3, 1)]
    assert results[0].shape == x.shape
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=2e-5)


@each_sort
def test_samples_are_a_function_of_the_seed(name: str, pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    carrier = pipeline(name)
    steps = min(2, carrier.config.solver.num_steps)

    def sample(seed: int, batch_size: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        return carrier.sample(5, steps=steps, seed=seed, batch_size=batch_size, data_root=tmp_path)

    first = sample(0, 256, global_seed=1)
    assert first.shape == (5, *carrier.config.shape)
    assert torch.equal(sample(0, 256, global_seed=2), first)
    torch.testing.assert_close(sample(0, 2, global_seed=3), first, rtol=0, atol=2e-5)
    assert (sample(1, 256, global_seed=1) - first).abs().mean() > 0.01


def test_the_noise_of_the_ancestral_solver_is_a_function_of_seed_and_sample(tiny: Callable[..., Config]) -> None:
    """From the same start, and with a network that predicts the same for all."""
    carrier, x = Pipeline(tiny("ddpm-mnist"), Told(0.0)).using(steps=4), torch.zeros(6, 1, 28, 28)

    def penultimate(seed: int, first: int = 0, count: int = 6) -> Tensor:
        *_, point, _ = carrier.trajectory(x[:count], seed=seed, rows=range(first, first + count))
        return point

    points = penultimate(0)
    assert torch.equal(penultimate(0), points)
    torch.testing.assert_close(penultimate(0, first=2, count=3), points[2:5])
    others = torch.cat([points, penultimate(1)]).flatten(1)
    assert (torch.corrcoef(others) - torch.eye(12)).abs().max() < 5 / 28
    parts = [carrier.translate(x, seed=0, batch_size=size) for size in (1, 3, 7)]
    for part in parts[1:]:
        torch.testing.assert_close(part, parts[0])
    assert len(parts[0].unique(dim=0)) == 6
    assert not torch.equal(carrier.translate(x, seed=1), parts[0])


# --- noise on the source --------------------------------------------------------------------------------


def started(carrier: Pipeline, x: Tensor, **options: Any) -> Tensor:
    """The first point of a trajectory."""
    return next(carrier.trajectory(x, **options))


def test_noise_on_the_source_is_normal_and_a_function_of_seed_and_row(tiny: Callable[..., Config]) -> None:
    carrier, x = Pipeline(tiny("fashion2mnist-published"), Told(0.0)).using(source_noise=0.4), images(8)
    assert torch.equal(started(carrier.using(source_noise=0.0), x), x)
    noise = (started(carrier, x) - x) / 0.4
    bound = 5 / noise.numel() ** 0.5
    assert abs(noise.mean()) < bound and abs(noise.var() - 1) < 5 * (2 / noise.numel()) ** 0.5
    assert (torch.corrcoef(noise.flatten(1)) - torch.eye(8)).abs().max() < 5 / 28
    other = (started(carrier, x, seed=1) - x) / 0.4
    assert abs((noise * other).mean()) < bound
    rows = [5, 2**62, 5]
    named = started(carrier, x[:1].expand(3, -1, -1, -1), rows=rows)
    assert torch.equal(named[0], named[2]) and not torch.equal(named[0], named[1])
    torch.testing.assert_close(named[0], x[0] + 0.4 * noise[5])


def test_noise_on_the_source_depends_on_no_batch_and_is_not_added_in_reverse(tiny: Callable[..., Config]) -> None:
    carrier, x = Pipeline(tiny("fashion2mnist-published"), Told(0.0)).using(source_noise=0.4, steps=2), images(7)
    parts = [carrier.translate(x, seed=3, batch_size=size) for size in (1, 3, 7)]
    assert torch.equal(parts[0], parts[1]) and torch.equal(parts[1], parts[2])
    assert not torch.equal(parts[0], carrier.translate(x, seed=4))
    assert torch.equal(started(carrier, x, reverse=True), x)


def test_a_network_that_sees_the_source_sees_it_without_the_noise(tiny: Callable[..., Config]) -> None:
    config = tiny("fashion2mnist", model=PatchUNetConfig(widths=(8, 16), sees_source=True))
    model, x = Told(0.0), images(3)
    started_from, *_ = Pipeline(config, model).using(source_noise=0.4).trajectory(x)
    assert all(torch.equal(condition.image, x) for _, _, condition in model.asked)
    assert torch.equal(model.asked[0][0], started_from) and not torch.equal(started_from, x)


@pytest.mark.parametrize("seed", [0, 1])
def test_sampling_is_translating_noise_with_the_noise_of_the_same_seed(seed: int, tiny: Callable[..., Config]) -> None:
    model = Told(0.0)
    carrier = Pipeline(tiny("ddpm-mnist"), model).using(steps=3)
    samples = carrier.sample(4, seed=seed)
    start, *_ = model.asked[0]
    torch.testing.assert_close(carrier.translate(start, seed=seed), samples, rtol=0, atol=0)
    assert not torch.equal(carrier.translate(start, seed=2), samples)


def test_sampling_a_translation_starts_from_test_images_of_its_source(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("fashion2mnist-published")
    samples = Pipeline(config, Told(0.0)).sample(20, steps=1, data_root=tmp_path)  # what stays as it is drawn
    source = build_sampler(config.source, config.shape, data_root=tmp_path, split="test", device=samples.device)
    garments = source.draw(64, seed=0, step=0).samples  # all of them
    assert (samples[:, None] == garments).flatten(2).all(dim=2).any(dim=1).all()
    assert len(samples.unique(dim=0)) == 20


def test_sampling_from_noise_starts_from_unit_noise(tiny: Callable[..., Config]) -> None:
    carrier = Pipeline(tiny("noise2mnist"), Told(0.0))
    samples = carrier.sample(64, steps=1)
    inside = samples[samples.abs() < 1]  # the rest is clipped
    assert abs(len(inside) / samples.numel() - math.erf(1 / math.sqrt(2))) < 0.01
    assert abs(inside.mean().item()) < 0.01


# --- labels, guidance, cost -----------------------------------------------------------------------------


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("batch_size", [2, 256])
def test_each_sample_is_guided_by_its_own_label(w: float, batch_size: int, tiny: Callable[..., Config]) -> None:
    labels, x = torch.tensor([3, 0, 9, NULL, 5]), images(5)
    moved = Pipeline(tiny("noise2mnist-cfg-published"), Told()).translate(
        x, labels, guidance=w, steps=4, batch_size=batch_size
    ) - x  # fmt: skip
    uncond, cond = NULL / 100, labels / 100
    expected = (uncond + w * (cond - uncond))[:, None, None, None].expand_as(x)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)


def test_without_labels_a_class_conditioned_pipeline_is_told_the_null_label(tiny: Callable[..., Config]) -> None:
    model = Told()
    Pipeline(tiny("noise2mnist-cfg-published"), model).translate(images(3), steps=2)
    assert model.asked and all((condition.label == NULL).all() for _, _, condition in model.asked)


@pytest.mark.parametrize(
    "labels", [[1, 2], [1, 2, 3, 4], [1, 2, NULL + 1], [-1, 2, 3], [[1, 2, 3]], 1, [1.0, 2.0, 3.0]]
)
def test_labels_that_do_not_fit_are_refused_before_anything_is_computed(
    labels: Any, tiny: Callable[..., Config]
) -> None:
    model = Told()
    with pytest.raises(UserError, match=r"^labels: got .*, expected 3 whole numbers from 0 to 9, or 10 for no class$"):
        Pipeline(tiny("noise2mnist-cfg-published"), model).translate(
            images(3), torch.tensor(labels), steps=1, batch_size=1
        )
    assert not model.asked


def test_a_batch_of_none_is_refused(tiny: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"^batch_size: got 0, expected a number ≥ 1$"):
        Pipeline(tiny("fashion2mnist-published"), Told()).translate(images(3), batch_size=0)


def test_images_are_clipped_and_recovered_noise_is_not(tiny: Callable[..., Config]) -> None:
    """Told moves every sample by its null label / 100 or less: from ±1 that leaves [-1, 1]."""
    x = torch.ones(2, 1, 28, 28)
    there = Pipeline(tiny("noise2mnist-cfg-published"), Told()).translate(x, steps=1)
    back = Pipeline(tiny("noise2mnist-cfg-published"), Told()).invert(-x, steps=1)
    assert (there == 1).all() and (back < -1).all()


def test_labels_are_refused_where_there_are_no_classes(tiny: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"^fashion2mnist-published has no classes: got labels, expected None$"):
        Pipeline(tiny("fashion2mnist-published"), Told(0.0)).translate(images(1), torch.tensor([3]), steps=1)


@pytest.mark.parametrize("solver", [name for name, solver in SOLVERS.items() if not solver.two_times])
@pytest.mark.parametrize(
    "name, w",
    [
        ("noise2mnist", 5.0),
        ("noise2mnist-cfg-published", 0.0),
        ("noise2mnist-cfg-published", 1.0),
        ("noise2mnist-cfg-published", 5.0),
    ],
)
def test_the_declared_evaluations_are_the_rows_the_network_saw(
    solver: str, name: str, w: float, tiny: Callable[..., Config]
) -> None:
    model = Told(0.0)
    carrier = Pipeline(tiny(name), model).using(solver=solver, steps=3, guidance=w)
    carrier.translate(images(5), torch.arange(5) if carrier.config.num_classes else None, batch_size=2)
    assert sum(len(xt) for xt, _, _ in model.asked) == 5 * carrier.nfe


def test_using_changes_what_it_is_told_and_nothing_else(tiny: Callable[..., Config]) -> None:
    carrier = Pipeline(tiny("noise2mnist-cfg-published"), Told())
    assert carrier.using().config == carrier.config
    changed = carrier.using(guidance=0.0).config
    assert changed == replace(carrier.config, solver=replace(carrier.config.solver, guidance=0.0))
    assert carrier.using(solver="rk4", steps=3).config.solver.num_steps == 3
    with pytest.raises(
        UserError, match=r"^name: got 'magic', expected one of euler, midpoint, heun, rk4, ab2, ddim, ancestral, map$"
    ):
        carrier.using(solver="magic")


class Rows:
    """Counts a network's calls and the rows of each."""

    def __init__(self, network: nn.Module) -> None:
        self.calls: list[int] = []
        network.register_forward_hook(lambda module, inputs, output: self.calls.append(len(inputs[0])))


@pytest.mark.parametrize("name, solver", [("noise2mnist-cfg-published", "euler"), ("ddpm-mnist-cfg", "ancestral")])
@pytest.mark.parametrize("w, forwards", [(5.0, 2), (1.0, 1), (0.0, 1)])
def test_guidance_costs_one_doubled_forward_a_step(
    name: str, solver: str, w: float, forwards: int, pipeline: Callable[..., Pipeline]
) -> None:
    carrier = pipeline(name).using(steps=3, guidance=w)
    assert carrier.config.solver.name == solver  # the preset's own
    seen = Rows(carrier.model)
    carrier.translate(images(5), torch.arange(5))
    assert seen.calls == [5 * forwards] * 3
    assert carrier.nfe == 3 * forwards
    carrier.translate(images(5))
    assert seen.calls[3:] == [5] * 3  # where no class is asked for, there is nothing to guide to


@pytest.mark.parametrize("w, speed, forwards", [(2.0, 0.15, 2), (1.0, 0.1, 1), (0.0, 0.05, 1)])
def test_a_weaker_network_is_what_guidance_leads_away_from(
    w: float, speed: float, forwards: int, tiny: Callable[..., Config]
) -> None:
    """Without classes and with them, whether or not one is asked for."""
    x, networks = images(3), (Told(0.1), Told(0.05))
    for name, labels in [("fashion2mnist", None), ("noise2mnist-cfg", None), ("noise2mnist-cfg", torch.arange(3))]:
        config = tiny(name, solver=SolverConfig(num_steps=2))
        carrier = Pipeline(config, networks[0], weaker=networks[1]).using(guidance=w)
        torch.testing.assert_close(carrier.translate(x, labels), x + speed)
        assert carrier.nfe == 2 * forwards and f", w = {w:g}" in carrier.sampling
        assert all(not network.training for network, share in zip(networks, (w, 1 - w), strict=True) if share)
    plain = Pipeline(tiny("fashion2mnist", solver=SolverConfig(num_steps=2)), networks[0]).using(guidance=w)
    torch.testing.assert_close(plain.translate(x), x + 0.1)  # there is nothing to lead away from
    assert plain.nfe == 2 and "w = " not in plain.sampling


@pytest.mark.parametrize("name", ["noise2mnist-cfg-published", "ddpm-mnist-cfg"])
def test_the_presets_with_classes_are_guided_by_5(name: str, tiny: Callable[..., Config]) -> None:
    carrier = Pipeline(tiny(name), Told(0.0))
    assert carrier.config.solver.guidance == 5
    assert carrier.nfe == 2 * carrier.config.solver.num_steps


class ByLabel(nn.Module):
    """Predicts something that depends on the point, on the time, and on the label."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        label, t = (row[:, None, None, None] for row in (condition.label, t))
        return torch.sin(xt * (1 + label) + 3 * t) + label / 10 + self.zero


def velocity_of(carrier: Pipeline, x: Tensor, labels: Tensor | None) -> Velocity:
    """Return the velocity that the pipeline would follow from x."""
    found: list[Velocity] = []

    def take(velocity: Velocity) -> Velocity:
        found.append(velocity)
        return velocity

    carrier.trajectory(x, labels, edit_velocity=take)
    (velocity,) = found
    return velocity


@pytest.mark.parametrize("prediction", ["source", "target"])
@pytest.mark.parametrize("w", [5.0, 0.0, 1.0])
def test_guiding_velocities_is_guiding_what_they_were_derived_from(
    prediction: str, w: float, tiny: Callable[..., Config]
) -> None:
    network, labels, x = ByLabel(), torch.tensor([3, 0, 9]), images(3).double()
    carrier = Pipeline(tiny("ddpm-mnist-cfg", prediction=prediction), network).using(guidance=w)
    v_from = {"source": velocity_from_source, "target": velocity_from_target}[prediction]
    velocity = velocity_of(carrier, x, labels)
    for t in torch.tensor([0, 0.4, 299 / 300], dtype=torch.float64):
        told = (Condition(label, num_classes=NULL) for label in (labels, torch.full((3,), NULL)))
        cond, uncond = (network(x, t.expand(3), condition) for condition in told)
        expected = v_from(PATHS["ddpm"], uncond + w * (cond - uncond), x, t.expand(3))
        torch.testing.assert_close(velocity(x, t), expected, rtol=1e-9, atol=1e-9)


# --- one step ---------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """Predicts the same image for everything."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1, 28, 28))

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        return self.image.expand_as(xt)


def test_of_all_images_the_mean_is_the_best_answer_to_pure_noise(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config, network = tiny("denoise-noise"), Constant()
    made = Pipeline(config, network)
    source, target = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    pairs = draw_pairs(config, source, target, target.size, seed=0, step=0)
    mean = pairs.x1.mean(dim=0)

    # The loss is quadratic with Hessian 2/784: a gradient step of 784/2 is Newton's, and ends at the minimum.
    optimizer = torch.optim.SGD(network.parameters(), lr=784 / 2)
    made.loss(*pairs).backward()
    optimizer.step()
    torch.testing.assert_close(network.image.data, mean, rtol=0, atol=1e-5)

    network.image.data = mean.clone()
    least = made.loss(*pairs).item()
    assert least == pytest.approx(pairs.x1.var(dim=0, correction=0).mean().item(), rel=1e-5)
    for other in (pairs.x0[0], pairs.x1[0], torch.zeros_like(mean), mean + 0.1):
        network.image.data = other.clone()
        assert made.loss(*pairs).item() == pytest.approx(least + (other - mean).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    "name, solver", [("denoise-mnist", "euler"), ("denoise-noise", "euler"), ("denoise-noise", "ancestral")]
)
def test_a_denoiser_gives_what_its_network_predicts(name: str, solver: str, pipeline: Callable[..., Pipeline]) -> None:
    carrier, x = pipeline(name).using(solver=solver), images(4, reach=3)
    assert carrier.nfe == 1
    start, end = carrier.trajectory(x)
    for t in (0.0, 0.3, 1.0):  # of which it knows nothing
        predicted = carrier.model(x, torch.full((4,), t)).detach()
        torch.testing.assert_close(end, predicted, rtol=0, atol=1e-6)
    assert torch.equal(start, x)
    torch.testing.assert_close(carrier.translate(x), predicted.clamp(-1, 1), rtol=0, atol=1e-6)


def test_a_denoiser_is_asked_at_the_source_alone(tiny: Callable[..., Config]) -> None:
    for solver in ("euler", "heun", "rk4"):
        model = Told(0.1)
        Pipeline(tiny("denoise-noise"), model).translate(images(2), solver=solver)
        assert all((t == 0).all() for _, t, _ in model.asked)


# --- from one Gaussian to another, in closed form -----------------------------------------------------------

M, S = torch.tensor([1.5, -2.0], dtype=torch.float64), 0.5
BETAS = torch.linspace(1e-4, 0.02, 300, dtype=torch.float64)
LOG_ABAR = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-BETAS).cumsum(0)])


def coefficients(path: str, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """α, β, α', β' at t [B, 1], written out again; of ddpm at its levels, where β' = β/2·d log ᾱ/dt."""
    if path == "linear":
        return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)
    if path == "cosine":
        half = math.pi / 2
        return (half * t).cos(), (half * t).sin(), -half * (half * t).sin(), half * (half * t).cos()
    s = (300 * (1 - t)).round().long()
    log_abar, next_log_abar = LOG_ABAR[s], LOG_ABAR[s - 1]
    a, b = (1 - log_abar.exp()).sqrt(), (log_abar / 2).exp()
    db = b / 2 * 300 * (next_log_abar - log_abar)
    return a, b, -b * db / a, db


class Exact(nn.Module):
    """E[what is to be predicted | x_t] for independent x0 ~ N(0, I) and x1 ~ N(M, S²·I), all jointly normal."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.path, self.prediction, self.zero = config.path, config.prediction, nn.Parameter(torch.zeros(1))
        self.asked: list[float] = []

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        self.asked += t.tolist()
        a, b, da, db = coefficients(self.path, t.double()[:, None])
        off = (xt - b * M) / (a**2 + b**2 * S**2)
        answers = {
            "velocity": db * M + (a * da + b * db * S**2) * off,
            "source": a * off,
            "target": M + b * S**2 * off,
        }
        return answers[self.prediction] + self.zero


def exact(tiny: Callable[..., Config], path: str, prediction: str, solver: str, steps: int) -> Pipeline:
    solving = SolverConfig(name=solver, num_steps=steps)
    config = tiny("gaussian2d", path=path, prediction=prediction, solver=solving)
    return Pipeline(config, Exact(config))


def start_and_end(path: str, count: int = 50) -> tuple[Tensor, Tensor]:
    """x_0 and what the ODE makes of it: β_t·M + √V_t·z with V_t = α_t² + β_t²·S² solves dx/dt = v for any z."""
    a, b, *_ = coefficients(path, torch.zeros(1, 1, dtype=torch.float64))
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, M + S * (x - b * M) / (a**2 + b**2 * S**2).sqrt()


EXACT = [("linear", "velocity"), ("cosine", "velocity"), ("linear", "target"), ("cosine", "target")]


@pytest.mark.parametrize("path, prediction", EXACT)
@pytest.mark.parametrize(
    "solver, steps, tolerance", [("heun", 100, 1e-3), ("rk4", 200, 3e-4), ("ab2", 200, 1e-3), ("euler", 500, 1e-2)]
)
def test_the_exact_prediction_leads_along_the_exact_map_and_back(
    path: str, prediction: str, solver: str, steps: int, tolerance: float, tiny: Callable[..., Config]
) -> None:
    x0, x1 = start_and_end(path)
    carrier = exact(tiny, path, prediction, solver, steps)
    torch.testing.assert_close(carrier.translate(x0), x1, rtol=0, atol=tolerance)
    torch.testing.assert_close(carrier.invert(x1), x0, rtol=0, atol=3 * tolerance)


def test_on_the_path_of_ddpm_all_predictions_lead_the_same_way_and_back(tiny: Callable[..., Config]) -> None:
    """Along the exact map, but for Euler's error; asked at the levels only, and never of the clean image.

    With the velocity predicted, nothing of the path is used but `Exact`'s own formulas.
    """
    x0, x1 = start_and_end("ddpm")
    carriers = [exact(tiny, "ddpm", name, "euler", 300) for name in ("velocity", "source", "target")]
    ends = [carrier.translate(x0) for carrier in carriers]
    starts = [carrier.invert(x1) for carrier in carriers]
    for found in (ends, starts):
        for other in found[1:]:
            torch.testing.assert_close(other, found[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(ends[1], x1, rtol=0, atol=0.015)
    torch.testing.assert_close(starts[1], x0, rtol=0, atol=0.05)
    torch.testing.assert_close(carriers[1].translate(starts[1]), x1, rtol=0, atol=0.015)  # there and back
    for carrier in carriers:
        levels = 300 * (1 - torch.tensor(carrier.model.asked))
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
        assert levels.round().unique().tolist() == list(range(1, 301))


# --- what does not go together ------------------------------------------------------------------------------


def refused(match: str, made: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=match) as told:
        made()
    assert "\n" not in str(told.value)


def test_the_ancestral_solver_is_refused_where_the_source_is_not_unit_noise(tiny: Callable[..., Config]) -> None:
    ancestral = SolverConfig(name="ancestral")
    for name in ("fashion2mnist-published", "denoise-mnist"):
        match = r"^solver ancestral: got \w+Config\(.*expected the source GaussianConfig\(.*mean=0.0, std=1.0\)$"
        refused(match, lambda name=name: tiny(name, solver=ancestral))
        refused(match, lambda name=name: Pipeline(tiny(name), Told(0.0)).using(solver="ancestral"))
        refused(match, lambda name=name: Pipeline(tiny(name), Told(0.0)).translate(images(1), solver="ancestral"))
    for other in (GaussianConfig(mean=1.0), GaussianConfig(std=2.0)):
        refused("^solver ancestral: ", lambda other=other: tiny("noise2mnist", source=other, solver=ancestral))
    tiny("noise2mnist", solver=ancestral)


def test_the_ancestral_solver_is_refused_in_reverse(tiny: Callable[..., Config]) -> None:
    model = Told(0.0)
    carrier = Pipeline(tiny("ddpm-mnist"), model)
    match = "^solver ancestral runs from source to target only: expected in reverse euler, midpoint, heun, rk4, ab2$"
    refused(match, lambda: carrier.invert(images(1)))
    refused(match, lambda: carrier.trajectory(images(1), reverse=True))  # at once, not at the first point
    assert not model.asked
    assert carrier.invert(images(1), solver="euler", steps=2).isfinite().all()


@pytest.mark.parametrize(
    "name, levels, where", [("ddpm-mnist", 300, "path ddpm"), ("denoise-noise", 1, "objective one-step")]
)
def test_more_steps_than_levels_are_refused(name: str, levels: int, where: str, tiny: Callable[..., Config]) -> None:
    carrier = Pipeline(tiny(name), Told(0.0))
    match = rf"^solver steps: got {levels + 1}, expected at most {levels} for the {where}$"
    refused(match, lambda: carrier.using(steps=levels + 1))
    refused(match, lambda: carrier.sample(1, steps=levels + 1))
    refused(match, lambda: Pipeline(tiny(name, solver=SolverConfig(num_steps=levels + 1)), Told(0.0)))
    assert carrier.using(steps=levels).config.solver.num_steps == levels


@pytest.mark.parametrize("path", ["linear", "cosine", "one-step"])
def test_predicting_the_source_is_refused_where_that_says_nothing_of_the_target(
    path: str, tiny: Callable[..., Config]
) -> None:
    config = tiny("denoise-noise", path=path, prediction="source")
    on = "linear" if path == "one-step" else path  # which is short for one step on the linear path
    refused(rf"^prediction source: got the path {on}, expected ddpm$", lambda: Pipeline(config, Told(0.0)))


@pytest.mark.parametrize("name", ["denoise-mnist", "denoise-noise"])
def test_one_step_is_refused_in_reverse(tiny: Callable[..., Config], name: str) -> None:
    carrier = Pipeline(tiny(name), Told(0.1))
    for backwards in (carrier.invert, lambda x: carrier.trajectory(x, reverse=True)):
        with pytest.raises(UserError, match=f"^{name} runs from source to target only, because it takes one step$"):
            backwards(images(1))
