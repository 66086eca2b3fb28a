"""What images show: datasets/content.py."""

import torch
from scipy.ndimage import sobel

from flowferry.datasets.content import content, edges, standardized


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
