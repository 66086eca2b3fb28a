"""`train --inspect`: show which source samples are paired with which target samples, in figures and in a picture."""

import logging
from functools import partial
from pathlib import Path

import torch

from flowferry.configs.schema import Config
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_samplers
from flowferry.datasets.classes import other_classes
from flowferry.datasets.couplings import Pairing, independent
from flowferry.pipelines.storage.files import prepare_folder, write_png
from flowferry.pipelines.training.batches import couple
from flowferry.pipelines.training.folder_choices import with_folder_choices
from flowferry.pipelines.training.teacher import Teacher
from flowferry.pipelines.visualization.grids import caption, sheet

log = logging.getLogger("flowferry")

SHOWN = 16  # pairs in a row of the sheet
ROWS = 4


def run(config: Config, folder: Path, *, data_root: Path) -> int:
    """Print figures of the first pool of a training run, and draw its first pairs to `folder`/samples/pairs.png.

    A pool is the batches that are coupled at once. Returns the exit code.
    """
    config = with_folder_choices(config, folder, partial(log.info, "%s"))
    if config.is_image:
        prepare_folder(folder / "samples", "--output-dir")
    source, target = build_samplers(config, data_root=data_root, split="train", device=torch.device("cpu"))
    count = config.coupling_batches * config.train.batch_size
    if config.has_teacher:
        source, target = (
            Teacher(config, folder, torch.device("cpu")).pairs(source, count, "train").make_in_memory().sides
        )
    pairing = couple(config.coupling, source, target, count, config.seed, 0)
    print("\n".join(f"{what:<34}{value}" for what, value in facts(config, pairing, source, target).items()))
    if config.is_image:
        x0, x1 = (batch.samples[: SHOWN * ROWS].split(SHOWN) for batch in pairing)
        rows = [row for pair in zip(x0, x1, strict=True) for row in zip(("source", "target"), pair, strict=True)]
        file = folder / "samples" / "pairs.png"
        write_png(file, sheet(rows, caption(config, f"coupling {config.coupling}", f"{count} at once")))
        log.info("the first pairs: %s", file)
    return 0


def facts(config: Config, pairing: Pairing, source: Sampler, target: Sampler) -> dict[str, str]:
    """Return figures of the pairing, by their names; `pairing` is the first pool that training sees."""
    x0, x1 = pairing
    count = len(x0.samples)
    chance = independent(source, target, count, config.seed, 0)
    cost, by_chance = transport_cost(pairing), transport_cost(chance)
    told = {
        "coupling": f"{config.coupling}, {count} pairs at once",
        "mean ‖x1 − x0‖², by element": f"{cost:.4f}; independent: {by_chance:.4f} ({cost / by_chance - 1:+.1%})",
        "duplicates": f"{duplicates(x0.samples)} in the source, {duplicates(x1.samples)} in the target",
    }
    for name, batch in (("source", x0), ("target", x1)):
        low, high = batch.samples.aminmax()
        mean, std = batch.samples.mean(), batch.samples.std()
        told[f"values of the {name}"] = f"{low:.3f} to {high:.3f}, mean {mean:.3f}, standard deviation {std:.3f}"
        if batch.labels is not None:
            told[f"labels of the {name}"] = " ".join(map(str, torch.bincount(batch.labels).tolist())) + ", by class"
    if x0.labels is not None and x1.labels is not None and not other_classes(config):
        told["pairs that agree in their labels"] = f"{(x0.labels == x1.labels).double().mean().item():.1%}"
    return told


def transport_cost(pairing: Pairing) -> float:
    """Return the mean over pairs and elements of (x1 − x0)²."""
    x0, x1 = pairing
    return (x1.samples - x0.samples).square().mean().item()


def duplicates(samples: torch.Tensor) -> int:
    """Return how many samples [N, …] repeat an earlier one."""
    return len(samples) - len(samples.flatten(1).unique(dim=0))
