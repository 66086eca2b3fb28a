"""What is minimized: pipelines/flow/losses.py."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.pipelines.flow.losses import LOSSES, C, pseudo_huber, squared

TWO_AND_ONE = torch.tensor([[0.0], [0.0], [1.0]])  # two samples here, one there


def best(name: str, samples: Tensor) -> float:
    """Return the constant prediction of least loss, found by gradient descent."""
    x = torch.tensor([0.9], dtype=torch.float64, device=samples.device, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr=0.01)
    for _ in range(3000):
        optimizer.zero_grad()
        LOSSES[name](x.expand(len(samples), 1), samples.double()).backward()
        optimizer.step()
    return x.item()


def test_the_squared_error_leads_to_the_mean_and_the_other_to_the_majority(device: torch.device) -> None:
    assert best("squared", TWO_AND_ONE.to(device)) == pytest.approx(1 / 3, abs=1e-3)
    assert best("pseudo-huber", TWO_AND_ONE.to(device)) == pytest.approx(0, abs=0.02)


def test_closed_forms(device: torch.device) -> None:
    truth = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)).to(device)
    assert squared(truth + 0.3, truth).item() == pytest.approx(0.09, rel=1e-5)
    assert pseudo_huber(truth + 0.3, truth).item() == pytest.approx((0.09 + C**2) ** 0.5 - C, rel=1e-5)
    mixed = truth.clone()
    mixed[0] += 3.0  # one sample of five: linear in the one, squared in the other
    assert squared(mixed, truth).item() == pytest.approx(9 / 5, rel=1e-5)
    assert pseudo_huber(mixed, truth).item() == pytest.approx((3 - C) / 5, rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_prediction_costs_nothing_and_has_a_gradient(name: str, device: torch.device) -> None:
    truth = torch.ones(2, 3, device=device)
    prediction = truth.clone().requires_grad_()
    loss = LOSSES[name](prediction, truth)
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None and prediction.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_pipeline_has_the_loss_of_its_configuration(name: str, tiny: Callable[..., Config]) -> None:
    config = tiny("fashion2mnist")
    config = replace(config, train=replace(config.train, loss=name))
    pipeline = Pipeline(config, lambda xt, t, condition: 0.5 * xt)  # type: ignore[arg-type]
    x0, x1 = (torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    t = torch.tensor([0.1, 0.5, 0.9])
    at = t[:, None, None, None]
    expected = LOSSES[name](0.5 * ((1 - at) * x0 + at * x1), x1 - x0)
    torch.testing.assert_close(pipeline.loss(x0, x1, t), expected)
