"""A small image encoder that is trained without labels: metrics compare its features."""

import torch
from torch import Tensor, nn

from flowferry.models.classifier import Residual, conv_norm

WIDTHS = (32, 64, 96)
EMBEDDING = 64
DAMAGES = 3  # that it tells apart: none, blur, noise


class Encoder(nn.Module):
    """Images [B, C, H, W] in [-1, 1], H and W at least 16 -> features [B, 96]; 330,000 parameters.

    The two heads are used in training alone: an embedding, alike for two views of one image, and logits of what damage
    a view has suffered.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.stages = nn.ModuleList(
            [
                nn.Sequential(conv_norm(channels, fine, 5, stride=2), nn.ReLU()),
                nn.Sequential(conv_norm(fine, middle, stride=2), nn.ReLU(), conv_norm(middle, middle), nn.ReLU()),
                nn.Sequential(conv_norm(middle, coarse, stride=2), nn.ReLU(), Residual(coarse)),
            ]
        )
        self.embedding = nn.Sequential(nn.Linear(coarse, coarse), nn.ReLU(), nn.Linear(coarse, EMBEDDING))
        self.damage = nn.Linear(coarse, DAMAGES)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the activations at three depths, [B, 32, H/2, W/2], [B, 64, H/4, W/4] and [B, 96, H/8, W/8]."""
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps

    def features(self, images: Tensor) -> Tensor:
        """Return the features [B, 96], the mean of the last activations."""
        return self.maps(images)[-1].mean(dim=(2, 3))

    @torch.no_grad()
    def extract(self, images: Tensor) -> Tensor:
        """Return the features [B, 96] in evaluation mode, of 500 images at a time."""
        self.eval()
        return torch.cat([self.features(part) for part in images.split(500)])
