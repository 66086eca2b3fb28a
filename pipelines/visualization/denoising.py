"""Pictures and figures of one-step denoisers; σ and errors are on the scale where black is 0 and white is 1."""

from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from flowferry.configs.components import NoisyConfig
from flowferry.datasets.base import Sampler
from flowferry.datasets.rng import derive_seed, generator
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.visualization import grids
from flowferry.pipelines.visualization.grids import Row, caption, sheet

SIGMAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)


def add_noise(x: Tensor, sigma: float) -> Tensor:
    """Return z = x + σ·ε with the same ε for every σ, for x [B, C, H, W] in [-1, 1], where σ counts twice."""
    noise = torch.randn(x.shape, generator=generator(x.device, "noising"), device=x.device)
    return x + 2 * sigma * noise


def examples(target: Sampler, seed: int, count: int) -> Tensor:
    """Return `count` images of the target [count, C, H, W] that depend on the seed alone."""
    return target.draw(count, seed=derive_seed(seed, "sheet"), step=0).samples


def pictures(pipeline: Pipeline, source: Sampler, target: Sampler, when: str) -> dict[str, Image.Image]:
    """Return pictures by name: results of noisy images and of other noise levels, or of pure noise."""
    if pipeline.config.source.from_target:
        return {
            "samples": denoised_sheet(pipeline, source, target, when),
            "noising": noising_sheet(pipeline, target),
            "out-of-distribution": out_of_distribution_sheet(pipeline, target, when),
        }
    return {"samples": grids.samples_sheet(pipeline, source, when, target=target)}


def denoised_sheet(pipeline: Pipeline, source: Sampler, target: Sampler, when: str) -> Image.Image:
    """Draw noisy images as in training, the network's results, and the clean images."""
    noisy, _ = grids.shown_sources(pipeline, source, 16)
    clean = examples(target, pipeline.config.seed, len(noisy))
    rows: list[Row] = [("noisy", noisy), ("denoised", pipeline.translate(noisy)), ("clean", clean)]
    return sheet(rows, caption(pipeline.config, when, f"σ = {trained_sigma(pipeline):g}"))


def noising_sheet(pipeline: Pipeline, target: Sampler) -> Image.Image:
    """Draw noisy images: a row for each image, a column for each σ."""
    clean = examples(target, pipeline.config.seed, 5)
    columns = torch.stack([add_noise(clean, sigma) for sigma in SIGMAS], dim=1)
    return sheet([("", row) for row in columns], caption(pipeline.config, "z = x + σ·ε"), columns=labels())


def out_of_distribution_sheet(pipeline: Pipeline, target: Sampler, when: str) -> Image.Image:
    """Draw the same images at every σ, and the network's results, though it was trained at one σ only."""
    rows: list[Row] = []
    for image in examples(target, pipeline.config.seed, 3):
        noisy = torch.cat([add_noise(image[None], sigma) for sigma in SIGMAS])
        rows += [("noisy", noisy), ("denoised", pipeline.translate(noisy))]
    told = f"trained at σ = {trained_sigma(pipeline):g} only"
    return sheet(rows, caption(pipeline.config, when, told), columns=labels())


def labels() -> list[str]:
    """Return the column titles, one for each σ."""
    return [f"σ = {sigma:g}" for sigma in SIGMAS]


def trained_sigma(pipeline: Pipeline) -> float:
    """Return the σ that the pipeline was trained at."""
    source = pipeline.config.source
    assert isinstance(source, NoisyConfig)
    return source.sigma


class DenoisingError(NamedTuple):
    """Mean squared errors against the clean images, on the scale where black is 0 and white is 1."""

    sigma: float
    noisy: float
    denoised: float


def denoising_errors(pipeline: Pipeline, target: Sampler, count: int) -> list[DenoisingError]:
    """Return the errors before and after denoising at each σ, over the same `count` images of the target."""
    clean = examples(target, pipeline.config.seed, count)
    found = []
    for sigma in SIGMAS:
        noisy = add_noise(clean, sigma)
        denoised = pipeline.translate(noisy).to(clean.device)
        found.append(DenoisingError(sigma, squared_error(noisy, clean), squared_error(denoised, clean)))
    return found


def squared_error(x: Tensor, y: Tensor) -> float:
    """Return the mean squared error on the scale where black is 0 and white is 1, for x and y in [-1, 1]."""
    return ((x - y) / 2).square().mean().item()


class MeanComparison(NamedTuple):
    """The distance of a network's results for pure noise from the mean training image; black is 0 and white is 1."""

    mean: Tensor
    """The mean training image [1, C, H, W] in [-1, 1]."""
    outputs: Tensor
    """The results for some noise [16, C, H, W]."""
    to_mean: float
    """Root mean square difference of the outputs from the mean image."""
    among: float
    """Root mean square difference of the outputs from their own mean: 0 if they do not depend on the noise."""
    digits: float
    """Root mean square difference of real images from the mean image, for scale."""


def compare_with_mean(pipeline: Pipeline, source: Sampler, train: Sampler, count: int = 256) -> MeanComparison:
    """Compare the results for `count` noise images with the mean of all training images."""
    assert train.size is not None, "a data set, not a stream"
    images = train.draw(train.size, seed=0, step=0).samples
    mean = images.mean(dim=0, keepdim=True)
    outputs = pipeline.translate(source.draw(count, seed=derive_seed(pipeline.config.seed, "sheet"), step=0).samples)
    own_mean = outputs.mean(dim=0, keepdim=True)
    return MeanComparison(
        mean,
        outputs[:16],
        to_mean=squared_error(outputs, mean.to(outputs.device)) ** 0.5,
        among=squared_error(outputs, own_mean) ** 0.5,
        digits=squared_error(images, mean) ** 0.5,
    )
