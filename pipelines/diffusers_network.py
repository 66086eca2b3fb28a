"""A network of this project as a component of diffusers, which imports it by the name in an exported folder.

Needs diffusers; nothing else here imports this file.
"""

from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from configs.schema import Config
from models import build_model
from pipelines.guidance import guide


class FlowferryNetwork(ModelMixin, ConfigMixin):
    """`unet(sample, timestep).sample`, in the conventions of the scheduler that it was exported with.

    Diffusers counts time from the image to the noise and flow matching's velocity likewise, which is why the velocity
    changes its sign here.
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
    ) -> None:
        super().__init__()
        self.network = build_model(Config.from_dict(pipeline))

    def forward(
        self, sample: Tensor, timestep: Tensor | float, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """sample [B, C, H, W]; timestep: one, or [B]; class_labels: int64 [B], guided by the pipeline's weight."""
        told: Any = self.config  # a dictionary with attributes
        t = 1 - (torch.as_tensor(timestep, device=sample.device) + told.first_timestep) / told.num_train_timesteps
        t, null = t.to(sample.dtype).expand(len(sample)), told.pipeline["classes"]
        if class_labels is None:
            label = torch.full((len(sample),), null, device=sample.device) if null else None
            found = self.network(sample, t, label)
        else:
            found = guide(self._predict, class_labels, null, told.pipeline["solver"]["guidance"])(sample, t)
        found = told.sign * found
        return UNet2DOutput(sample=found) if return_dict else (found,)

    def _predict(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.network(x, t[:1].expand(len(x)), label)
