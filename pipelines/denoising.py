"""Pictures and figures of one-step denoisers: σ where black is 0 and white is 1, errors likewise."""

from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from configs.parts import NoisyConfig
from datasets import Sampler
from datasets.keyed import generator, key
from pipelines import sheets
from pipelines.pipeline import Pipeline
from pipelines.sheets import Row, caption, sheet

SIGMAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)


def add_noise(x: Tensor, sigma: float) -> Tensor:
    """z = x + σ·ε with the same ε for every σ: x [B, C, H, W] in [-1, 1], where σ counts twice."""
    noise = torch.randn(x.shape, generator=generator(x.device, "noising"), device=x.device)
    return x + 2 * sigma * noise


def examples(target: Sampler, seed: int, count: int) -> Tensor:
    """`count` images of the target that depend on the seed alone."""
    return target.draw(count, seed=key(seed, "sheet"), step=0).samples


def pictures(pipeline: Pipeline, source: Sampler, target: Sampler, when: str) -> dict[str, Image.Image]:
    """By name: what becomes of noisy images, of noise of other strengths, or of nothing but noise."""
    if pipeline.config.source.kind == "noisy":
        return {
            "samples": denoised_sheet(pipeline, source, target, when),
            "noising": noising_sheet(pipeline, target),
            "out-of-distribution": out_of_distribution_sheet(pipeline, target, when),
        }
    return {"samples": sheets.samples_sheet(pipeline, source, when)}


def denoised_sheet(pipeline: Pipeline, source: Sampler, target: Sampler, when: str) -> Image.Image:
    """Noisy images as in training, what the network makes of them, and what they were."""
    noisy, _ = sheets.shown_sources(pipeline, source, 16)
    clean = examples(target, pipeline.config.seed, 16)
    rows: list[Row] = [("noisy", noisy), ("denoised", pipeline.translate(noisy)), ("clean", clean)]
    return sheet(rows, caption(pipeline.config, when, f"σ = {trained_sigma(pipeline):g}"))


def noising_sheet(pipeline: Pipeline, target: Sampler) -> Image.Image:
    """A row for each image, a column for each σ."""
    clean = examples(target, pipeline.config.seed, 5)
    columns = torch.stack([add_noise(clean, sigma) for sigma in SIGMAS], dim=1)
    return sheet([("", row) for row in columns], caption(pipeline.config, "z = x + σ·ε"), columns=labels())


def out_of_distribution_sheet(pipeline: Pipeline, target: Sampler, when: str) -> Image.Image:
    """The same images at every σ, of which training knew one."""
    rows: list[Row] = []
    for image in examples(target, pipeline.config.seed, 3):
        noisy = torch.cat([add_noise(image[None], sigma) for sigma in SIGMAS])
        rows += [("noisy", noisy), ("denoised", pipeline.translate(noisy))]
    told = f"trained at σ = {trained_sigma(pipeline):g} only"
    return sheet(rows, caption(pipeline.config, when, told), columns=labels())


def labels() -> list[str]:
    return [f"σ = {sigma:g}" for sigma in SIGMAS]


def trained_sigma(pipeline: Pipeline) -> float:
    source = pipeline.config.source
    assert isinstance(source, NoisyConfig)
    return source.sigma


class DenoisingError(NamedTuple):
    """Mean squared errors against the clean images, where black is 0 and white is 1."""

    sigma: float
    noisy: float
    denoised: float


def denoising_errors(pipeline: Pipeline, target: Sampler, count: int) -> list[DenoisingError]:
    """Before and after, at each σ, over the same `count` images of the target."""
    clean = examples(target, pipeline.config.seed, count)
    found = []
    for sigma in SIGMAS:
        noisy = add_noise(clean, sigma)
        denoised = pipeline.translate(noisy).to(clean.device)
        found.append(DenoisingError(sigma, squared_error(noisy, clean), squared_error(denoised, clean)))
    return found


def squared_error(x: Tensor, y: Tensor) -> float:
    """Mean over all elements, where black is 0 and white is 1 (x and y in [-1, 1])."""
    return ((x - y) / 2).square().mean().item()


class MeanComparison(NamedTuple):
    """How far what a network makes of pure noise is from the mean training image, where black is 0 and white is 1."""

    mean: Tensor
    """The mean training image [1, C, H, W] in [-1, 1]."""
    outputs: Tensor
    """What some noise became [16, C, H, W]."""
    to_mean: float
    """Root mean square difference of the outputs from the mean image."""
    among: float
    """Root mean square difference of the outputs from their own mean: 0 if noise does not matter."""
    digits: float
    """Root mean square difference of real images from the mean image, for scale."""


def compare_with_mean(pipeline: Pipeline, source: Sampler, train: Sampler, count: int = 256) -> MeanComparison:
    """The outputs for `count` noise images against the mean of all training images."""
    assert train.size is not None, "a data set, not a stream"
    images = train.draw(train.size, seed=0, step=0).samples
    mean = images.mean(dim=0, keepdim=True)
    outputs = pipeline.translate(source.draw(count, seed=key(pipeline.config.seed, "sheet"), step=0).samples)
    own_mean = outputs.mean(dim=0, keepdim=True)
    return MeanComparison(
        mean,
        outputs[:16],
        to_mean=squared_error(outputs, mean.to(outputs.device)) ** 0.5,
        among=squared_error(outputs, own_mean) ** 0.5,
        digits=squared_error(images, mean) ** 0.5,
    )
