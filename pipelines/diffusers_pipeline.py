"""A pipeline of diffusers in our terms: its scheduler as a path, a prediction and a solver; its UNet as a network."""

import logging
from pathlib import Path
from typing import Any, Literal

import torch

from flowferry.configs.components import GaussianConfig, ImageFolderConfig
from flowferry.configs.networks import DiffusersConfig
from flowferry.configs.recipe import SolverConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.models import HALF
from flowferry.models.diffusers_unet import DiffusersUNet, is_untrained
from flowferry.pipelines.flow.paths import diffusion
from flowferry.pipelines.flow.times import list_length
from flowferry.pipelines.storage.diffusers_folder import Components, load, name_of

log = logging.getLogger("flowferry")

DTYPES = {"fp32": torch.float32, **HALF}
PREDICTIONS: dict[str, Literal["source", "target", "v-prediction"]] = {
    "epsilon": "source",
    "sample": "target",
    "v_prediction": "v-prediction",
}
VARIANCES: dict[str, Literal["large", "small", "learned"]] = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
}
GUIDANCE = {False: 7.0, True: 4.0}  # of a first stage of DeepFloyd IF, and of one that enlarges
DDIM_STEPS, TEXT_STEPS = 50, 100  # that diffusers takes where it is not asked for another number


def read_pipeline(folder: Path, *, device: torch.device, precision: str, offload: bool) -> tuple[Config, DiffusersUNet]:
    """Return the configuration and the network of a pipeline of diffusers.

    precision: of weights and computation, "fp32", "bf16" or "fp16"; offload: whether the weights stay in main memory
    and come to the device layer by layer. Raises UserError for what is not supported.
    """
    parts = load(folder, DTYPES[precision])
    config = config_of(parts, folder)
    parts.unet.eval().requires_grad_(False)
    if is_untrained(parts.unet):
        log.warning("%s: the UNet is random: its normalizations are as they were initialized", folder)
    network = DiffusersUNet(
        parts.unet,
        diffusion(parts.scheduler.betas.double()),
        learns_variance=config.solver.variance == "learned",
        noising=diffusion(parts.noising.betas.double()) if parts.noising else None,
    )
    return config, placed(network, device, offload=offload)


def placed(network: DiffusersUNet, device: torch.device, *, offload: bool) -> DiffusersUNet:
    """Move the network to the device, or have accelerate bring its layers there.

    Raises UserError where the memory is too small.
    """
    try:
        if not offload:
            return network.to(device).eval()
        from accelerate import cpu_offload

        cpu_offload(network.unet, execution_device=device)
        network.computes_on = device
        return network.eval()
    except torch.OutOfMemoryError:
        raise UserError(
            f"{device}: too little memory for the weights, expected --precision fp16, or in Python offload=True"
        ) from None


def config_of(parts: Components, folder: Path) -> Config:
    """Return the configuration that says the same as the UNet's and the scheduler's."""
    unet, told = parts.unet.config, parts.scheduler.config
    side = unet.sample_size
    channels = unet.in_channels // 2 if parts.noising else unet.in_channels
    usual = "timestep" if parts.noising else None  # which class the UNet is told: the noise on the small image, or none
    if unet.get("num_class_embeds") or unet.get("class_embed_type") != usual:
        raise UserError(f"{folder}: got a UNet with classes, expected one without, or with texts")
    if side is None:
        raise UserError(f"{folder}: got the sample_size None, expected the pixels of an image's side")
    for what, known in (("prediction_type", PREDICTIONS), ("variance_type", VARIANCES)):
        if told.get(what, next(iter(known))) not in known:
            raise UserError(f"{folder}: got the {what} {told[what]}, expected {', '.join(known)}")
    if (last := float(parts.scheduler.betas.max())) >= 1:
        raise UserError(f"{folder}: got a beta of {last:g}, expected all below 1, so that some of the image is kept")
    guidance = GUIDANCE[parts.noising is not None] if "cross_attention_dim" in unet else None
    kind, scheduler = type(parts.unet).__name__, type(parts.scheduler).__name__
    return Config(
        name=name_of(folder),
        summary=f"a pretrained {kind} of diffusers with its {scheduler}",
        source=GaussianConfig(),
        target=ImageFolderConfig(),
        model=DiffusersConfig(unet=kind, folder=str(folder)),
        shape=(channels, *(side if isinstance(side, list | tuple) else (side, side))),
        path="ddpm",
        prediction=PREDICTIONS[told.prediction_type],
        solver=solver_of(told, scheduler, guidance=guidance),
    )


def solver_of(told: Any, scheduler: str, *, guidance: float | None) -> SolverConfig:
    """Return how diffusers runs such a pipeline by default, for the configuration of its scheduler.

    guidance: towards a text; None for a pipeline that takes none.
    """
    levels, is_ddim = told.num_train_timesteps, scheduler == "DDIMScheduler"
    steps = DDIM_STEPS if is_ddim else TEXT_STEPS if guidance else levels
    stride = max(1, levels // steps)
    limits: dict[str, Any] = {}
    if told.get("thresholding"):
        limits = {"threshold": told.dynamic_thresholding_ratio, "clip": told.sample_max_value}
    elif told.clip_sample:
        limits = {"clip": told.clip_sample_range}
    return SolverConfig(
        name="ddim" if is_ddim else "ancestral",
        num_steps=list_length(levels, stride),
        stride=None if stride == 1 else stride,
        variance=VARIANCES[told.get("variance_type", "fixed_small")],
        guidance=guidance or 1.0,
        **limits,
    )
