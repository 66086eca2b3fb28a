"""Measure how results of one source differ, where noise is added to the source, and how close the best of them come."""

from itertools import combinations

import torch
from torch import Tensor

from flowferry.pipelines.evaluation import metrics
from flowferry.pipelines.evaluation.pairs import rms
from flowferry.pipelines.evaluation.reference import EvaluationSet, Figures
from flowferry.pipelines.pipeline import Pipeline

VARIANTS, SOURCES = 4, 64  # results of each source, and sources at most


def variant_figures(pipeline: Pipeline, samples: EvaluationSet, maps: metrics.Maps | None) -> tuple[Figures, Figures]:
    """Return (figures of VARIANTS results of each of SOURCES sources, what they are to be held against).

    Distances between variants stand beside those between results of different sources; the closeness to the truth of
    the best variant, chosen for each figure and image, beside the mean of single ones. Both are empty without noise on
    the source.
    """
    if not pipeline.config.solver.source_noise:
        return {}, {}
    source, count = samples.source.samples[:SOURCES], min(SOURCES, samples.count)
    asked = None if samples.asked is None else samples.asked[:count]
    results = [
        pipeline.translate(source, asked, seed=samples.seed + number, batch_size=samples.batch_size)
        for number in range(VARIANTS)
    ]
    spread, beside = spread_figures(list(combinations(results, 2)), maps), {}
    if count > 1:
        beside = spread_figures([(images, images.roll(1, dims=0)) for images in results], maps)
    if samples.truth is not None:
        truth = samples.truth[:count]
        each = [measure_each(images, truth, maps) for images in results]
        for name in each[0]:
            values = torch.stack([figures[name] for figures in each])
            best = values.amax(dim=0) if name in metrics.HIGHER_IS_BETTER else values.amin(dim=0)
            spread[f"{name}, best of {VARIANTS}"] = best.mean().item()
            beside[f"{name}, best of {VARIANTS}"] = values.mean().item()
    return spread, beside


def spread_figures(pairs: list[tuple[Tensor, Tensor]], maps: metrics.Maps | None) -> Figures:
    """Return the mean distances of pairs of images [N, C, H, W], in pixels and as a network perceives them."""
    figures = {"distance": sum(rms(a - b) for a, b in pairs) / len(pairs)}
    if maps is not None:
        found = [metrics.perceptual(maps, a, b).mean().item() for a, b in pairs]
        figures["perceptual"] = sum(found) / len(found)
    return figures


def measure_each(images: Tensor, truth: Tensor, maps: metrics.Maps | None) -> dict[str, Tensor]:
    """Return the closeness of each image [N, C, H, W] to its truth, [N] by the name of the figure."""
    figures = dict(zip(metrics.Closeness._fields, metrics.closeness_of_each(images, truth), strict=True))
    return figures | ({} if maps is None else {"perceptual": metrics.perceptual(maps, images, truth)})
