"""The times of training and of the solvers' grid: pipelines/flow/times.py."""

import pytest
import torch

from flowferry.pipelines.flow.times import list_length, rest_of, strided_grid, time_grid, training_times


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_time_grid_has_a_point_more_than_steps_from_end_to_end(steps: int, device: torch.device) -> None:
    forth, back = (time_grid(steps, device=device, reverse=reverse) for reverse in (False, True))
    assert (len(forth), forth[0], forth[-1]) == (steps + 1, 0, 1)
    torch.testing.assert_close(forth.diff(), torch.full((steps,), 1 / steps, device=device))
    torch.testing.assert_close(back, forth.flip(0))
    assert (back[0], back[-1]) == (1, 0)
    assert forth.device.type == device.type


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_the_grid_is_a_power_of_the_uniform_one_and_the_same_points_back(power: float, device: torch.device) -> None:
    grid = time_grid(8, power=power, device=device)
    assert grid.tolist() == pytest.approx([(k / 8) ** power for k in range(9)])
    back = time_grid(8, power=power, device=device, reverse=True)
    torch.testing.assert_close(back, grid.flip(0))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("steps", [1, 2, 7, 300])
def test_the_last_step_ends_exactly_at_the_target(steps: int, power: float, device: torch.device) -> None:
    """As the solvers compute it, t + (1 − t): the ancestral solver adds no noise there, an edit its exact pixels."""
    *_, t, end = time_grid(steps, power=power, device=device)
    assert t + (end - t) == 1


def levels_of(grid: torch.Tensor, levels: int) -> list[float]:
    return ((1 - grid.double()) * levels).tolist()


def test_a_strided_grid_is_the_published_list_of_timesteps() -> None:
    published = [*range(990, -1, -30)]
    assert list_length(1000, 30) == len(published) == 34
    expected = [*(timestep + 1 for timestep in published), 0]
    assert levels_of(strided_grid(34, 30, levels=1000), 1000) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("levels", [1, 7, 300, 1000])
def test_with_a_stride_of_one_the_grid_is_that_of_all_levels(levels: int) -> None:
    assert torch.equal(strided_grid(list_length(levels, 1), 1, levels=levels), time_grid(levels))


@pytest.mark.parametrize(("steps", "stride"), [(1, 1), (1, 30), (5, 1), (34, 30)])
def test_without_levels_a_strided_grid_begins_at_the_source(steps: int, stride: int) -> None:
    grid = strided_grid(steps, stride)
    assert (len(grid), grid[0], grid[-1]) == (steps + 1, 0, 1)
    first = 1 + (steps - 1) * stride
    assert levels_of(grid, first) == pytest.approx([*range(first, 0, -stride), 0], abs=1e-4)


@pytest.mark.parametrize("grid", [time_grid(7), time_grid(5, power=2), strided_grid(34, 30, levels=1000)])
def test_the_rest_of_a_grid_is_its_start_and_what_comes_after_it(grid: torch.Tensor) -> None:
    assert torch.equal(rest_of(grid, 0), grid)
    for k, t in enumerate(grid.tolist()):
        assert t == 0 or torch.equal(rest_of(grid, t), grid[k:])
    for k, (t, t_next) in enumerate(zip(grid.tolist(), grid[1:].tolist(), strict=False), start=1):
        start = (t + t_next) / 2
        assert rest_of(grid, start).tolist() == pytest.approx([start, *grid[k:].tolist()])
    assert rest_of(grid, 1).tolist() == [1]


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_training_times_are_a_power_of_the_uniform_numbers(power: float, device: torch.device) -> None:
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0)).to(device)
    t = training_times(u, power=power)
    assert t.tolist() == pytest.approx([value**power for value in u.tolist()])
    assert t.mean().item() == pytest.approx(1 / (power + 1), abs=0.03)  # nearer the source the larger the power


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("start", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_the_training_times_is_zero_and_the_others_are_as_without_it(
    start: float, power: float, device: torch.device
) -> None:
    u = torch.linspace(0, 1, 2001, dtype=torch.float64, device=device)[:-1]
    t = training_times(u, power=power, start=start)
    assert (t == 0).double().mean().item() == pytest.approx(start, abs=1e-3)
    later = u[u > start]
    torch.testing.assert_close(t[u > start], ((later - start) / (1 - start)) ** power)


def test_without_options_training_times_are_the_uniform_numbers(device: torch.device) -> None:
    u = torch.rand(1000, generator=torch.Generator().manual_seed(0)).to(device)
    assert torch.equal(training_times(u), u)


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("levels", [1, 4, 300])
def test_of_a_path_with_levels_the_last_level_at_or_before_a_time_is_trained(
    levels: int, power: float, device: torch.device
) -> None:
    u = torch.linspace(0, 1, 5001, dtype=torch.float64, device=device)[:-1]
    t = training_times(u, power=power, levels=levels)
    numbers = t * levels
    torch.testing.assert_close(numbers, numbers.round(), rtol=0, atol=1e-9)
    assert numbers.round().unique().tolist() == list(range(levels))  # 1 is never trained, all others are
    behind = u**power - t
    assert behind.min() >= -1e-12 and behind.max() <= 1 / levels
