"""What images show: datasets/content.py."""

from typing import Any

import pytest
import torch
from scipy.ndimage import sobel
from torch.utils._python_dispatch import TorchDispatchMode

from flowferry.datasets import content as module
from flowferry.datasets.content import AT_ONCE, content, edges, standardized


def images(count: int = 6, side: int = 24) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_edges_are_those_of_scipy() -> None:
    x = images()
    right, down = (
        torch.stack([torch.from_numpy(sobel(gray.numpy(), axis=axis, mode="nearest")) / 8 for gray in x.mean(1)])
        for axis in (1, 0)
    )
    expected = torch.stack([right, down, -right, -down], dim=1).clamp(min=0)
    torch.testing.assert_close(edges(x), expected, atol=1e-5, rtol=1e-4)


def test_each_feature_is_centered_and_the_mean_length_is_1() -> None:
    features = standardized(torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 8) + 3)
    torch.testing.assert_close(features.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.square().sum(1).mean(), torch.tensor(1.0))
    spread = features.std(0)
    assert spread.max() / spread.min() < 1.5  # seven times before


def test_content_is_blind_to_a_change_of_brightness_and_contrast_that_all_images_share() -> None:
    x = images()
    torch.testing.assert_close(content(0.3 * x - 0.2), content(x), atol=1e-4, rtol=1e-3)


def test_content_does_not_depend_on_the_size() -> None:
    x = images(side=32)
    larger = x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    assert content(larger).shape == content(x).shape == (6, 7 * 64)
    assert torch.cdist(content(larger), content(x)).argmin(1).tolist() == list(range(6))


def test_images_that_are_all_alike_have_the_same_content() -> None:
    assert not content(torch.ones(3, 1, 16, 16)).any()


class Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor had that was made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        made = func(*args, **(kwargs or {}))
        tensors = [one for one in (made if isinstance(made, list | tuple) else [made]) if isinstance(one, torch.Tensor)]
        self.elements = max([self.elements, *(one.numel() for one in tensors)])
        return made


@pytest.mark.parametrize("count", [1, 64, 65, 150, 200])
def test_going_through_the_images_in_parts_changes_nothing_and_takes_little_memory(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = images(count, 40)
    with Largest() as in_parts:
        features = content(x)
    assert in_parts.elements <= max(x.numel(), AT_ONCE * 7 * 42 * 42), "the images themselves, or a part with edges"
    monkeypatch.setattr(module, "AT_ONCE", count)
    assert torch.equal(features, content(x))
