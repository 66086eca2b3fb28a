"""Measures of a trained pipeline, on fixed samples: the held-out loss, and whether the asked class is what comes."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from datasets import Sampler
from datasets.keyed import key
from pipelines.batches import draw_pairs
from pipelines.pipeline import Pipeline

HELD_OUT = 1024  # test samples that the held-out loss is measured on, or a few more to fill the last batch


@torch.no_grad()
def held_out_loss(pipeline: Pipeline, source: Sampler, target: Sampler) -> float:
    """The loss on fixed pairs, times and labels of the test split. Puts the network in evaluation mode."""
    config, seed = pipeline.config, key(pipeline.config.seed, "held out")
    batch = config.train.batch_size
    pipeline.model.eval()
    losses = [
        pipeline.loss(*draw_pairs(config, source, target, batch, seed=seed, step=step))
        for step in range(-(-HELD_OUT // batch))
    ]
    return torch.stack(losses).mean().item()


def asked_share(
    pipeline: Pipeline,
    accuracy: Callable[[Tensor, Tensor], float],
    per_label: int,
    *,
    guidance: float,
    data_root: Path,
) -> float:
    """Of `per_label` samples of each class, the share that show what was asked.

    accuracy(images [B, C, H, W], labels [B]): the share of the images that a classifier takes for their labels.
    """
    labels = torch.arange(pipeline.config.classes).repeat(per_label)
    samples = pipeline.sample(len(labels), labels, guidance=guidance, data_root=data_root)
    return accuracy(samples, labels.to(samples.device))
