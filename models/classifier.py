"""A small image classifier: metrics compare its features, and labels are inferred from its predictions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (64, 96)


def conv_norm(cin: int, cout: int, kernel: int = 3, *, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias, then BatchNorm."""
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout))


class Residual(nn.Module):
    """A residual block of two convolutions: x [B, C, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv_norm(channels, channels), conv_norm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Classifier(nn.Module):
    """Images [B, C, H, W] in [-1, 1], H and W at least 16 -> logits [B, num_classes]; 300,000 parameters."""

    def __init__(self, *, channels: int, num_classes: int) -> None:
        super().__init__()
        fine, coarse = WIDTHS
        self.body = nn.Sequential(
            conv_norm(channels, fine, 5, stride=2),
            nn.ReLU(),
            Residual(fine),
            conv_norm(fine, coarse, stride=2),
            nn.ReLU(),
            Residual(coarse),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(coarse, num_classes)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the activations at two depths, [B, 64, H/2, W/2] and [B, 96, H/4, W/4]."""
        fine = self.body[:3](images)
        return [fine, self.body[3:6](fine)]

    def features(self, images: Tensor) -> Tensor:
        """Return the features [B, 96], of which the logits are a linear function."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


@torch.no_grad()
def extract(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features [B, 96] and class probabilities [B, num_classes] of `images` [B, C, H, W] in [-1, 1].

    500 images go through the classifier at a time. Puts it in evaluation mode.
    """
    classifier.eval()
    features = torch.cat([classifier.features(part) for part in images.split(500)])
    return features, classifier.head(features).softmax(dim=1)


@torch.no_grad()
def accuracy(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of `images` [B, C, H, W] that the classifier assigns to their `labels`, int64 [B].

    Puts it in evaluation mode.
    """
    classifier.eval()
    right = [
        (classifier(part).argmax(dim=1) == wanted).sum().item()
        for part, wanted in zip(images.split(500), labels.split(500), strict=True)
    ]
    return sum(right) / len(labels)
