"""A second classifier of digits, for a distance by which nothing here was ever chosen: LeNet-5 (LeCun et al. 1998).

It shares neither code nor augmentation with the project's classifier: plain convolutions with ReLU, Adam, no
normalization, no shifts. Its features are the 84 numbers before the last layer.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowferry.datasets.base import Sampler
from flowferry.pipelines.evaluation import metrics

EPOCHS, BATCH, RATE = 8, 128, 1e-3
BLOCK = 1000  # images at a time that are only looked at


class LeNet(nn.Module):
    """Images [B, 1, 28, 28] in [-1, 1] -> logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        )
        self.head = nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return what comes before the last layer [N, 84]."""
        return torch.cat([self.body(part) for part in images.split(BLOCK)])


class Judge:
    """A trained LeNet and its features of real digits.

    train, test: digits by split; file: where the network is kept, or found.
    """

    def __init__(self, train: Sampler, test: Sampler, file: Path) -> None:
        self.network = LeNet().eval()
        if file.is_file():
            self.network.load_state_dict(load_file(file))
        else:
            fit(self.network, train)
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(self.network.state_dict(), file)
        images, labels = test.draw(test.size or BLOCK, seed=0, step=0)
        assert labels is not None, "digits have classes"
        self.real = self.network.features(images)
        self.accuracy = (self.network.head(self.real).argmax(dim=1) == labels).double().mean().item()

    def distance(self, images: Tensor) -> float:
        """Return the Fréchet distance of images [N, 1, 28, 28] in [-1, 1] from the real digits of the test split."""
        return metrics.frechet(self.real, self.network.features(images))


def fit(network: nn.Module, train: Sampler) -> None:
    """Train it on all digits, EPOCHS times in another order."""
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    for step in range(EPOCHS * (train.size or BLOCK) // BATCH):
        images, labels = train.draw(BATCH, seed=0, step=step)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
