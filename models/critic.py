"""A critic: a small network that learns to tell real images from results. It is used in training alone."""

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

WIDTHS = (32, 64, 128)


class Critic(nn.Sequential):
    """Images [B, C, H, W] in [-1, 1], H and W at least 8 -> scores [B, 1, H/8, W/8], higher for what looks real.

    Each score judges a patch of 38×38 pixels (Isola et al. 2017, 3.2.2). The spectral norm of each layer but the
    last is 1 (Miyato et al. 2018), so that scores change slowly enough to learn from.
    """

    def __init__(self, *, channels: int) -> None:
        layers: list[nn.Module] = []
        for cin, cout in zip((channels, *WIDTHS), WIDTHS, strict=False):
            layers += [spectral_norm(nn.Conv2d(cin, cout, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(WIDTHS[-1], 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = super().forward(images)
        return scores
