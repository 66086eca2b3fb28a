"""The networks, by the `kind` of their configuration."""

import torch
from torch import nn

from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.models.attention_unet import AttentionUNet
from flowferry.models.base import Network
from flowferry.models.course_unet import CourseUNet
from flowferry.models.mlp import MLP
from flowferry.models.patch_unet import PatchUNet
from flowferry.models.practical_unet import PracticalUNet

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The precisions in which numbers take half the space."""

MODELS: dict[str, type[Network]] = {
    "course-unet": CourseUNet,
    "practical-unet": PracticalUNet,
    "attention-unet": AttentionUNet,
    "patch-unet": PatchUNet,
    "mlp": MLP,
}


def sees_source(config: Config) -> bool:
    """Return whether a pipeline's network is shown the source sample beside x_t."""
    return getattr(config.model, "sees_source", MODELS.get(config.model.kind, Network).sees_source)


def build_model(config: Config) -> nn.Module:
    """Return the network that `config.model` describes, initialized from torch's global generator.

    Raises UserError if it does not fit the pipeline's shape or classes.
    """
    kind, num_classes = config.model.kind, config.num_classes
    if num_classes and not MODELS[kind].takes_classes:
        able = " or ".join(f"--model {name}" for name, network in MODELS.items() if network.takes_classes)
        raise UserError(f"{kind} takes no classes: got {num_classes}, expected 0, or {able}")
    model = MODELS[kind](config.model, shape=config.shape, num_classes=num_classes)
    return model.to(memory_format=torch.channels_last)


def to_device(
    model: nn.Module, device: torch.device | str, *, train: bool = False, precision: str = "fp32"
) -> nn.Module:
    """Move the network to the device, with its kernels in the memory layout that is fastest there.

    Contiguous kernels are faster for some networks on a CPU, to train and to run in bf16: docs/PERFORMANCE.md.
    precision: in which to run it, "fp32", "bf16" or "fp16"; its answers are float32 in each. (In training, Accelerate
    sees to that.)
    """
    kind, half = torch.device(device).type, HALF.get(precision)
    contiguous = (train or half) and getattr(model, "trains_contiguous", False) and kind == "cpu"
    layout = torch.contiguous_format if contiguous else torch.channels_last
    if half:
        forward = torch.autocast(kind, half)(model.forward)
        model.forward = lambda *inputs: forward(*inputs).float()
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]
