"""Learning-rate schedules against torch's own: pipelines/training/schedules.py."""

import math

import pytest
import torch
from torch import nn

from flowferry.configs.recipe import TrainConfig
from flowferry.pipelines.training.schedules import SCHEDULES, learning_rate


@pytest.mark.parametrize("epochs, steps_per_epoch", [(1, 5), (3, 1), (7, 3), (10, 938), (49, 11), (100, 7)])
def test_exponential_is_torchs_exponential_lr_stepped_once_an_epoch(epochs: int, steps_per_epoch: int) -> None:
    config = TrainConfig(schedule="exponential", epochs=epochs, lr=1e-2, lr_final=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.1 ** (1 / epochs))
    total = epochs * steps_per_epoch
    for step in range(total):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(config, step, step / total) == pytest.approx(expected, rel=1e-9), f"step {step}"
        if (step + 1) % steps_per_epoch == 0:
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("schedule", ["exponential", "linear", "cosine"])
def test_a_decay_goes_from_lr_to_its_final_share_and_never_rises(schedule: str) -> None:
    config = TrainConfig(schedule=schedule, lr=0.02, lr_final=0.05, epochs=4)
    rates = [learning_rate(config, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[-1] == pytest.approx(0.02 * 0.05)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("progress", [0.25, 0.5, 0.8])
def test_linear_and_cosine_between_their_ends(progress: float) -> None:
    linear, cosine = (TrainConfig(schedule=name, lr=1.0, lr_final=0.2) for name in ("linear", "cosine"))
    assert learning_rate(linear, 9, progress) == pytest.approx(0.2 * progress + 1.0 * (1 - progress))
    # Half a wave: as far above the middle, 0.6, as cos(π·progress) says.
    assert learning_rate(cosine, 9, progress) == pytest.approx(0.6 + 0.4 * math.cos(math.pi * progress))


def test_constant_stays() -> None:
    config = TrainConfig(schedule="constant", lr=0.3)
    assert {learning_rate(config, step, step / 10) for step in range(11)} == {0.3}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [1, 4, 50])
def test_the_warm_up_rises_in_equal_steps_to_the_schedule(schedule: str, warmup: int) -> None:
    warmed, plain = (TrainConfig(schedule=schedule, lr=0.5, warmup_steps=steps) for steps in (warmup, 0))
    shares = [learning_rate(warmed, step, step / 200) / learning_rate(plain, step, step / 200) for step in range(60)]
    assert shares[: warmup + 1] == pytest.approx([(step + 1) / (warmup + 1) for step in range(warmup + 1)])
    assert shares[warmup:] == pytest.approx([1.0] * (60 - warmup))


@pytest.mark.parametrize("total", [6, 100, 399])
def test_the_warm_up_of_a_short_run_is_its_first_quarter(total: int) -> None:
    config = TrainConfig(schedule="constant", lr=0.5, warmup_steps=200)
    rates = [learning_rate(config, step, step / total) for step in range(total)]
    assert 0 < rates[0] <= 0.5 / 4 and rates == sorted(rates)
    assert max(rates[: math.ceil(total / 4)]) < 0.5
    assert rates[math.ceil(total / 4) :] == [0.5] * (total - math.ceil(total / 4))


def test_a_run_of_four_warm_ups_or_more_rises_as_it_is_told() -> None:
    config = TrainConfig(schedule="constant", lr=0.5, warmup_steps=200)
    for total in (800, 801, 10**6):
        rates = [learning_rate(config, step, step / total) for step in range(300)]
        assert rates == [0.5 * min(1.0, (step + 1) / 201) for step in range(300)]  # to the bit
