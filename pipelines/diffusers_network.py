"""A network of this project as a component of diffusers, which imports it by its name in an exported folder.

Needs diffusers; nothing else here imports this file.
"""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from flowferry.configs.schema import Config
from flowferry.models import build_model
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.guidance import ConditionalVelocity, autoguide, guide


class FlowferryNetwork(ModelMixin, ConfigMixin):
    """A network that is called as `unet(sample, timestep).sample`, in the conventions of its exported scheduler.

    Diffusers counts time from the image to the noise, so that a velocity changes its sign here.
    """

    @register_to_config
    def __init__(
        self,
        pipeline: dict[str, Any],
        num_train_timesteps: int,
        first_timestep: int,
        sign: int,
        in_channels: int,
        sample_size: list[int],
        has_weaker: bool = False,
    ) -> None:
        super().__init__()
        self.network = build_model(Config.from_dict(pipeline))
        self.weaker = build_model(Config.from_dict(pipeline)) if has_weaker else None

    def forward(
        self, sample: Tensor, timestep: Tensor | float, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """Return the prediction, in the shape of sample [B, C, H, W], guided with the pipeline's weight.

        timestep: a number or [B], in [0, num_train_timesteps]; class_labels: int64 [B]; None for no class.
        """
        options: Any = self.config  # a dictionary with attributes
        t = 1 - (torch.as_tensor(timestep, device=sample.device) + options.first_timestep) / options.num_train_timesteps
        t, config = t.to(sample.dtype).expand(len(sample)), Config.from_dict(options.pipeline)
        condition = Condition(class_labels, num_classes=config.num_classes)
        if class_labels is None and config.num_classes:
            null = torch.full((len(sample),), config.num_classes, device=sample.device)
            condition = condition._replace(label=null)
        answer, w = answers_of(self.network), config.solver.guidance
        if self.weaker is not None:
            answer, w = autoguide(answer, answers_of(self.weaker), w), 1.0
        guided = options.sign * guide(answer, condition, 1.0 if class_labels is None else w)(sample, t)
        return UNet2DOutput(sample=guided) if return_dict else (guided,)


def answers_of(network: nn.Module) -> ConditionalVelocity:
    """Return what a network answers to samples [B, …] at times [B], or [B / 2] where both halves have the same."""
    return lambda x, t, condition: network(x, t.repeat(len(x) // len(t)), condition)
