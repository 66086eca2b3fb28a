"""Encoders that are trained without labels: what their features tell apart, and how they are kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from flowferry.configs.components import AugmentConfig, SyntheticColorsConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.synthetic import draw_colors
from flowferry.datasets.wrappers import Augmented
from flowferry.models.encoder import Encoder
from flowferry.pipelines.evaluation import encoder, metrics
from flowferry.pipelines.evaluation.encoder import damage, train_encoder, trained_encoder, view

CPU = torch.device("cpu")


def pictures(count: int, first: int = 0) -> InMemory:
    """Return a sampler of colored drawings [count, 3, 32, 32] without labels."""
    return InMemory(draw_colors(count, first)[0], None, num_classes=0, device=CPU)


@pytest.fixture(scope="module")
def trained() -> Iterator[Encoder]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "MAX_STEPS", 80)
        yield train_encoder(pictures(400))


@pytest.fixture(scope="module")
def held_out() -> Tensor:
    return pictures(100, 1).draw(100, seed=0, step=0).samples


def blurred(x: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(x, [11, 11], [sigma, sigma])


def test_a_picture_moved_by_a_pixel_is_perceived_as_nearer_than_a_blurred_one(
    trained: Encoder, held_out: Tensor
) -> None:
    """Pixels say the contrary."""
    moved, dull = held_out.roll(1, dims=3), blurred(held_out, 2.0)
    assert metrics.closeness(moved, held_out).psnr < metrics.closeness(dull, held_out).psnr
    distances = [metrics.perceptual(trained.maps, x, held_out).mean() for x in (moved, dull)]
    assert distances[0] < distances[1]


def test_the_distance_of_sets_grows_with_the_damage(trained: Encoder, held_out: Tensor) -> None:
    others = pictures(100, 2).draw(100, seed=0, step=0).samples
    real = trained.extract(held_out)
    damaged = [others, blurred(others, 0.7), blurred(others, 1.5), others.roll(1, dims=1)]
    floor, little, much, recolored = (metrics.frechet(real, trained.extract(x)) for x in damaged)
    assert floor < little < much and floor < recolored


def test_the_own_picture_is_found_behind_other_colors_and_a_shift(trained: Encoder, held_out: Tensor) -> None:
    changed = 0.8 * held_out.roll((1, 1), dims=(2, 3)) + 0.1
    found = metrics.retrieval(metrics.embed(trained.maps, changed), metrics.embed(trained.maps, held_out))
    assert found > 0.8


def test_the_same_pictures_give_the_same_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "MAX_STEPS", 3)
    before = torch.get_rng_state()
    first, again, other = (train_encoder(pictures(40), seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_an_encoder_is_trained_once_and_on_pictures_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "MAX_STEPS", 3)
    config, plain = SyntheticColorsConfig(count=40), pictures(40)
    first = trained_encoder(config, plain, folder=tmp_path / "a")
    augmented = Augmented(plain, AugmentConfig(mirrored=True, shifted=9))
    assert trained_encoder(config, augmented, folder=tmp_path / "b").sha256 == first.sha256
    monkeypatch.setattr(encoder, "train_encoder", None)
    again = trained_encoder(config, plain, folder=tmp_path / "a")
    assert again.sha256 == first.sha256
    x = plain.draw(3, seed=0, step=0).samples
    assert torch.equal(again.encoder.extract(x), first.encoder.extract(x))
    (file,) = (tmp_path / "a").iterdir()
    assert file.name.startswith("encoder-synthetic-colors")
    with pytest.raises(UserError, match=r"is not an encoder of this version \(got images of shape \[3, 32, 32\], exp"):
        encoder.load(file, (3, 64, 64), CPU)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="is not an encoder of this version"):
        trained_encoder(config, plain, folder=tmp_path / "a")


@pytest.mark.parametrize("sides", [(16, 24), (64, 64), (100, 40)])
def test_a_view_is_a_part_of_its_image(sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a picture that says where each pixel lies, in which a mirrored view runs backwards."""
    monkeypatch.setattr(encoder, "TINT", 0.0)
    height, width = sides
    place = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    views = view(torch.stack(place)[None].expand(50, 2, height, width), torch.Generator().manual_seed(0))
    shown = [min(64, side) for side in sides]
    assert views.shape == (50, 2, *shown)
    assert views.min() >= 0 and views.max() <= 1
    for axis, (side, whole) in enumerate(zip(shown, sides, strict=True)):
        extent = (views[:, axis].amax(dim=(1, 2)) - views[:, axis].amin(dim=(1, 2))) * whole / side
        assert 0.6 * (1 - 2 / side) < extent.min() and extent.max() <= 1
    backwards = views[:, 1, 0, 0] > views[:, 1, 0, -1]
    assert 10 < backwards.sum() < 40


def test_half_of_the_damaged_views_are_blurred_and_half_noisy() -> None:
    x = pictures(10).draw(10, seed=0, step=0).samples
    damaged, kind = damage(x, torch.Generator().manual_seed(0))
    assert kind.tolist() == [1] * 5 + [2] * 5

    def sharpness(images: Tensor) -> Tensor:
        return images.diff(dim=3).square().mean(dim=(1, 2, 3))

    assert (sharpness(damaged[:5]) < sharpness(x[:5])).all()
    noise = (damaged - x)[5:]
    assert 0.1 <= noise.std() <= 0.4 and abs(noise.mean()) < 0.02
