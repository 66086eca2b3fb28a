"""The networks. One contract: `model(xt, t, label) -> prediction`.

xt: [B, C, H, W], or [B, n] for points; t: [B] in [0, 1]; label: int64 [B] in [0, classes], where `classes` is the
null label ("not told"), or None for a network that takes no classes. The prediction has the shape of xt.
"""

from collections.abc import Callable

import torch
from torch import nn

from configs.schema import Config
from models.attention_unet import AttentionUNet
from models.course_unet import CourseUNet
from models.mlp import MLP
from models.patch_unet import PatchUNet
from models.practical_unet import PracticalUNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "course-unet": CourseUNet,
    "practical-unet": PracticalUNet,
    "attention-unet": AttentionUNet,
    "patch-unet": PatchUNet,
    "mlp": MLP,
}


CONTIGUOUS = ("patch-unet",)  # train faster so on a CPU, though they run faster channels last: docs/PERFORMANCE.md


def build_model(config: Config) -> nn.Module:
    """The network that `config.model` describes, freshly initialised from the global torch generator."""
    model = MODELS[config.model.kind](config.model, shape=config.shape, classes=config.classes)
    return model.to(memory_format=torch.channels_last)


def placed(model: nn.Module, config: Config, device: torch.device | str, *, train: bool = False) -> nn.Module:
    """The network on the device, its kernels in the order in memory that is fastest there, to be trained or run."""
    contiguous = train and config.model.kind in CONTIGUOUS and torch.device(device).type == "cpu"
    layout = torch.contiguous_format if contiguous else torch.channels_last
    return model.to(device, memory_format=layout)  # type: ignore[call-overload]
