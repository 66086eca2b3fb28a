"""Laws of the edits' formulas on every path: pipelines/flow/edits.py."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur as torchvision_blur

from flowferry.pipelines.flow import edits
from flowferry.pipelines.flow.paths import PATHS, Path
from flowferry.pipelines.flow.solvers import SOLVERS, Noise, Velocity, trajectory
from flowferry.pipelines.flow.times import time_grid

each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
each_view = pytest.mark.parametrize("name", edits.VIEWS)
GRID = time_grid(6).double()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_from(seed: int) -> Noise:
    random = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=random, dtype=x.dtype)


def made_up(push: float) -> Velocity:
    """A velocity that depends on where each pixel lies, on its neighbors and on the time."""

    def v(x: Tensor, t: Tensor) -> Tensor:
        place = torch.arange(x[0].numel(), dtype=x.dtype).reshape(x.shape[1:])
        return torch.tanh(x.roll(1, -1) + 0.3 * x.roll(1, -2) + push * torch.sin(place) + t)

    return v


def run(v: Velocity, x: Tensor, solver: str = "euler", path: Path = PATHS["linear"], grid: Tensor = GRID) -> Tensor:
    *_, end = trajectory(SOLVERS[solver].make_step(v, path, noise_from(9)), x, grid)
    return end


# --- images on their way ---------------------------------------------------------------------------------


@each_path
def test_a_noised_image_is_noise_at_0_and_itself_at_1(path: Path) -> None:
    x = normal(2, 1, 4, 4)
    assert torch.equal(edits.noised(path, x, torch.tensor(0.0), noise_from(1)), noise_from(1)(x))
    assert torch.equal(edits.noised(path, x, torch.tensor(1.0), noise_from(1)), x)
    t = torch.tensor(0.4, dtype=torch.float64)
    expected = path.interpolate(noise_from(1)(x), x, t)
    torch.testing.assert_close(edits.noised(path, x, t, noise_from(1)), expected)


@each_path
def test_one_step_finds_the_image_that_a_velocity_was_made_of(path: Path) -> None:
    x0, x1 = normal(2, 3, 1, 4, 4)
    for t in torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64):
        found = edits.denoised(path, lambda x, t: path.velocity(x0, x1, t), path.interpolate(x0, x1, t), t)
        torch.testing.assert_close(found, x1)


@each_path
@pytest.mark.parametrize(("t", "u"), [(0.0, 0.2), (0.2, 0.25), (0.3, 0.9)])
def test_an_image_noised_further_is_as_noisy_as_one_that_was_noised_at_once(path: Path, t: float, u: float) -> None:
    """Its mean β_t·x, and its variance α_t², of 100,000 pixels."""
    x, times = torch.full((1, 1, 250, 400), 0.7, dtype=torch.float64), torch.tensor([t, u], dtype=torch.float64)
    half_way = path.interpolate(noise_from(1)(x), x, times[1])
    found = edits.noised_again(path, half_way, *times, noise_from(2))
    alpha, beta = path.alpha(times[0]).item(), path.beta(times[0]).item()
    assert found.mean().item() == pytest.approx(beta * 0.7, abs=5 * alpha / 100_000**0.5)
    assert found.std().item() == pytest.approx(alpha, rel=0.01)


def test_on_the_linear_path_the_jump_back_is_the_published_one() -> None:
    t, u = torch.tensor([0.3, 0.5], dtype=torch.float64)
    x, eps = normal(2, 1, 1, 4, 4)
    expected = t / u * x + ((1 - t) ** 2 - (t / u) ** 2 * (1 - u) ** 2).sqrt() * eps
    torch.testing.assert_close(edits.noised_again(PATHS["linear"], x, t, u, lambda x: eps), expected)


@each_path
@pytest.mark.parametrize("solver", ["euler", "midpoint", "ab2", "ancestral"])
@pytest.mark.parametrize("resample", [1, 3])
def test_inpainting_keeps_known_pixels_and_with_all_to_be_made_is_sampling(
    path: Path, solver: str, resample: int
) -> None:
    x, known = normal(2, 2, 1, 4, 4)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, 2:] = True
    step = SOLVERS[solver].make_step(made_up(1), path, noise_from(9))
    inpainting = edits.inpaint(step, path, known, mask, noise_from(1), resample=resample)
    *_, end = trajectory(inpainting, x, GRID)
    assert torch.equal(end[..., :2], known[..., :2])
    assert ((end - known)[..., 2:].abs() > 1e-3).all()
    all_new = torch.ones(4, 4, dtype=torch.bool)
    step = SOLVERS[solver].make_step(made_up(1), path, noise_from(9))
    *_, end = trajectory(edits.inpaint(step, path, known, all_new, noise_from(1)), x, GRID)
    assert torch.equal(end, run(made_up(1), x, solver, path))


def test_inpainting_shows_the_known_pixels_as_noisy_as_the_time_and_resamples_so_often() -> None:
    path, told = PATHS["linear"], []
    known, mask = torch.full((1, 1, 250, 400), 0.7), torch.zeros(250, 400, dtype=torch.bool)

    def step(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        told.append((t.item(), x.mean().item(), x.std().item()))
        return x

    list(trajectory(edits.inpaint(step, path, known, mask, noise_from(1), resample=3), known, time_grid(4)))
    assert [t for t, *_ in told] == [0] * 3 + [0.25] * 3 + [0.5] * 3 + [0.75]  # the last step ends at the image
    for t, mean, std in told[1:]:
        assert mean == pytest.approx(0.7 * t, abs=0.02) and std == pytest.approx(1 - t, rel=0.02)


@each_path
@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4", "ab2"])
def test_an_edit_between_equal_conditions_changes_nothing(path: Path, solver: str) -> None:
    x = normal(2, 1, 4, 4)
    v = edits.flow_edit(path, made_up(1), made_up(1), x, noise_from(1))
    for grid in (GRID, GRID[2:]):
        torch.testing.assert_close(run(v, x, solver, path, grid), x, rtol=0, atol=1e-12)
    other = edits.flow_edit(path, made_up(1), made_up(2), x, noise_from(1))
    assert (run(other, x, solver, path) - x).abs().max() > 0.1


def test_an_edit_between_two_gaussians_moves_by_the_distance_of_their_means() -> None:
    """From images N(m, 1) to N(m', 1): with the exact velocities each image moves by m' − m, whatever the noise."""
    path, x = PATHS["cosine"], normal(2, 1, 4, 4)

    def exact(m: float) -> Velocity:  # of x_t, which is N(β·m, 1)
        return lambda x, t: path.dbeta(t) * m + 0 * x

    v = edits.flow_edit(path, exact(-1.0), exact(2.0), x, noise_from(1))
    torch.testing.assert_close(run(v, x, "midpoint", path, time_grid(50).double()), x + 3.0, rtol=0, atol=1e-3)


# --- views, and low and high frequencies -----------------------------------------------------------------


@each_view
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 28, 28), (1, 1, 7, 7)])
def test_a_view_is_orthogonal(name: str, shape: tuple[int, ...]) -> None:
    check_orthogonal(edits.VIEWS[name], normal(*shape), normal(*shape, seed=1))


def check_orthogonal(view: edits.View, x: Tensor, y: Tensor) -> None:
    assert torch.equal(view.back(view.see(x)), x) and torch.equal(view.see(view.back(x)), x)
    torch.testing.assert_close((view.see(x) * view.see(y)).sum(), (x * y).sum())
    torch.testing.assert_close(view.see(x + 2 * y), view.see(x) + 2 * view.see(y))


def test_any_permutation_of_the_pixels_is_a_view() -> None:
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    x = normal(2, 3, 6, 8)
    check_orthogonal(edits.permutation(order), x, normal(2, 3, 6, 8, seed=1))
    assert torch.equal(edits.permutation(order).see(x).flatten(-2), x.flatten(-2)[..., order])
    turned = edits.permutation(torch.arange(48).flip(0))
    assert torch.equal(turned.see(x), edits.VIEWS["rotate180"].see(x))


def test_views_do_what_they_are_called() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    seen = {name: view.see(x)[0, 0] for name, view in edits.VIEWS.items()}
    assert seen["flip"][0].tolist() == [8, 9, 10, 11] and seen["mirror"][0].tolist() == [3, 2, 1, 0]
    assert seen["rotate180"].flatten().tolist() == [*range(11, -1, -1)]
    assert seen["rotate90"].shape == (4, 3) and seen["negative"].max() == 0
    rows = torch.arange(8.0)[:, None].expand(1, 1, 8, 5)
    skewed = edits.VIEWS["skew"].see(rows)[0, 0]  # by −2, −1, 0, 1 and 2 rows
    assert skewed[0].tolist() == [2, 1, 0, 7, 6]


@each_view
def test_an_anagram_seen_in_its_view_is_the_anagram_of_the_conditions_exchanged(name: str) -> None:
    """V⁻¹ v(V x) of velocities (a, b) for (identity, V) is, at V x, that of (b, a) for (identity, V⁻¹), seen in V."""
    x, t, view = normal(2, 1, 8, 8), torch.tensor(0.3), edits.VIEWS[name]
    identity, undone = edits.VIEWS["identity"], edits.View(view.back, view.see)
    here = edits.anagram([made_up(1), made_up(2)], [identity, view])(x, t)
    there = edits.anagram([made_up(2), made_up(1)], [identity, undone])(view.see(x), t)
    torch.testing.assert_close(view.see(here), there)


@pytest.mark.parametrize("name", ["rotate180", "flip", "mirror", "negative"])
def test_with_one_condition_the_velocity_of_an_anagram_is_equivariant_under_its_views(name: str) -> None:
    x, t, view = normal(2, 1, 8, 8), torch.tensor(0.3), edits.VIEWS[name]
    v = edits.anagram([made_up(1)] * 2, [edits.VIEWS["identity"], view])
    torch.testing.assert_close(v(view.see(x), t), view.see(v(x, t)))
    assert (made_up(1)(view.see(x), t) - view.see(made_up(1)(x, t))).abs().max() > 0.1  # which that of one is not


def test_four_turns_are_equivariant_under_a_quarter_turn() -> None:
    x, t, turn = normal(2, 1, 8, 8), torch.tensor(0.3), edits.VIEWS["rotate90"]
    turns = [edits.View(lambda x, k=k: x.rot90(k, (-2, -1)), lambda x, k=k: x.rot90(-k, (-2, -1))) for k in range(4)]
    v = edits.anagram([made_up(1)] * 4, turns)
    torch.testing.assert_close(v(turn.see(x), t), turn.see(v(x, t)))


def test_low_and_high_frequencies_of_one_condition_make_its_velocity() -> None:
    x, t = normal(2, 1, 28, 28), torch.tensor(0.3)
    torch.testing.assert_close(edits.hybrid(made_up(1), made_up(1))(x, t), made_up(1)(x, t))
    far, near = made_up(1)(x, t), made_up(2)(x, t)
    mixed = edits.hybrid(made_up(1), made_up(2))(x, t)
    torch.testing.assert_close(mixed - near, edits.lowpass(far - near))  # the high ones of near, the low ones of far


def test_where_far_and_near_part_is_as_asked() -> None:
    x, t = normal(2, 1, 28, 28), torch.tensor(0.3)
    for sigma, radius in ((1.5, 12), (5.0, 27)):  # of 28 pixels no more than 27 can be reflected
        mixed = edits.hybrid(made_up(1), made_up(2), sigma=sigma)(x, t)
        low = edits.gaussian_blur(made_up(1)(x, t) - made_up(2)(x, t), sigma, radius=radius)
        torch.testing.assert_close(mixed - made_up(2)(x, t), low)


@pytest.mark.parametrize(("side", "sigma", "kernel"), [(64, 2.0, 33), (28, 0.875, 15), (32, 1.0, 17)])
def test_the_low_frequencies_are_those_of_another_librarys_gaussian(side: int, sigma: float, kernel: int) -> None:
    x = normal(2, 3, side, side)
    expected = torchvision_blur(x, [kernel, kernel], [sigma, sigma])
    torch.testing.assert_close(edits.lowpass(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("sigma", "radius"), [*product([0.5, 2.0], [1, 6])])
def test_a_blur_is_that_of_another_library(sigma: float, radius: int) -> None:
    x, kernel = normal(1, 2, 9, 13), 2 * radius + 1
    expected = torchvision_blur(x, [kernel, kernel], [sigma, sigma])
    torch.testing.assert_close(edits.gaussian_blur(x, sigma, radius=radius), expected, rtol=0, atol=1e-6)
