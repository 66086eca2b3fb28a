"""Measure what a translation keeps of its source, beside the figures of shuffled pairs of source and result."""

import math

import torch
from torch import Tensor

from flowferry.configs.schema import Config
from flowferry.datasets.classes import other_classes
from flowferry.datasets.couplings import MATCHES_LABELS
from flowferry.datasets.rng import generator
from flowferry.pipelines.evaluation import metrics
from flowferry.pipelines.evaluation.reference import EvaluationSet, Figures
from flowferry.pipelines.pipeline import Pipeline

ROUND_TRIP = 500  # results to carry back to the source, at most
OF_SOURCE = " of the source"  # ends the names of figures of the untouched source, in place of the results


def translation_figures(
    pipeline: Pipeline,
    samples: EvaluationSet,
    results: Tensor,
    probabilities: Tensor | None,
    maps: metrics.Maps | None = None,
) -> tuple[Figures, Figures]:
    """Return (figures of the pairs of a source sample and its result, figures of shuffled pairs).

    results: [count, *shape], in the order of the samples; probabilities: of their classes, [count, C], or None where
    there is no classifier; maps: activations of a network, or None where there is none.
    """
    source = samples.source.samples
    order = torch.randperm(len(source), generator=generator("cpu", samples.seed, "shuffle")).to(results.device)
    inferred = pipeline.inferred_labels(source)
    kept, chance = {"distance": rms(results - source)}, {"distance": rms(results[order] - source)}
    if samples.truth is not None:
        kept |= truth_figures(results, samples.truth, maps)
        chance |= truth_figures(results[order], samples.truth, maps)
        copied = {name + OF_SOURCE: value for name, value in truth_figures(source, samples.truth, maps).items()}
        kept, chance = kept | copied, chance | copied
    if maps is not None and not pipeline.config.source.is_noise:
        for figures, images in ((kept, results), (chance, results[order])):
            figures |= retrieval_figures(samples, images, maps)
    if probabilities is not None:
        found = probabilities.argmax(dim=1)
        if (of_source := samples.source.labels) is not None:
            kept["mutual information"] = metrics.mutual_information(of_source, found)
            chance["mutual information"] = metrics.mutual_information(of_source, found[order])
        for name, (labels, wanted) in compared_labels(samples, found, inferred, pipeline.config).items():
            kept[name], chance[name] = share(labels == wanted), share(labels[order] == wanted)
    if pipeline.is_invertible:
        asked = inferred if samples.asked is None else samples.asked
        some, some_labels = source[:ROUND_TRIP], None if asked is None else asked[:ROUND_TRIP]
        if pipeline.config.solver.source_noise:  # which no way back could take off again
            pipeline = pipeline.using(source_noise=0.0)
            results = pipeline.translate(some, some_labels, batch_size=samples.batch_size)
        back = pipeline.invert(results[:ROUND_TRIP], some_labels, batch_size=samples.batch_size)
        kept["round trip"], chance["round trip"] = rms(back - some), rms(source[order][:ROUND_TRIP] - some)
    return kept, chance


def truth_figures(images: Tensor, truth: Tensor, maps: metrics.Maps | None) -> Figures:
    """Return figures of how close images [N, C, H, W] are to the truth, each to its own."""
    figures: Figures = metrics.closeness(images, truth)._asdict()
    return figures | ({} if maps is None else {"perceptual": metrics.perceptual(maps, images, truth).mean().item()})


def retrieval_figures(samples: EvaluationSet, images: Tensor, maps: metrics.Maps) -> Figures:
    """Return how often the own source, and the own partner, of images [count, C, H, W] is the nearest of all."""
    source, found = metrics.embed(maps, samples.source.samples), metrics.embed(maps, images)
    figures = {"source found": metrics.retrieval(found, source)}
    if samples.candidates is not None:
        among = metrics.embed(maps, samples.candidates)
        figures["partner found"] = metrics.retrieval(found, among)
        figures["partner found" + OF_SOURCE] = metrics.retrieval(source, among)
    return figures


def compared_labels(
    samples: EvaluationSet, found: Tensor, inferred: Tensor | None, config: Config
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the labels int64 [count] whose agreement is a figure, by its name: (labels, what they should be).

    found: classes of the results, by a classifier; inferred: classes of the source, by the pipeline's own classifier.
    """
    labels, compared = samples.source.labels, {}
    if labels is not None and config.coupling in MATCHES_LABELS and not other_classes(config):
        compared["same label"] = found, labels
    if labels is not None and inferred is not None:
        compared["inferred label"] = inferred, labels
    if samples.asked is not None:
        compared["asked class"] = found, samples.asked.to(found.device)
    return compared


def rms(difference: Tensor) -> float:
    """Return the root mean square over samples and elements, in units of [-1, 1]."""
    return math.sqrt(difference.square().mean().item())


def share(which: Tensor) -> float:
    """Return the share of True in a tensor of booleans."""
    return which.double().mean().item()
