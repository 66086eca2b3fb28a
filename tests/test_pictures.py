"""The pictures of a run and the figures beside them: pipelines/{sheets,figures,plane,denoising,pictures}.py."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from configs.parts import GaussianConfig, GaussianRingConfig, MoonsConfig
from configs.presets import PIPELINES
from configs.schema import Config
from datasets import build_sampler, build_samplers
from pipelines import denoising, plane, sheets
from pipelines.pictures import drawing
from pipelines.pipeline import Pipeline

CPU = torch.device("cpu")


class Answer(nn.Module):
    """Predicts `answer(xt)`."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.zero, self.answer = nn.Parameter(torch.zeros(1)), answer

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return self.answer(xt)


def samplers(config: Config, split: str = "test"):
    return build_samplers(config, data_root=Path("data"), split=split, device=CPU)


# --- which pictures, and what is on them ----------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_each_pipeline_has_its_pictures_and_an_animation(
    name: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny(name)
    steps = min(3, config.solver.steps)
    pipeline = Pipeline(replace(config, solver=replace(config.solver, steps=steps)))
    shown, (source, target) = drawing(config), samplers(config)
    pictures = shown.pictures(pipeline, source, target, "epoch 1")
    expected = {"samples", "path"}
    if len(config.shape) == 1:
        expected = {"densities", "trajectories", "variance"}
    elif config.path == "one-step":
        expected = {"samples"} | ({"noising", "out-of-distribution"} if config.source.kind == "noisy" else set())
    assert pictures.keys() == expected
    frames = shown.frames(pipeline, source, target)
    assert len(frames) == steps + 1
    sheets.save_gif(frames, tmp_path / "path.gif")
    with Image.open(tmp_path / "path.gif") as gif:
        assert gif.n_frames == steps + 1 or frames[0] == frames[1]  # Pillow joins equal frames


def test_an_animation_of_many_steps_has_fifty_one_frames_from_start_to_end(tiny: Callable[..., Config]) -> None:
    points, config = torch.arange(301.0)[:, None], tiny("noise2mnist")
    chosen, times = sheets.evenly(points, 51, config)
    assert len(chosen) == 51
    assert (chosen[0], chosen[-1]) == (0, 300)
    assert times == pytest.approx([k / 50 for k in range(51)])


def test_pictures_of_a_path_say_the_times_of_the_solvers_grid(tiny: Callable[..., Config]) -> None:
    config = tiny("noise2mnist")
    config = replace(config, solver=replace(config.solver, steps=4, grid_power=2.0))
    points = torch.arange(5.0)[:, None]
    assert sheets.evenly(points, 51, config)[1] == pytest.approx([0, 1 / 16, 1 / 4, 9 / 16, 1])
    assert sheets.evenly(points, 3, config, reverse=True)[1] == pytest.approx([1, 1 / 4, 0])


def test_a_sheet_knows_greek() -> None:
    tile = [("", torch.zeros(1, 1, 8, 8))]
    assert sheets.sheet(tile, "σ") != sheets.sheet(tile, "ε")  # both are a box in a font that has neither


def test_pictures_are_stacked_one_below_the_other() -> None:
    a, b = Image.new("RGB", (3, 2), "red"), Image.new("RGB", (5, 4), "blue")
    out = sheets.stacked([a, b])
    assert out.size == (5, 6)
    assert (out.getpixel((0, 0)), out.getpixel((4, 5)), out.getpixel((4, 0))) == (
        (255, 0, 0),
        (0, 0, 255),
        (255, 255, 255),
    )


# --- the plane ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [GaussianConfig(mean=1.0), GaussianConfig(std=0.3), MoonsConfig(), MoonsConfig(noise=0.3)]
    + [GaussianRingConfig(modes=modes) for modes in (1, 2, 3, 8)],
    ids=str,
)
def test_the_variance_told_is_that_of_the_samples(config) -> None:
    sampler = build_sampler(config, (2,), data_root=Path("data"), split="train", device=CPU)
    x = sampler.draw(200_000, seed=0, step=0).samples.double()
    assert x.var(dim=0).mean().item() == pytest.approx(sampler.variance, rel=0.02)


def test_the_linear_path_halves_the_variance_of_gaussian2d_halfway_and_the_cosine_path_keeps_it() -> None:
    source, target = samplers(PIPELINES["gaussian2d"])
    t = torch.tensor([0.0, 0.25, 0.5, 1.0])
    assert plane.closed_form("linear", source, target, t).tolist() == pytest.approx([1, 0.625, 0.5, 1])
    assert plane.closed_form("cosine", source, target, t).tolist() == pytest.approx([1, 1, 1, 1])


def test_the_spread_is_the_variance_of_a_coordinate() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    assert plane.spread(x) == pytest.approx(1.0)  # (2 + 0) / 2


# --- denoising ------------------------------------------------------------------------------------------


def test_noise_is_added_where_black_is_0_and_white_is_1(tiny: Callable[..., Config]) -> None:
    x = torch.zeros(64, 1, 28, 28)
    for sigma in denoising.SIGMAS:
        assert denoising.squared_error(denoising.add_noise(x, sigma), x) == pytest.approx(sigma**2, rel=0.03)
    half, whole = (denoising.add_noise(x, sigma) for sigma in (0.5, 1.0))
    torch.testing.assert_close(whole, 2 * half)  # the same ε


def test_the_errors_of_a_denoiser_that_does_nothing_and_of_one_that_knows_are_as_expected(
    tiny: Callable[..., Config],
) -> None:
    config = tiny("denoise-mnist")
    _, target = samplers(config)
    for errors in denoising.denoising_errors(Pipeline(config, Answer(lambda x: x / 2)), target, 32):
        clean = denoising.examples(target, config.seed, 32)
        noisy = denoising.add_noise(clean, errors.sigma)
        assert errors.noisy == pytest.approx(errors.sigma**2, rel=0.05)
        assert errors.denoised == pytest.approx((((noisy / 2).clamp(-1, 1) - clean) ** 2).mean().item() / 4, rel=1e-5)


def test_pure_noise_is_compared_with_the_mean_of_all_training_images(tiny: Callable[..., Config]) -> None:
    config = tiny("denoise-noise")
    _, train = samplers(config, "train")
    source, _ = samplers(config)
    every = train.draw(64, seed=0, step=0).samples  # there are 64
    mean = every.mean(dim=0, keepdim=True)
    knows = denoising.compare_with_mean(Pipeline(config, Answer(lambda x: mean.expand_as(x))), source, train)
    torch.testing.assert_close(knows.mean, mean)
    assert knows.to_mean == pytest.approx(0, abs=1e-6)
    assert knows.among == pytest.approx(0, abs=1e-6)
    assert knows.digits == pytest.approx(((every - mean) / 2).square().mean().sqrt().item(), rel=1e-4)

    black = denoising.compare_with_mean(Pipeline(config, Answer(lambda x: -torch.ones_like(x))), source, train)
    assert black.to_mean == pytest.approx(((mean + 1) / 2).square().mean().sqrt().item(), rel=1e-4)
    noise = denoising.compare_with_mean(Pipeline(config, Answer(lambda x: x)), source, train)
    clipped = 0.5 * math.sqrt(0.5161)  # variance of a unit normal value clipped to [-1, 1]
    assert noise.among == pytest.approx(clipped, rel=0.02)
