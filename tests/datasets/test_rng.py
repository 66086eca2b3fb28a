"""Noise that each row draws by itself: datasets/rng.py."""

import math

import pytest
import torch

from flowferry.datasets.rng import normal_rows


def test_noise_by_rows_is_standard_normal_and_independent() -> None:
    noise, x = normal_rows(0, range(20)), torch.zeros(20, 1, 28, 28)
    values = torch.stack([noise(x) for _ in range(5)]).flatten(2)  # [call, row, element]
    assert abs(values.mean().item()) < 5 / math.sqrt(values.numel())
    assert abs(values.var().item() - 1) < 5 * math.sqrt(2 / values.numel())
    inside = (values.abs() < 1).double().mean().item()
    assert abs(inside - math.erf(math.sqrt(1 / 2))) < 5 * math.sqrt(0.22 / values.numel())
    streams = torch.corrcoef(values.flatten(0, 1)) - torch.eye(100)  # calls and rows share nothing
    assert streams.abs().max() < 6 / math.sqrt(784)


def test_the_noise_of_a_row_does_not_depend_on_its_neighbors() -> None:
    together, apart = normal_rows(3, range(7)), [normal_rows(3, range(row, row + 1)) for row in range(7)]
    part = normal_rows(3, range(2, 5))
    x = torch.zeros(7, 1, 28, 28)
    for _ in range(3):
        rows = together(x)
        assert torch.equal(torch.cat([noise(x[:1]) for noise in apart]), rows)
        assert torch.equal(part(x[:3]), rows[2:5])


def test_the_noise_of_a_row_is_a_function_of_the_seed() -> None:
    x = torch.zeros(2, 3)
    draws = [normal_rows(seed, range(2))(x) for seed in (0, 1, 2)]
    torch.manual_seed(99)
    assert torch.equal(normal_rows(1, range(2))(x), draws[1])
    assert len(torch.cat(draws).unique(dim=0)) == 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_noise_of_rows_is_of_the_type_of_what_it_is_added_to(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3, dtype=dtype)
    assert normal_rows(0, range(2))(x).dtype == dtype
