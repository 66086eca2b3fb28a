"""Pretrained pipelines of diffusers against diffusers itself, with the same noise: pipelines/diffusers_pipeline.py."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, IFPipeline, IFSuperResolutionPipeline
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.ddpm import pipeline_ddpm
from diffusers.pipelines.deepfloyd_if import pipeline_if, pipeline_if_superresolution
from diffusers.schedulers import scheduling_ddpm
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.validation import UserError
from flowferry.pipelines import enlarge, pipeline
from flowferry.pipelines.flow.solvers import SOLVERS
from tiny_diffusers import PROMPTS, embeddings, stage_1, stage_2, stage_scheduler, unconditional

SAME = {"rtol": 0, "atol": 1e-4}
"""At the end of the chain, of images in [-1, 1]."""


def same_noise() -> Callable[..., Tensor]:
    """Return a function that draws the next noise of a sequence, always the same one."""
    g = torch.Generator().manual_seed(11)
    return lambda shape, **options: torch.randn(tuple(shape), generator=g)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Callable[..., Tensor]]:
    """Have ours and theirs draw one sequence of noise; a call has it begin again, and gives what draws next."""

    def begin() -> Callable[..., Tensor]:
        draw = same_noise()
        for module in (scheduling_ddpm, pipeline_ddpm, pipeline_ddim, pipeline_if, pipeline_if_superresolution):
            monkeypatch.setattr(module, "randn_tensor", draw)
        for module in (pipeline, enlarge):
            monkeypatch.setattr(module, "normal_rows", lambda seed, rows: lambda x: draw(x.shape))
        return draw

    return begin


def ours(pipe: Pipeline, draw: Callable[..., Tensor], count: int, labels: Tensor | None = None) -> Tensor:
    *_, end = pipe.trajectory(draw((count, *pipe.config.shape)), labels)
    return end


def theirs(folder: Path, made: type = DDPMPipeline, **options: Any) -> Tensor:
    """Return the images of their pipeline, in [−1, 1]."""
    is_plain = made in (DDPMPipeline, DDIMPipeline)
    pipe = made.from_pretrained(folder, **({} if is_plain else {"requires_safety_checker": False}))
    pipe.set_progress_bar_config(disable=True)
    images = pipe(output_type="pt", **options).images
    return images * 2 - 1 if is_plain else images


def told(text: str) -> dict[str, Tensor]:
    """The embeddings of a text and of none, as their pipelines take them."""
    known = embeddings()
    return {"prompt_embeds": known[text][None], "negative_prompt_embeds": known[""][None]}


# --- unconditional --------------------------------------------------------------------------------------

COSINE = {"beta_schedule": "squaredcos_cap_v2"}


@pytest.mark.parametrize(
    "stride, settings",
    [
        (None, {}),
        (4, {"variance_type": "fixed_large", "clip_sample": False}),
        (None, {"prediction_type": "v_prediction", "clip_sample_range": 0.7, **COSINE}),
        (4, {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.2, **COSINE}),
        (4, {"beta_schedule": "scaled_linear", "variance_type": "fixed_small_log"}),
    ],
    ids=["small", "large", "v-prediction", "sample", "scaled"],
)
def test_a_whole_chain_of_a_ddpm_is_theirs(
    stride: int | None, settings: dict[str, Any], drawn: Callable[[], Any], tmp_path: Path
) -> None:
    """Over all levels, and over a strided list of them."""
    folder, steps = unconditional(tmp_path, levels=16, **settings), 16 // (stride or 1)
    drawn()
    expected = theirs(folder, batch_size=2, num_inference_steps=steps)
    pipe = Pipeline.from_diffusers(folder, device="cpu").using(stride=stride)
    assert pipe.nfe == steps
    found = ours(pipe, drawn(), 2)
    torch.testing.assert_close(found.clamp(-1, 1), expected, **SAME)
    assert found.std() > 0.1


def test_a_ddim_steps_as_theirs_does(drawn: Callable[[], Any], tmp_path: Path) -> None:
    folder = unconditional(tmp_path, levels=100, scheduler=DDIMScheduler)
    drawn()
    expected = theirs(folder, DDIMPipeline, batch_size=2, num_inference_steps=10, use_clipped_model_output=True)
    pipe = Pipeline.from_diffusers(folder, device="cpu")
    assert (pipe.solver, pipe.nfe) == (SOLVERS["ddim"], 50)
    torch.testing.assert_close(ours(pipe.using(stride=10), drawn(), 2).clamp(-1, 1), expected, **SAME)


# --- DeepFloyd IF ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage_1(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage_2(tmp_path_factory.mktemp("second"))


@pytest.mark.parametrize("w, stride", [(7.0, 30), (1.0, 100)])
def test_a_first_stage_gives_their_images(w: float, stride: int, first: Path, drawn: Callable[[], Any]) -> None:
    """Text, guidance of ε alone, the variance that was learned and thresholding, over the strided list as published."""
    timesteps = list(range(0, 1000, stride))[::-1]
    drawn()
    expected = theirs(first, IFPipeline, **told(PROMPTS[1]), guidance_scale=w, timesteps=timesteps)
    pipe = Pipeline.from_diffusers(first, device="cpu").with_prompts(PROMPTS, embeddings())
    pipe = pipe.using(stride=stride, guidance=w)
    assert pipe.config.solver.num_steps == len(timesteps) and pipe.nfe == (10 if w == 1 else 68)
    found = ours(pipe, drawn(), 1, torch.tensor([1]))
    torch.testing.assert_close(found, expected, **SAME)
    assert found.std() > 0.1


def test_a_second_stage_enlarges_to_their_images(second: Path, drawn: Callable[[], Any]) -> None:
    small = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    timesteps = list(range(750, -1, -250))
    drawn()
    options = {"image": small, "noise_level": 250, "guidance_scale": 4.0, "timesteps": timesteps}
    expected = theirs(second, IFSuperResolutionPipeline, **told(PROMPTS[0]), **options)
    pipe = Pipeline.from_diffusers(second, device="cpu").with_prompts(PROMPTS[:1], embeddings())
    drawn()
    found = enlarge.enlarge(pipe.using(stride=250, guidance=4.0), small, torch.tensor([0]))
    assert found.shape == (1, 3, 64, 64)
    torch.testing.assert_close(found, expected.clamp(-1, 1), **SAME)


def test_each_sample_has_its_own_text_and_noise_and_the_learned_variance_matters(first: Path) -> None:
    """As one batch, and alone as its own row."""
    pipe = Pipeline.from_diffusers(first, device="cpu").with_prompts(PROMPTS, embeddings()).using(stride=250)
    x, labels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.tensor([1, 0])
    both = pipe.translate(x, labels, seed=7)
    alone = pipe.translate(x[1:], labels[1:], seed=7, rows=[1])
    torch.testing.assert_close(both[1:], alone, **SAME)
    other = pipe.translate(x[1:], torch.tensor([1]), seed=7, rows=[1])
    assert (other - alone).abs().max() > 1e-3
    solver = replace(pipe.config.solver, variance="large")
    larger = Pipeline(replace(pipe.config, solver=solver), pipe.model).translate(x, labels, seed=7)
    assert (larger - both).abs().max() > 1e-3


# --- what is read, and what is refused --------------------------------------------------------------------


def test_the_scheduler_says_path_prediction_and_solver(first: Path, tmp_path: Path) -> None:
    pipe = Pipeline.from_pretrained(first, device="cpu")
    solver, config = pipe.config.solver, pipe.config
    assert (config.shape, config.prediction, config.num_classes) == ((3, 32, 32), "source", 0)
    assert (solver.name, solver.num_steps, solver.stride, solver.variance) == ("ancestral", 100, 10, "learned")
    assert (solver.threshold, solver.clip, solver.guidance) == (0.95, 1.5, 7.0)
    assert pipe.path.levels == 1000 and pipe.max_time == 0.999
    scheduler = stage_scheduler(1000)
    for index in (0, 500, 999):
        t = torch.tensor(1 - (index + 1) / 1000, dtype=torch.float64)
        assert pipe.path.beta(t) ** 2 == pytest.approx(float(scheduler.alphas_cumprod[index]), rel=1e-3)
    plain = Pipeline.from_pretrained(unconditional(tmp_path / "ddpm", levels=30), device="cpu").config.solver
    assert (plain.num_steps, plain.stride, plain.variance, plain.clip) == (30, None, "small", 1.0)


def test_half_precision_is_near_and_takes_half_the_memory(first: Path) -> None:
    whole, half = (
        Pipeline.from_diffusers(first, device="cpu", precision=precision).with_prompts(PROMPTS, embeddings())
        for precision in ("fp32", "bf16")
    )
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    x, t, labels = torch.randn(2, 3, 32, 32), torch.tensor(0.5), torch.tensor([0, 1])
    answers = [pipe.velocity(x, labels)(x, t) for pipe in (whole, half)]
    assert {answer.dtype for answer in answers} == {torch.float32}
    assert 0 < (answers[0] - answers[1]).abs().max() < 0.2 * answers[0].abs().max()


def test_weights_that_wait_in_main_memory_give_the_same(first: Path) -> None:
    there, waiting = (
        Pipeline.from_diffusers(first, device="cpu", offload=offload).with_prompts(PROMPTS, embeddings())
        for offload in (False, True)
    )
    assert next(waiting.model.parameters()).is_meta and waiting.device == torch.device("cpu")
    x, labels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.tensor([0])
    assert torch.equal(*(pipe.using(stride=500).translate(x, labels) for pipe in (there, waiting)))


def test_a_network_that_was_never_trained_is_called_random(
    first: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="flowferry")
    Pipeline.from_diffusers(first, device="cpu")
    assert "random" not in caplog.text
    Pipeline.from_diffusers(stage_1(tmp_path / "fresh", fresh=True), device="cpu")
    assert "the UNet is random" in caplog.text


def changed(folder: Path, file: str, **entries: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    "file, entries, message",
    [
        (
            "model_index.json",
            {"unet": ["diffusers", "Transformer2DModel"]},
            "got the unet Transformer2DModel, expected",
        ),
        ("model_index.json", {"scheduler": ["diffusers", "LCMScheduler"]}, "got the scheduler LCMScheduler, expected"),
        ("model_index.json", {"vae": ["diffusers", "AutoencoderKL"]}, "got a pipeline with a VAE, expected"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned"}, "got the variance_type learned, expected"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "got the prediction_type flow, expected"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "got a beta of 1, expected all below 1"),
        ("unet/config.json", {"num_class_embeds": 10}, "diffusers cannot load it|got a UNet with classes"),
        ("unet/config.json", {"sample_size": None}, "got the sample_size None, expected"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(
    file: str, entries: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = unconditional(tmp_path)
    changed(folder, file, **entries)
    with pytest.raises(UserError, match=message) as error:
        Pipeline.from_diffusers(folder, device="cpu")
    assert "\n" not in str(error.value)


def test_weights_are_read_from_safetensors_alone(tmp_path: Path) -> None:
    folder = unconditional(tmp_path)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(UserError, match=r"diffusers cannot load it: .*safetensors"):
        Pipeline.from_diffusers(folder, device="cpu")


def test_what_is_missing_is_told_in_one_line(tmp_path: Path, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"got no model_index\.json, expected a pipeline of diffusers"):
        Pipeline.from_diffusers(tmp_path)
    pipe = Pipeline.from_diffusers(first, device="cpu")
    with pytest.raises(UserError, match="got no text for a UNet that takes texts, expected --prompt"):
        pipe.sample(1)
    with pytest.raises(UserError, match="got a pipeline of diffusers, expected one that was trained here"):
        pipe.save_pretrained(tmp_path / "mine")
    with pytest.raises(UserError, match=r"takes no texts: got \['a'\], expected none"):
        Pipeline.from_diffusers(unconditional(tmp_path / "ddpm"), device="cpu").with_prompts(["a"], embeddings())
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'flowferry\[pretrained\]'"):
        Pipeline.from_diffusers(first)


def test_a_second_stage_is_for_enlarging_alone(first: Path, second: Path) -> None:
    pipe = Pipeline.from_diffusers(second, device="cpu").with_prompts(PROMPTS, embeddings())
    with pytest.raises(UserError, match="got no image for a UNet that enlarges images"):
        pipe.sample(1, torch.tensor([0]))
    with pytest.raises(UserError, match="images: got the shape"):
        enlarge.enlarge(pipe, torch.zeros(1, 1, 8, 8))
    with pytest.raises(UserError, match="enlarges no images"):
        enlarge.enlarge(Pipeline.from_diffusers(first, device="cpu"), torch.zeros(1, 3, 32, 32))
