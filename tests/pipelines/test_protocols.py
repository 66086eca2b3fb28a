"""The protocols hold: a network, an objective and an edit from outside are a few lines each, and work everywhere."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.components import GaussianConfig
from flowferry.configs.recipe import SolverConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import Range, UserError, Validated
from flowferry.datasets.builders import build_samplers
from flowferry.datasets.rng import derive_seed
from flowferry.models import MODELS
from flowferry.models.base import Network
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.objectives import OBJECTIVES, Objective
from flowferry.pipelines.flow.solvers import SOLVERS, Step, Velocity
from flowferry.pipelines.training.batches import Pairs, draw_pairs
from flowferry.pipelines.training.distributed import make_accelerator
from flowferry.pipelines.training.step import TrainStep

NULL = 10
CPU = torch.device("cpu")


def lines(*code: Any) -> int:
    """Return how many lines the source of some functions and classes takes, blank ones included."""
    return sum(len(inspect.getsource(part).splitlines()) for part in code)


def images(count: int, seed: int = 1) -> Tensor:
    return torch.empty(count, 1, 28, 28).uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(seed))


def made_train_step(config: Config, root: Path) -> TrainStep:
    accelerator = make_accelerator(config.train)
    samplers = build_samplers(config, data_root=root, split="train", device=accelerator.device)
    return TrainStep(config, accelerator, *samplers)


# --- a network that sees the source image ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SeeingConfig(Validated):
    kind: str = field(default="seeing", init=False)
    width: Annotated[int, Range(1)] = 16


class Seeing(Network):
    sees_source = takes_classes = True

    def __init__(self, config: SeeingConfig, *, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.label, widths = nn.Embedding(num_classes + 1, 1), (2 * shape[0] + 1, config.width, shape[0])
        self.first, self.last = (nn.Conv2d(*pair, 3, padding=1) for pair in pairwise(widths))

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        told = self.label(torch.zeros_like(t).long() if condition.label is None else condition.label)[:, 0] + t
        return self.last(self.first(torch.cat([xt, condition.image, told[:, None, None, None] * xt], dim=1)).relu())


def add_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "seeing", Seeing)


@pytest.fixture
def seeing(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """seeing(name, **train): a named pipeline with the network that sees the source."""
    add_network(monkeypatch)

    def make(name: str = "fashion2mnist-published", **train: Any) -> Config:
        config = tiny(name, model=SeeingConfig(), seed=3)
        return replace(config, train=replace(config.train, **{"batch_size": 16, "threads": 1, **train}))

    return make


class Watch:
    """Remembers what a network is given, and its condition."""

    def __init__(self, network: nn.Module) -> None:
        self.inputs: list[Tensor] = []
        self.told: list[Condition] = []
        network.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, network: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.inputs.append(inputs[0].detach())
        self.told.append(options["condition"] if "condition" in options else inputs[2])

    @property
    def images(self) -> list[Tensor]:
        return [condition.image for condition in self.told]


def test_a_network_that_sees_the_source_takes_20_lines() -> None:
    assert lines(SeeingConfig, Seeing, add_network) <= 20


def clean_source(config: Config, root: Path, number: int) -> Tensor:
    """Return the source images of step `number`, as the data set holds them."""
    source, _ = build_samplers(config, data_root=root, split="train", device=CPU)
    return source.draw(config.train.batch_size, seed=derive_seed(config.seed, "source"), step=number).samples


@pytest.mark.parametrize("source_noise", [0.0, 0.4])
def test_in_training_it_sees_the_clean_source(
    source_noise: float, seeing: Callable[..., Config], tmp_path: Path
) -> None:
    config = seeing(source_noise=source_noise)
    samplers = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    pairs = draw_pairs(config, *samplers, 16, seed=config.seed, step=2)
    assert torch.equal(pairs.condition.image, clean_source(config, tmp_path, 2))
    added = pairs.x0 - pairs.condition.image
    assert added.std().item() == pytest.approx(source_noise, abs=0.02)  # which x_0 is not, where noise is added


@pytest.mark.parametrize("of", [1, 2, 4])
def test_each_process_sees_the_images_of_its_own_shard(of: int, seeing: Callable[..., Config], tmp_path: Path) -> None:
    config = seeing()
    samplers = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    whole = draw_pairs(config, *samplers, 16, seed=config.seed, step=0)
    shards = [whole.shard(index, of) for index in range(of)]
    for shard in shards:
        assert torch.equal(shard.condition.image, shard.x0)  # no noise is added here
    assert torch.equal(torch.cat([shard.condition.image for shard in shards]), whole.condition.image)


def test_a_training_step_shows_it_the_clean_images_of_each_part(seeing: Callable[..., Config], tmp_path: Path) -> None:
    config = seeing(source_noise=0.4, accumulate=2)
    step = made_train_step(config, tmp_path)
    watch = Watch(step.raw_model)
    step.take(5, lr=1e-3)
    assert [len(image) for image in watch.images] == [8, 8]
    assert torch.equal(torch.cat(watch.images), clean_source(config, tmp_path, 5))


def test_trained_it_makes_use_of_the_image(seeing: Callable[..., Config], tmp_path: Path) -> None:
    """A few steps towards the source image itself, which x_t no longer shows at t = 1 nor says exactly before."""
    config = seeing(optimizer="adam", ema=None, clip_norm=None, source_noise=0.4)
    config = replace(config, prediction="target", target=config.source, coupling="given")
    step = made_train_step(config, tmp_path)
    fixed = step.global_batch(1000)

    def loss(pairs: Pairs) -> float:
        with torch.no_grad():
            return step.pipeline.loss(*pairs).item()

    before = loss(fixed)
    for number in range(60):
        step.take(number, lr=1e-2)
    after = loss(fixed)
    assert after < 0.5 * before
    wrong = fixed.condition._replace(image=fixed.condition.image.roll(1, 0))
    assert loss(fixed._replace(condition=wrong)) > 2 * after


@pytest.mark.parametrize("batch_size", [2, 256])
def test_a_translation_shows_it_each_sample_s_own_source_at_all_times(
    batch_size: int, seeing: Callable[..., Config]
) -> None:
    pipeline, x = Pipeline(seeing()), images(5)
    watch = Watch(pipeline.model)
    moved = pipeline.translate(x, steps=3, batch_size=batch_size)
    assert (moved - x).abs().mean() > 0.01
    blocks = list(x.split(batch_size))
    assert len(watch.images) == 3 * len(blocks)
    for number, image in enumerate(watch.images):
        assert torch.equal(image, blocks[number // 3])
        assert torch.equal(watch.inputs[number], image) == (number % 3 == 0)  # x_t itself moves on
    others = Pipeline(pipeline.config, pipeline.model).translate(x.flip(0), steps=3, batch_size=batch_size).flip(0)
    torch.testing.assert_close(moved, others)


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
def test_guidance_shows_it_the_image_with_and_without_the_label(w: float, seeing: Callable[..., Config]) -> None:
    pipeline, x, labels = Pipeline(seeing("noise2mnist-cfg-published")), images(3), torch.tensor([4, 0, 9])
    watch = Watch(pipeline.model)
    pipeline.translate(x, labels, steps=2, guidance=w)
    halves = {0.0: [NULL] * 3, 1.0: [4, 0, 9], 3.0: [4, 0, 9] + [NULL] * 3}[w]
    for told in watch.told:
        assert told.label.tolist() == halves
        assert torch.equal(told.image, x if w in (0, 1) else torch.cat([x, x]))
    assert len(watch.told) == 2


def test_in_reverse_it_is_refused_because_the_source_is_not_known(seeing: Callable[..., Config]) -> None:
    pipeline = Pipeline(seeing())
    watch = Watch(pipeline.model)
    assert pipeline.sees_source and not pipeline.is_invertible
    for refused in (pipeline.invert, lambda x: pipeline.trajectory(x, reverse=True)):
        with pytest.raises(
            UserError, match=r"runs from source to target only, because its network seeing sees the source$"
        ):
            refused(images(1))
    assert not watch.told


def test_networks_that_do_not_see_the_source_are_not_shown_it(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("fashion2mnist-published")
    samplers = build_samplers(config, data_root=tmp_path, split="train", device=CPU)
    assert draw_pairs(config, *samplers, 4, seed=0, step=0).condition.image is None
    pipeline = Pipeline(config)
    watch = Watch(pipeline.model)
    pipeline.translate(images(2), steps=1)
    assert watch.images == [None] and pipeline.is_invertible


# --- an objective ---------------------------------------------------------------------------------------

LAST = 0.9


def late_weighted(network, path, prediction, distance, x0, x1, t):  # type: ignore[no-untyped-def]
    """Return E (1 + t)·‖network(x_t, t) − x1‖²: regression on the target that counts late times more."""
    errors = (network(path.interpolate(x0, x1, t), t) - x1).square().flatten(1).mean(dim=1)
    return ((1 + t) * errors).mean()


def inside(velocity: Velocity, solver: Callable[[Velocity], Step]) -> Step:
    """Return a step towards the predicted target, clipped to [-1, 1]."""

    def step(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        return torch.lerp(x, (x + (1 - t) * velocity(x, t)).clamp(-1, 1), h / (1 - t))

    return step


def add_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    regression = Objective(lambda u, power, start, path: LAST * u, late_weighted, inside, max_time=LAST, nfe=1)
    monkeypatch.setitem(OBJECTIVES, "regression", regression)
    monkeypatch.setitem(Config.__annotations__, "objective", Literal[tuple(OBJECTIVES)])  # in configs/schema.py


@pytest.fixture
def regression(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Config:
    """A pipeline in the plane with the added objective, from N(0, I) to N(½, 0.1²·I)."""
    add_objective(monkeypatch)
    target, solver = GaussianConfig(mean=0.5, std=0.1), SolverConfig(name="rk4", num_steps=5)
    config = tiny("gaussian2d", objective="regression", prediction="target", target=target, solver=solver, seed=3)
    train = {"batch_size": 64, "threads": 1, "optimizer": "adam", "ema": None, "clip_norm": None}
    return replace(config, train=replace(config.train, **train))


def test_an_objective_takes_20_lines() -> None:
    assert lines(late_weighted, inside, add_objective) <= 20


def test_without_being_added_an_objective_is_refused(tiny: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"^objective: got 'regression', expected one of flow, one-step, map$"):
        tiny("gaussian2d", objective="regression")


def test_an_added_objective_trains_at_its_own_times_on_its_own_loss(regression: Config, tmp_path: Path) -> None:
    step = made_train_step(regression, tmp_path)
    pairs = step.global_batch(0)
    assert 0.8 < pairs.t.max() <= LAST
    t = pairs.t[:, None]
    answer = step.raw_model((1 - t) * pairs.x0 + t * pairs.x1, pairs.t)
    expected = ((1 + t) * (answer - pairs.x1) ** 2).mean()
    loss, _ = step.take(0, lr=1e-3)
    torch.testing.assert_close(loss, expected.detach())


def test_an_added_objective_samples_with_its_own_steps(regression: Config, tmp_path: Path) -> None:
    step = made_train_step(regression, tmp_path)
    for number in range(300):
        step.take(number, lr=5e-3)
    pipeline = Pipeline(regression, step.eval_pipeline.model)
    watch = Watch(pipeline.model)
    samples = pipeline.sample(500)
    assert (samples.mean(dim=0) - 0.5).abs().max() < 0.05
    assert samples.std() < 0.25  # it began at 1
    assert len(watch.told) == 2 * 5 and pipeline.nfe == 5  # in two blocks: one evaluation a step, whatever the solver
    assert pipeline.max_time == LAST


def test_an_added_objective_clips_what_a_solver_would_not(regression: Config) -> None:
    class Far(nn.Module):
        """Predicts a target at 3, and remembers the times it was asked."""

        def __init__(self) -> None:
            super().__init__()
            self.far, self.asked = nn.Parameter(torch.tensor(3.0)), []

        def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
            self.asked.append(t[0].item())
            return self.far.expand_as(xt)

    network, x = Far(), torch.tensor([[-2.0, 0.3]])
    *_, end = Pipeline(regression, network).using(steps=20).trajectory(x)
    assert torch.equal(end, torch.ones(1, 2))
    assert max(network.asked) == pytest.approx(LAST)  # also at the later points of the grid
    flow = replace(regression, objective="flow")
    *_, end = Pipeline(flow, network).using(solver="euler").trajectory(x)
    torch.testing.assert_close(end, torch.full((1, 2), 3.0), rtol=0, atol=1e-5)


# --- edits ----------------------------------------------------------------------------------------------


def keep(known: Tensor, mask: Tensor, start: Tensor) -> Callable[[Step], Step]:
    """Return an edit that keeps the known pixels, where mask, on the straight path from `start`: inpainting."""

    def edit(step: Step) -> Step:
        def edited(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
            return torch.where(mask, (1 - (t + h)) * start + (t + h) * known, step(x, t, h))

        return edited

    return edit


def descend(energy: Callable[[Tensor], Tensor], strength: float) -> Callable[[Velocity], Velocity]:
    """Return an edit that also moves down an energy, whose gradient autograd computes."""

    def edit(velocity: Velocity) -> Velocity:
        def edited(x: Tensor, t: Tensor) -> Tensor:
            at = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy(at).sum(), at)
            return velocity(x, t) - strength * slope

        return edited

    return edit


class Constant(nn.Module):
    """Predicts the same speed everywhere, or label/100 with classes."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self.speed = nn.Parameter(torch.tensor(speed))

    def forward(self, xt: Tensor, t: Tensor, condition: Condition) -> Tensor:
        by_label = 0 if condition.label is None else condition.label[:, None, None, None] / 100
        return (self.speed + by_label).expand_as(xt)


def test_an_edit_takes_20_lines() -> None:
    assert lines(keep) <= 20
    assert lines(descend) <= 20


def left_half() -> Tensor:
    mask = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
    mask[..., :14] = True
    return mask


@pytest.mark.parametrize("name", ["noise2mnist-published", "noise2mnist-cfg-published", "ddpm-mnist", "denoise-noise"])
@pytest.mark.parametrize("solver", [name for name, solver in SOLVERS.items() if not solver.two_times])
def test_known_pixels_are_exact_at_the_end(name: str, solver: str, pipeline: Callable[..., Pipeline]) -> None:
    carrier = pipeline(name)
    carrier = carrier.using(solver=solver, steps=1 if name == "denoise-noise" else 6)
    x, known, mask = images(3), images(3, seed=2), left_half()
    labels = torch.tensor([1, 2, 3]) if carrier.config.num_classes else None
    plain = list(carrier.trajectory(x, labels))
    points = list(carrier.trajectory(x, labels, edit_step=keep(known, mask, x)))
    assert torch.equal(points[-1][..., :14], known[..., :14])
    assert torch.equal(points[0], x)
    if len(points) > 2:  # the others stay the network's, which sees the known ones
        middle = points[1][..., :14] - x[..., :14]
        torch.testing.assert_close(middle, (known - x)[..., :14] / 6)
        assert (points[-1] - plain[-1])[..., 14:].abs().mean() > 1e-5
    torch.testing.assert_close(points[1][..., 14:], plain[1][..., 14:])  # until a step has seen them


@pytest.mark.parametrize("steps", [1, 8])
@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_an_edited_velocity_is_what_the_solver_follows(
    steps: int, strength: float, tiny: Callable[..., Config]
) -> None:
    """With v = c and the energy ‖x − g‖²/2, Euler's steps lead from x to m + (x − m)·(1 − s/n)^n, m = g + c/s."""
    x, goal, speed = images(3), images(3, seed=2), 0.3
    carrier = Pipeline(tiny("noise2mnist"), Constant(speed)).using(solver="euler", steps=steps)
    edit = descend(lambda at: (at - goal).square() / 2, strength)
    *_, end = carrier.trajectory(x, edit_velocity=edit)
    middle = goal + speed / strength
    expected = middle + (x - middle) * (1 - strength / steps) ** steps
    torch.testing.assert_close(end, expected, rtol=0, atol=1e-5)
    assert not end.requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize("solver", [name for name, solver in SOLVERS.items() if not solver.two_times])
def test_the_velocity_that_is_edited_is_the_guided_one(solver: str, tiny: Callable[..., Config]) -> None:
    """It is asked as often as the solver says, once for both forwards of guidance."""
    config, x, labels = tiny("noise2mnist-cfg-published"), images(2), torch.tensor([4, 7])
    carrier = Pipeline(config, Constant(0.0)).using(solver=solver, steps=3, guidance=3.0)
    seen: list[Tensor] = []

    def edit(velocity: Velocity) -> Velocity:
        def edited(x: Tensor, t: Tensor) -> Tensor:
            seen.append(velocity(x, t))
            return seen[-1]

        return edited

    list(carrier.trajectory(x, labels, edit_velocity=edit))
    guided = (NULL + 3.0 * (labels - NULL))[:, None, None, None] / 100
    assert len(seen) == SOLVERS[solver].nfe(3)
    for velocity in seen:
        torch.testing.assert_close(velocity, guided.expand_as(x))


def test_both_edits_go_together(tiny: Callable[..., Config]) -> None:
    x, known, mask, goal = images(2), images(2, seed=2), left_half(), images(2, seed=3)
    carrier = Pipeline(tiny("noise2mnist"), Constant(0.0)).using(solver="euler", steps=4)
    edits: dict[str, Any] = {
        "edit_step": keep(known, mask, x),
        "edit_velocity": descend(lambda at: (at - goal).square() / 2, 1.0),
    }
    *_, end = carrier.trajectory(x, **edits)
    pulled = goal + (x - goal) * 0.75**4
    torch.testing.assert_close(end, torch.where(mask, known, pulled), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["noise2mnist-cfg-published", "ddpm-mnist", "denoise-noise", "moons"])
def test_edits_that_change_nothing_change_nothing(name: str, pipeline: Callable[..., Pipeline]) -> None:
    carrier = pipeline(name)
    carrier = carrier.using(steps=min(3, carrier.config.solver.num_steps))
    x = torch.rand(3, *carrier.config.shape, generator=torch.Generator().manual_seed(0))
    plain = list(carrier.trajectory(x))
    edited = list(carrier.trajectory(x, edit_step=lambda step: step, edit_velocity=lambda velocity: velocity))
    assert len(plain) == len(edited)
    assert all(torch.equal(a, b) for a, b in zip(plain, edited, strict=True))


@pytest.mark.parametrize("name", ["noise2mnist", "denoise-noise"])
def test_an_edited_velocity_also_steers_one_step_and_the_way_back(name: str, tiny: Callable[..., Config]) -> None:
    """Stopping everything leaves every sample where it was, in either direction that there is."""
    carrier = Pipeline(tiny(name), Constant(0.7))
    carrier, x = carrier.using(steps=1), images(2)
    for reverse in (False, True) if carrier.is_invertible else (False,):
        *_, moved = carrier.trajectory(x, reverse=reverse)
        *_, stopped = carrier.trajectory(x, reverse=reverse, edit_velocity=lambda v: lambda x, t: 0 * v(x, t))
        assert not torch.allclose(moved, x, atol=0.01)
        assert torch.equal(stopped, x)
