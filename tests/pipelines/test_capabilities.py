"""What a pipeline can do: pipelines/capabilities.py. Here, images of any size, networks of two times, and bounds."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.rng import derive_seed, normal_rows
from flowferry.pipelines.flow.paths import diffusion

SIZES = [(28, 28), (32, 48), (30, 41), (5, 3), (1, 1)]
STRIDES = {"patch-unet": 4, "practical-unet": 4, "attention-unet": 4, "course-unet": None}


def images(count: int, *shape: int) -> Tensor:
    return torch.empty(count, *shape).uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))


def made(config: Config, **solver: Any) -> Pipeline:
    """Return a pipeline of two steps whose network, unlike an untrained one, adds something."""
    torch.manual_seed(0)
    pipeline = Pipeline(replace(config, solver=replace(config.solver, num_steps=2, **solver)))
    with torch.no_grad():
        for parameter in pipeline.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return pipeline


def of_network(kind: str, tiny: Callable[..., Config]) -> Config:
    """Return a tiny pipeline between gray images with a network of this kind."""
    name = next(name for name, config in PIPELINES.items() if config.model.kind == kind and config.is_image)
    return replace(tiny("fashion2mnist-published"), model=tiny(name).model, shape=(1, 28, 28))


@pytest.mark.parametrize("kind", STRIDES)
def test_a_network_says_whether_it_takes_images_of_any_size(kind: str, tiny: Callable[..., Config]) -> None:
    pipeline = made(of_network(kind, tiny))
    assert pipeline.stride == STRIDES[kind]
    for size in SIZES if pipeline.stride else ():
        x = images(2, 1, *size)
        result = pipeline.translate(x)
        assert result.shape == x.shape and (result - x).abs().mean() > 1e-3
        alone = torch.cat([pipeline.translate(one[None]) for one in x])
        torch.testing.assert_close(result, alone)


def test_other_sizes_are_refused_where_the_network_cannot(tiny: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"^samples: got shape \(2, 1, 32, 28\), expected \(B, 1, 28, 28\)$"):
        made(of_network("course-unet", tiny)).translate(images(2, 1, 32, 28))


@pytest.mark.parametrize("shape", [(3, 28, 28), (28, 28), (1, 0, 28)])
def test_other_shapes_are_refused_where_it_can(shape: tuple[int, ...], tiny: Callable[..., Config]) -> None:
    got = re.escape(str((2, *shape)))
    with pytest.raises(UserError, match=rf"^samples: got shape {got}, expected \(B, 1, H, W\)$"):
        made(tiny("fashion2mnist-published")).translate(images(2, *shape))


@pytest.mark.parametrize(
    "tile, overlap, told",
    [
        (512, 512, "overlap: got 512 pixels of tiles of 512, expected 0 ≤ overlap < tile"),
        (16, -4, "overlap: got -4 pixels"),
        (30, 4, "tile: got 30 pixels, expected a multiple of 4"),
        (32, 6, "overlap: got 6 pixels, expected a multiple of 4"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(tile: int, overlap: int, told: str, tiny: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(told)}"):
        made(tiny("fashion2mnist-published")).translate(images(1, 1, 28, 28), tile=tile, overlap=overlap)


def test_an_image_that_fits_in_one_tile_has_the_bytes_of_one_pass(tiny: Callable[..., Config]) -> None:
    pipeline, x = made(tiny("paired", shape=(3, 16, 16)), source_noise=0.4), images(2, 3, 40, 24)
    whole = pipeline.translate(x, tile=400, overlap=0)
    assert torch.equal(pipeline.translate(x, tile=40, overlap=8), whole)
    assert not torch.equal(pipeline.translate(x, tile=36, overlap=8), whole)


def test_tiles_show_the_network_that_part_of_the_source_and_of_its_noise(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is drawn once for the whole picture, so that tiles agree on it where they overlap."""
    pipeline, x = made(tiny("paired", shape=(3, 16, 16)), source_noise=0.4), images(1, 3, 40, 16)
    given: list[tuple[Tensor, Tensor]] = []

    def note(network: nn.Module, inputs: tuple[Any, ...]) -> None:
        given.append((inputs[0], inputs[2].image))

    pipeline.model.register_forward_pre_hook(note)
    pipeline.translate(x, tile=16, overlap=4, seed=5, rows=[9])
    noisy = x + 0.4 * normal_rows(derive_seed(5, "source noise"), [9])(x)
    starts = (0, 12, 24)
    assert len(given) == 2 * len(starts)
    for start, (xt, image) in zip(starts, given, strict=False):
        assert torch.equal(image, x[:, :, start : start + 16])
        assert torch.equal(xt, noisy[:, :, start : start + 16])


def test_guidance_and_the_way_back_work_at_any_size(tiny: Callable[..., Config]) -> None:
    pipeline, x = made(tiny("noise2mnist-cfg")), images(2, 1, 30, 50)
    labels = torch.tensor([3, 1])
    guided = pipeline.translate(x, labels, guidance=2.0, tile=20, overlap=8)
    assert guided.shape == x.shape
    assert not torch.equal(guided, pipeline.translate(x, labels, guidance=1.0, tile=20, overlap=8))
    assert pipeline.invert(x, labels, steps=1, tile=20, overlap=8).shape == x.shape


def test_the_class_of_a_larger_image_is_inferred_from_it_at_the_pipeline_s_size(tiny: Callable[..., Config]) -> None:
    pipeline, x = made(tiny("fashion2mnist-labels")), images(6, 1, 28, 28)
    larger = x.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)
    expected, found = pipeline.inferred_labels(x), pipeline.inferred_labels(larger)
    assert expected is not None and found is not None and torch.equal(found, expected)


def test_rectangular_pipelines_take_their_own_shape_and_others(tiny: Callable[..., Config]) -> None:
    pipeline = made(tiny("paired", shape=(3, 12, 20)))
    for size in ((12, 20), (20, 12), (33, 8)):
        x = images(2, 3, *size)
        assert pipeline.translate(x).shape == x.shape
    assert pipeline.block_of((5, 3, 12, 20)) == pipeline.block_size
    assert pipeline.block_of((5, 3, 20, 12)) == 1


# --- networks of two times ------------------------------------------------------------------------------


def refused(match: str, make: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(match)}$"):
        make()


def test_the_map_needs_its_objective_its_network_and_the_velocity(tiny: Callable[..., Config]) -> None:
    config, flow = tiny("fashion2mnist-map"), tiny("fashion2mnist")
    one_time, euler = replace(config.model, two_times=False), replace(config.solver, name="euler")
    expected = "expected --model patch-unet --model.two-times"
    refused(f"objective map: got a network of one time, {expected}", lambda: Pipeline(replace(config, model=one_time)))
    practical = tiny("fashion2mnist-published").model
    refused(f"objective map: got a network of one time, {expected}", lambda: Pipeline(replace(config, model=practical)))
    of_two = replace(config, objective="flow", solver=euler)
    refused("objective flow: got model.two-times, expected the objective map", lambda: Pipeline(of_two))
    for change, got in (
        ({"prediction": "target"}, "the prediction target on the path linear"),
        ({"path": "ddpm"}, "the prediction velocity on the path ddpm"),
    ):
        match = f"objective map: got {got}, expected velocity on linear or cosine"
        refused(match, lambda change=change: Pipeline(replace(config, **change)))
    refused("solver map: got the objective flow, expected map", lambda: Pipeline(flow).using(solver="map"))


def test_the_map_runs_forward_and_its_velocity_both_ways(tiny: Callable[..., Config]) -> None:
    pipeline, x = made(tiny("fashion2mnist-map")), images(2, 1, 28, 28)
    match = "solver map runs from source to target only: expected in reverse euler, midpoint, heun, rk4, ab2"
    refused(match, lambda: pipeline.invert(x))
    assert not pipeline.is_invertible and pipeline.using(solver="rk4").is_invertible
    there = pipeline.using(source_noise=0.0).translate(x, solver="rk4", steps=30)
    torch.testing.assert_close(pipeline.invert(there, solver="rk4", steps=30), x, rtol=0, atol=2e-3)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_map_asks_for_the_mean_velocity_of_each_step(steps: int, tiny: Callable[..., Config]) -> None:
    """Other solvers ask for the velocity. In tiles, of any size and with guidance alike."""
    config = tiny("noise2mnist-cfg")
    config = replace(config, objective="map", model=replace(config.model, two_times=True))
    pipeline, asked = made(config), []
    pipeline.model.register_forward_pre_hook(lambda network, inputs: asked.append(inputs[1]))
    what: Any = {"labels": torch.tensor([3, 1]), "guidance": 2.0, "steps": steps, "tile": 20, "overlap": 8}
    assert pipeline.translate(images(2, 1, 30, 18), solver="map", **what).shape == (2, 1, 30, 18)
    grid = [k / steps for k in range(steps + 1)]
    pairs = [pair for pair in pairwise(grid) for _ in range(2)]  # in two tiles
    for t, pair in zip(asked[: len(pairs)], pairs, strict=True):  # of the first sample, one by one at this size
        torch.testing.assert_close(t, torch.tensor([pair]).expand(2, 2))
    assert len(asked) == 2 * len(pairs)
    assert pipeline.using(solver="map", steps=steps, guidance=1.0).nfe == steps
    asked.clear()
    pipeline.translate(images(2, 1, 30, 18), solver="euler", **what)
    assert {t.shape for t in asked} == {(2,)}


# --- variances and bounds ---------------------------------------------------------------------------------


class LoudNoise(nn.Module):
    """Predicts noise far too large, so that the implied image is out of bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(1))

    def forward(self, xt: Tensor, t: Tensor, condition: object = None) -> Tensor:
        return 3 * xt.roll(1, -1) + self.zero


@pytest.mark.parametrize("solver", ["ancestral", "ddim"])
def test_the_image_is_kept_within_bounds_at_each_step(solver: str, tiny: Callable[..., Config]) -> None:
    config, x = tiny("ddpm-mnist"), torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(2))

    def end(**how: Any) -> Tensor:
        chosen = replace(config.solver, name=solver, num_steps=6, **how)  # type: ignore[arg-type]
        *_, end = Pipeline(replace(config, solver=chosen), LoudNoise()).trajectory(x)
        return end

    assert end().abs().max() > 2
    for bound in (0.5, 1.0):
        assert end(clip=bound).abs().max() == pytest.approx(bound)
    assert end(threshold=0.9).abs().max() == pytest.approx(1) == end(threshold=0.9, clip=1.2).abs().max()
    assert not torch.equal(end(threshold=0.9), end(clip=1.0))


def test_the_noise_of_a_step_has_the_variance_that_is_asked_for(tiny: Callable[..., Config]) -> None:
    """On the last step but one, where the two of DDPM differ most."""
    config, x, last = tiny("ddpm-mnist"), torch.zeros(1, 1, 28, 28), 1 - 2 / 300

    def spread(**how: Any) -> Tensor:
        chosen = replace(config.solver, num_steps=300, **how)
        states = Pipeline(replace(config, solver=chosen), LoudNoise()).trajectory(x, start=last)
        next(states)
        return next(states).std()

    path = Pipeline(config).path
    expected = path.alpha(torch.tensor(1 - 1 / 300)) / path.alpha(torch.tensor(last))
    torch.testing.assert_close(spread(variance="small") / spread(), expected, rtol=1e-3, atol=0)


def test_a_learned_variance_needs_a_network_that_answers_it(tiny: Callable[..., Config]) -> None:
    config = tiny("ddpm-mnist")
    solver = replace(config.solver, variance="learned")
    message = "solver variance: got learned of the network course-unet, which answers none, expected large or small"
    refused(message, lambda: Pipeline(replace(config, solver=solver)))


def test_a_path_with_levels_is_asked_up_to_its_last(tiny: Callable[..., Config]) -> None:
    config, network = tiny("ddpm-mnist"), LoudNoise()
    network.trained_path = diffusion(torch.full((2000,), 1e-3, dtype=torch.float64))  # type: ignore[assignment]
    pipeline = Pipeline(config, network)
    assert pipeline.path is network.trained_path and pipeline.max_time == 1 - 1 / 2000


def test_a_block_of_larger_images_holds_fewer_of_them(tiny: Callable[..., Config]) -> None:
    """So that one picture does not need the memory of many."""
    of_side = {side: made(tiny("paired", shape=(3, side, side))).block_size for side in (16, 64, 128, 256, 512)}
    assert of_side == {16: 32, 64: 32, 128: 8, 256: 2, 512: 1}
