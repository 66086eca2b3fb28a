"""Images in memory that the tests of data sets share."""

import pytest
import torch

from flowferry.datasets.in_memory import InMemory
from sample_data import CPU


@pytest.fixture
def numbered() -> InMemory:
    """Ten 1×2×2 images: image i is gray 20·i and has the label 9 − i."""
    images = 20 * torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    return InMemory(images.contiguous(), 9 - torch.arange(10), num_classes=10, device=CPU)


@pytest.fixture
def clean() -> InMemory:
    """400 images of even gray, black and white included: image i has the label i mod 10."""
    grays = torch.linspace(0, 255, 400).round().to(torch.uint8)[:, None, None, None]
    return InMemory(grays.expand(-1, 1, 8, 8).contiguous(), torch.arange(400) % 10, num_classes=10, device=CPU)
