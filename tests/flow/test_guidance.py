"""Laws of guidance, by a class and by a weaker network: pipelines/flow/guidance.py."""

import pytest
import torch
from torch import Tensor

from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.guidance import autoguide, guide
from flowferry.pipelines.flow.solvers import Velocity

NULL = 10
LABELS = torch.tensor([3, 0, 9])
X = torch.tensor([[1.0, 2.0], [-0.5, 4.0], [0.0, 1.0]], dtype=torch.float64)
IMAGES = X.flip(1) + 7
T = torch.tensor(0.3, dtype=torch.float64)


class Network:
    """A velocity that differs from label to label, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Condition]] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.calls.append((x, t, condition))
        label = condition.label
        return torch.sin(x * (1 + label[:, None])) + t * label[:, None]


def condition(device: torch.device, *, image: bool = False) -> Condition:
    return Condition(LABELS.to(device), IMAGES.to(device) if image else None, NULL)


def velocity(w: float, device: torch.device, *, image: bool = False) -> tuple[Velocity, Network]:
    network = Network()
    return guide(network, condition(device, image=image), w), network


def guided(w: float, device: torch.device) -> Tensor:
    v, _ = velocity(w, device)
    return v(X.to(device), T.to(device))


def test_w_1_is_conditional_and_w_0_unconditional(device: torch.device) -> None:
    x, t, labels = X.to(device), T.to(device), LABELS.to(device)
    conditional, unconditional = (
        Network()(x, t, Condition(label, None, NULL)) for label in (labels, torch.full_like(labels, NULL))
    )
    torch.testing.assert_close(guided(1.0, device), conditional, rtol=0, atol=0)
    torch.testing.assert_close(guided(0.0, device), unconditional, rtol=0, atol=0)


@pytest.mark.parametrize("w", [-1.0, 0.5, 0.999, 2.0, 7.5])
def test_the_guided_velocity_is_affine_in_w(w: float, device: torch.device) -> None:
    uncond, cond = guided(0.0, device), guided(1.0, device)
    torch.testing.assert_close(guided(w, device), uncond + w * (cond - uncond))


@pytest.mark.parametrize("w, asked", [(1.0, LABELS), (0.0, torch.full_like(LABELS, NULL))])
def test_w_1_and_w_0_cost_one_forward_of_the_batch(w: float, asked: Tensor, device: torch.device) -> None:
    v, network = velocity(w, device)
    v(X.to(device), T.to(device))
    ((x, t, told),) = network.calls
    assert torch.equal(x.cpu(), X)
    assert torch.equal(t.cpu(), T)
    assert torch.equal(told.label.cpu(), asked)
    assert told.num_classes == NULL


@pytest.mark.parametrize("w", [-1.0, 0.5, 5.0])
def test_any_other_w_costs_one_forward_of_twice_the_batch(w: float, device: torch.device) -> None:
    v, network = velocity(w, device)
    v(X.to(device), T.to(device))
    ((x, t, told),) = network.calls
    assert torch.equal(t.cpu(), T)
    asked = sorted((*row, label) for row, label in zip(x.tolist(), told.label.tolist(), strict=True))
    expected = [(*row, label) for row, label in zip(X.tolist(), LABELS.tolist(), strict=True)]
    expected += [(*row, NULL) for row in X.tolist()]
    assert asked == sorted(expected)
    assert told.label.dtype == torch.int64


@pytest.mark.parametrize("w", [0.0, 1.0, 5.0])
def test_each_row_is_shown_its_own_image_with_and_without_its_label(w: float, device: torch.device) -> None:
    v, network = velocity(w, device, image=True)
    v(X.to(device), T.to(device))
    ((x, _, told),) = network.calls
    assert len(x) == (3 if w in (0, 1) else 6)
    assert torch.equal(told.image, x.flip(1) + 7)  # as each image was made of its row


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_without_labels_a_velocity_is_asked_once_and_told_nothing(w: float) -> None:
    told: list[Condition] = []

    def v(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        told.append(condition)
        return 2 * x

    assert torch.equal(guide(v, NO_CONDITION, w)(X, T), 2 * X)
    assert told == [NO_CONDITION]


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 7.0])
def test_what_is_answered_beside_a_velocity_stays_that_of_the_condition(w: float, device: torch.device) -> None:
    def both(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return torch.cat([Network()(x, t, condition), condition.label[:, None] + 0 * x], dim=1)

    found = guide(both, condition(device), w)(X.to(device), T.to(device))
    torch.testing.assert_close(found[:, :2], guided(w, device))
    told = torch.full_like(LABELS, NULL) if w == 0 else LABELS
    assert torch.equal(found[:, 2:].cpu(), told[:, None] + 0 * X)


# --- guidance by a weaker network ------------------------------------------------------------------------


class Weaker(Network):
    """The same, only wrong."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return super().__call__(x, t, condition) + x.square()


def autoguided(w: float, device: torch.device) -> tuple[Tensor, Network, Weaker]:
    network, weaker = Network(), Weaker()
    return autoguide(network, weaker, w)(X.to(device), T.to(device), condition(device)), network, weaker


@pytest.mark.parametrize("w", [0.5, 1.7, 3.0])
def test_autoguidance_leads_away_from_the_error_of_the_weaker_network(w: float, device: torch.device) -> None:
    own, *_ = autoguided(1.0, device)
    guided, *_ = autoguided(w, device)
    torch.testing.assert_close(guided, own - (w - 1) * X.to(device).square())  # v − v_weaker is −x²


@pytest.mark.parametrize("w, asked", [(1.0, (1, 0)), (0.0, (0, 1)), (2.0, (1, 1))])
def test_autoguidance_asks_no_network_whose_answer_has_no_weight(
    w: float, asked: tuple[int, int], device: torch.device
) -> None:
    _, network, weaker = autoguided(w, device)
    assert (len(network.calls), len(weaker.calls)) == asked
    for x, _, told in network.calls + weaker.calls:
        assert torch.equal(x, X.to(device)) and torch.equal(told.label, LABELS.to(device))
