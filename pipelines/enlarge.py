"""Enlarge images with a pretrained diffusion model that sees them, such as the second stage of DeepFloyd IF."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.rng import derive_seed, normal_rows
from flowferry.models.diffusers_unet import DiffusersUNet
from flowferry.pipelines.flow.solvers import last
from flowferry.pipelines.pipeline import Pipeline


def enlarge(
    pipeline: Pipeline,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    """Return images [B, C, h, w] in [-1, 1] at the size of the pipeline, [B, C, H, W].

    A cascade (Ho et al. 2022): new images are drawn, and the network is shown the small ones, stretched and with a
    little noise. labels: int64 [B], of the pipeline's prompts. The result for image i is a function of (seed, i).
    Raises UserError for a pipeline that does not enlarge.
    """
    network, config = pipeline.model, pipeline.config
    if not isinstance(network, DiffusersUNet) or network.noising is None:
        raise UserError(f"{config.name} enlarges no images, expected a pipeline such as DeepFloyd/IF-II-L-v1.0")
    if images.ndim != 4 or images.shape[1] != config.shape[0]:
        raise UserError(f"images: got the shape {tuple(images.shape)}, expected (B, {config.shape[0]}, h, w)")
    levels = network.noising.levels or 0
    time = torch.tensor(1 - (network.noise_level + 1) / levels, device=pipeline.device)
    large, size = [], config.shape[1:]
    for rows in torch.arange(len(images)).split(batch_size or pipeline.block_size):
        seen = F.interpolate(images[rows].to(pipeline.device), size, mode="bilinear", align_corners=True)
        x0 = normal_rows(derive_seed(seed, "large image"), rows.tolist())(seen)
        eps = normal_rows(derive_seed(seed, "small image"), rows.tolist())(seen)
        seen = network.noising.interpolate(eps, seen, time)
        asked = None if labels is None else labels[rows]
        large.append(last(pipeline.trajectory(x0, asked, image=seen, seed=seed, rows=rows.tolist())))
    return torch.cat(large).clamp(-1, 1)


def enlarges(pipeline: Pipeline) -> bool:
    """Return whether a pipeline makes large images of small ones, and from nothing else."""
    return isinstance(pipeline.model, DiffusersUNet) and pipeline.model.noising is not None
