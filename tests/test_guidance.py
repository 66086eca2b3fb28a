"""Laws of classifier-free guidance: pipelines/guidance.py."""

import pytest
import torch
from torch import Tensor

from pipelines.guidance import guide

NULL = 10
LABELS = torch.tensor([3, 0, 9])
X = torch.tensor([[1.0, 2.0], [-0.5, 4.0], [0.0, 1.0]], dtype=torch.float64)
T = torch.tensor(0.3, dtype=torch.float64)


class Network:
    """A velocity that differs from label to label, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.calls.append((x, t, label))
        return torch.sin(x * (1 + label[:, None])) + t * label[:, None]


def guided(w: float) -> Tensor:
    return guide(Network(), LABELS, NULL, w)(X, T)


def test_w_1_is_conditional_and_w_0_unconditional() -> None:
    torch.testing.assert_close(guided(1.0), Network()(X, T, LABELS), rtol=0, atol=0)
    torch.testing.assert_close(guided(0.0), Network()(X, T, torch.full_like(LABELS, NULL)), rtol=0, atol=0)


@pytest.mark.parametrize("w", [-1.0, 0.5, 0.999, 2.0, 7.5])
def test_the_guided_velocity_is_affine_in_w(w: float) -> None:
    torch.testing.assert_close(guided(w), guided(0.0) + w * (guided(1.0) - guided(0.0)))


@pytest.mark.parametrize("w, asked", [(1.0, LABELS), (0.0, torch.full_like(LABELS, NULL))])
def test_w_1_and_w_0_cost_one_forward_of_the_batch(w: float, asked: Tensor) -> None:
    network = Network()
    guide(network, LABELS, NULL, w)(X, T)
    ((x, t, label),) = network.calls
    assert torch.equal(x, X)
    assert torch.equal(t, T)
    assert torch.equal(label, asked)


@pytest.mark.parametrize("w", [-1.0, 0.5, 5.0])
def test_any_other_w_costs_one_forward_of_twice_the_batch(w: float) -> None:
    network = Network()
    guide(network, LABELS, NULL, w)(X, T)
    ((x, t, label),) = network.calls
    assert torch.equal(t, T)
    asked = sorted((*row, told) for row, told in zip(x.tolist(), label.tolist(), strict=True))
    expected = [(*row, told) for row, told in zip(X.tolist(), LABELS.tolist(), strict=True)]
    expected += [(*row, NULL) for row in X.tolist()]
    assert asked == sorted(expected)
    assert label.dtype == torch.int64
