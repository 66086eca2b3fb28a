"""Estimates of a clean image against closed forms: pipelines/visualization/restoration.py."""

from collections.abc import Callable

import pytest
import torch
from exact_denoiser import Exact, clean, expected_errors, posterior_mean
from scipy.ndimage import gaussian_filter

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.pipelines import editing
from flowferry.pipelines.flow.paths import PATHS, Path, diffusion
from flowferry.pipelines.visualization import restoration

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
KINDS = [("linear", "velocity"), ("cosine", "target"), ("ddpm", "source")]


@pytest.fixture(params=KINDS, ids=[path for path, _ in KINDS])
def exact(request: pytest.FixtureRequest, tiny: Callable[..., Config]) -> Pipeline:
    path, prediction = request.param
    config = tiny("noise2mnist", path=path, prediction=prediction)
    return Pipeline(config, Exact(config))


def test_the_noise_is_the_same_at_every_level_and_each_images_own(exact: Pipeline) -> None:
    x = clean(3)
    for share in SHARES:
        t = torch.tensor(1 - share)
        noise = (editing.noised(exact, x, 1 - share) - exact.path.beta(t) * x) / exact.path.alpha(t)
        fewer = editing.noised(exact, x[:1], 1 - share)
        assert torch.equal(fewer, editing.noised(exact, x, 1 - share)[:1])
        if share == SHARES[0]:
            first = noise
        torch.testing.assert_close(noise, first, rtol=0, atol=1e-4)
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert not torch.allclose(noise[0], noise[1], atol=0.1)


def test_a_blur_is_that_of_another_library_with_a_kernel_of_six_sigma() -> None:
    x = clean(2)
    for sigma in (0.5, 1.0, 2.0):
        theirs = gaussian_filter(x.double().numpy(), sigma, mode="mirror", truncate=3, axes=(2, 3))
        torch.testing.assert_close(restoration.blur(x, sigma).double(), torch.from_numpy(theirs), rtol=0, atol=1e-6)


def test_one_step_gives_the_mean_of_what_the_image_may_have_been(exact: Pipeline) -> None:
    for share in SHARES:
        noisy = editing.noised(exact, clean(2), 1 - share)
        expected = posterior_mean(exact.path, noisy, torch.tensor(1 - share))
        torch.testing.assert_close(restoration.one_step(exact, noisy, 1 - share), expected, rtol=0, atol=1e-5)


def test_errors_are_those_of_the_closed_form(exact: Pipeline) -> None:
    found = restoration.errors_by_level(exact, clean(), SHARES, 2.0)
    for share, errors in zip(SHARES, found, strict=True):
        expected = expected_errors(exact, restoration.strided(exact).grid(1 - share))
        assert errors.share == share
        assert (errors.one_step, errors.chain) == pytest.approx(expected, rel=0.06)


def test_errors_rise_with_the_level_and_stay_below_those_of_any_blur(exact: Pipeline) -> None:
    found = restoration.errors_by_level(exact, clean(), SHARES, 2.0)
    for name in ("noisy", "one_step", "chain"):
        values = [getattr(errors, name) for errors in found]
        assert values == sorted(values), name
    for errors in found:
        assert errors.one_step < 1.01 * errors.best_blur  # which is fitted to these very images
        assert errors.best_blur < errors.blur and errors.one_step < errors.noisy


def test_the_best_blur_is_found_with_its_contrast() -> None:
    noisy = clean(3)
    wanted = 0.5 * restoration.blur(noisy, 1.5) + 0.1
    torch.testing.assert_close(restoration.best_blur(noisy, wanted), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "levels"), [(PATHS["ddpm"], 300), (PATHS["linear"], None), (diffusion(torch.full((1000,), 0.01)), 1000)]
)
def test_the_chain_takes_the_published_share_of_the_levels(
    path: Path, levels: int | None, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PATHS, "cosine", path)
    steps = restoration.strided(Pipeline(tiny("noise2mnist", path="cosine"))).grid()
    assert len(steps) == 35
    published = [*(1 + (levels or 1000) * k / 1000 for k in range(990, -1, -30)), 0]
    total = levels or published[0]
    assert ((1 - steps) * total).tolist() == pytest.approx(published, abs=1e-3)


def test_a_chain_does_not_depend_on_how_many_images_go_through_it_at_a_time(exact: Pipeline) -> None:
    noisy = editing.noised(exact, clean(40), 0.5)
    one, many = restoration.restored(exact, noisy, 0.5)
    assert exact.block_size < 40
    torch.testing.assert_close(one[-1:], restoration.one_step(exact, noisy[-1:], 0.5))
    torch.testing.assert_close(many[-1:], restoration.chain(exact, noisy[-1:], 0.5, rows=[39])[-1])


def test_error_curves_are_drawn() -> None:
    errors = [restoration.Errors(share, 0.4, 0.3, 0.2, share / 10, share / 5) for share in SHARES]
    picture = restoration.error_curves(errors, "title", 2.0)
    assert picture.width > picture.height > 200
