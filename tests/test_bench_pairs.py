"""The benchmark of pairs: laws of what it measures and of its rivals, and one whole run on a few pictures."""

import json
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import bench_pairs
import numpy as np
import pair_figures
import pair_tables
import pair_tasks
import pytest
import rivals
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import mse_loss

from flowferry import launch
from flowferry.datasets.in_memory import InMemory
from flowferry.datasets.rng import generator
from flowferry.datasets.synthetic import draw_colors
from flowferry.models.encoder import Encoder


def colors(count: int, side: int = 16) -> Tensor:
    """Synthetic pictures in [-1, 1], drawn at 32 pixels."""
    images = draw_colors(count, 0)[0].float() / 127.5 - 1
    return torch.nn.functional.interpolate(images, size=side, mode="area")


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator("cpu", "test")) * 2 - 1


# --- figures --------------------------------------------------------------------------------------------


def test_the_mean_gradient_of_a_ramp_is_half_its_slope_and_of_a_checkerboard_its_step() -> None:
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) * 0.25
    assert pair_figures.mean_gradient(ramp) == pytest.approx(0.25 / 2)  # across, and nothing down
    board = 1 - 2.0 * (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).expand(1, 1, 8, 8)
    assert pair_figures.mean_gradient(board) == pytest.approx(2)


def test_sharpness_is_one_for_the_truth_and_falls_with_contrast_and_blur() -> None:
    truth = colors(8)

    def sharpness(images: Tensor) -> float:
        return pair_figures.figures_of(images, truth, Encoder(channels=3))["sharpness"]

    assert sharpness(truth) == 1
    assert sharpness(truth * 0.5) == pytest.approx(0.5)
    assert sharpness(torch.nn.functional.avg_pool2d(truth, 3, 1, 1)) < 0.9


def test_saturation_is_that_of_the_truth_mixed_with_gray() -> None:
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(2, 3, 4, 4)
    assert pair_figures.mean_saturation(red) == 2 and pair_figures.mean_saturation(red[:, :1]) == 0
    truth = colors(8)
    gray = truth.mean(dim=1, keepdim=True)
    mixed = pair_figures.figures_of(0.3 * truth + 0.7 * gray, truth, Encoder(channels=3))
    assert mixed["saturation"] == pytest.approx(0.3, abs=1e-4)


def test_the_best_of_several_is_the_best_for_each_image() -> None:
    truth = colors(4)
    first, second = truth.clone(), truth.clone()
    first[0] += 0.1
    second[1:] -= 0.2
    assert pair_figures.best_psnr([first, second], truth) == 100  # of equal images
    assert pair_figures.best_psnr([first, first], truth) == pair_figures.closeness(first, truth).psnr


def test_the_truth_finds_itself_and_another_order_never() -> None:
    truth = noise(6, 3, 20, 20)
    assert pair_figures.retrieval(truth, truth) == 1 and pair_figures.retrieval(truth.roll(1, dims=0), truth) == 0
    assert pair_figures.retrieval(truth[[0, 1, 2, 4, 5, 3]], truth) == 0.5


def test_edges_lie_where_the_brightness_changes() -> None:
    image = -torch.ones(1, 3, 32, 32)
    image[..., 16:] = 1
    edges, thumbs = pair_figures.content(image)
    assert set(edges.view(16, 16).nonzero()[:, 1].tolist()) == {7}
    assert thumbs.view(3, 8, 8)[..., :4].eq(-1).all() and thumbs.view(3, 8, 8)[..., 4:].eq(1).all()


def test_equal_sets_are_no_distance_apart_and_blurred_ones_are() -> None:
    truth = colors(32)
    torch.manual_seed(0)
    encoder = Encoder(channels=3)
    blurred = torch.nn.functional.avg_pool2d(truth, 5, 1, 2)
    same, apart = (pair_figures.distances(images, truth, encoder) for images in (truth.flip(0), blurred))
    assert all(abs(value) < 1e-5 for value in same.values())
    assert all(apart[name] > 10 * abs(same[name]) + 1e-4 for name in apart)


# --- tasks ----------------------------------------------------------------------------------------------


def test_outlines_are_where_a_square_begins_and_ends() -> None:
    garment = np.zeros((28, 28), np.uint8)
    garment[8:20, 8:20] = 255
    edges = pair_tasks.outlines(garment)
    assert not edges[:6].any() and not edges[10:18, 10:18].any() and (edges[8, 8:20] == 255).all()
    assert not pair_tasks.outlines(np.full((28, 28), 90, np.uint8)).any()


@pytest.mark.parametrize(("size", "count"), [(218, 12), (12, 12), (5, 12), (1, 3)])
def test_what_is_shown_is_evenly_spaced_from_the_first_to_the_last(size: int, count: int) -> None:
    chosen = pair_tasks.spaced(size, count)
    assert chosen[0] == 0 and len(chosen) == len(set(chosen)) == min(size, count)
    if count < size:
        steps = {after - before for before, after in pairwise(chosen)}
        assert chosen[-1] == size - 1 and max(steps) - min(steps) <= 1


# --- rivals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "side"), [(3, 64), (1, 28), (3, 16)])
def test_the_generator_answers_in_the_shape_and_range_of_images(channels: int, side: int) -> None:
    answer = rivals.UNet(channels, side, 4, dropout=True)(noise(2, channels, side, side))
    assert answer.shape == (2, channels, side, side) and answer.abs().max() <= 1


@pytest.mark.parametrize(("side", "patch"), [(256, 70), (64, 34), (28, 16)])
def test_a_logit_sees_a_patch(side: int, patch: int) -> None:
    """The receptive field by the gradient of one logit; 70 of 256 is the paper's."""
    image = noise(1, 1, side, side).requires_grad_()
    critic = rivals.PatchGAN(1, side, 4).eval()
    logits = critic(torch.zeros_like(image), image)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    seen = image.grad[0, 0].nonzero()
    assert (seen.amax(dim=0) - seen.amin(dim=0) + 1).tolist() == [patch, patch]


def test_dropout_is_the_noise_of_pix2pix_and_the_regression_has_none() -> None:
    images = noise(3, 3, 32, 32)
    torch.manual_seed(0)
    network = rivals.UNet(3, 32, 4, dropout=True)
    first, again, other = (rivals.translate(network, images, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    plain = rivals.UNet(3, 32, 4, dropout=False)
    assert torch.equal(rivals.translate(plain, images, seed=0), rivals.translate(plain, images, seed=1))


def test_partners_are_mirrored_and_shifted_alike() -> None:
    images = noise(16, 3, 8, 8)
    left, right = rivals.jittered(images, images / 2, 2, 0)
    assert torch.equal(left / 2, right) and not torch.equal(left, images)
    mirrored, _ = rivals.jittered(images, images, 0, 0)
    flips = [torch.equal(a, b.flip(-1)) for a, b in zip(mirrored, images, strict=True)]
    assert all(f or torch.equal(a, b) for f, a, b in zip(flips, mirrored, images, strict=True)) and 0 < sum(flips) < 16


@pytest.mark.parametrize("name", rivals.RIVALS)
def test_a_rival_learns_pairs(name: str) -> None:
    """Negatives of eight pictures: after sixty steps the error is a tenth of what it was, or less."""
    truth = colors(8)
    make_step, dropout = rivals.RIVALS[name]
    torch.manual_seed(0)
    network = rivals.UNet(3, 16, 8, dropout=dropout).train()
    step = make_step(network, rivals.Recipe(width=8), nullcontext)
    errors = []
    for number in range(60):
        step(-truth, truth, 5e-3)
        if number in (0, 59):
            errors.append(mse_loss(network(-truth), truth).item())
    assert errors[1] < errors[0] / 10


def test_a_rival_is_trained_again_only_with_other_settings(tmp_path: Path) -> None:
    pixels = (colors(8) * 127).byte()
    side = InMemory(pixels, None, num_classes=0, device=torch.device("cpu"))
    how = {"minutes": 1e-9, "threads": 1, "seed": 0}

    def kept(recipe: rivals.Recipe) -> rivals.Trained:
        return rivals.kept(tmp_path / "l1.pt", "l1", side, side, recipe, **how)

    first, again, other = kept(rivals.Recipe(width=4)), kept(rivals.Recipe(width=4)), kept(rivals.Recipe(width=8))
    assert first.figures == again.figures and first.figures["training steps"] == 1
    assert all(map(torch.equal, first.network.state_dict().values(), again.network.state_dict().values()))
    assert other.figures["parameters"] > first.figures["parameters"]


# --- the whole ------------------------------------------------------------------------------------------


def test_only_the_options_of_the_solver_are_left_out_of_training() -> None:
    told = "paired --solver.num-steps 1 --train.lr 1e-3 --solver.source-noise=0 --coupling given"
    assert bench_pairs.training_words(told) == "paired --train.lr 1e-3 --coupling given".split()


def test_a_cell_gives_the_mean_and_the_spread_of_the_seeds() -> None:
    assert pair_tables.cell([1.0, 2.0, 4.5], ".1f") == "2.5 (1.0–4.5)"
    assert pair_tables.cell([1.0], ".1f") == "1.0" and pair_tables.cell([], ".1f") == ""


def test_a_comparison_from_folders_to_the_table_and_the_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, image in enumerate(draw_colors(40, 0)[0].movedim(1, -1).numpy()):
        for side, shown in (("line", image.mean(axis=-1).astype(np.uint8)), ("colour", image)):
            file = tmp_path / "emoji" / "line2colour" / side / f"{index:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shown).convert("RGB").resize((16, 16)).save(file)
    task = pair_tasks.TASKS["line2colour"]._replace(shape=(3, 16, 16))
    monkeypatch.setitem(pair_tasks.TASKS, "line2colour", task)
    launched: list[str] = []

    def in_this_process(command: list[str], folder: Path) -> None:
        launched.append(folder.name)
        assert "--train.minutes=0.002" in command  # how long that takes is up to the machine: a last step may not fit
        assert launch.main(["train", *command]) == 0

    monkeypatch.setattr(bench_pairs, "launch", in_this_process)
    small = "paired --model.widths 8 8 --model.blocks 1 1 --train.batch-size 4"
    told = ["line2colour", "--emoji", str(tmp_path / "emoji"), "--output", str(tmp_path / "out"), "--steps", "1", "2"]
    told += ["--minutes", "0.002", "--threads", "1", "--ngf", "2", "--variants", "2"]
    told += ["--entries", "copy", "pix2pix", small, f"{small} --solver.num-steps 3"]
    bench_pairs.main(told)
    folder = tmp_path / "out" / "line2colour"
    rows = {row["entry"]: row for row in json.loads((folder / "results.json").read_text())["rows"]}
    labels = ["copy", "pix2pix", f"{small}, 1 step", f"{small}, 2 steps", f"{small} --solver.num-steps 3"]
    assert [*rows] == [*labels, bench_pairs.FLOOR] and len(launched) == 1
    assert [rows[label]["nfe"] for label in labels] == [0, 1, 1, 2, 3]
    assert rows["copy"]["saturation"] == 0 and all(rows[label]["minutes"] > 0 for label in labels[1:])
    assert all(rows[label]["training steps"] > 0 for label in labels[1:])
    assert len((folder / "held-out.txt").read_text().splitlines()) == 4
    assert (folder / "table.md").read_text().count("\n| ") == 7 and (folder / "sheet.png").exists()
    bench_pairs.main(told)
    assert len(launched) == 1  # nothing is trained twice
    with pytest.raises(SystemExit, match="other options"):
        bench_pairs.main([*told, small, "--minutes", "0.001"])
    with pytest.raises(SystemExit, match=r"train\.lr"):
        bench_pairs.main([*told[:-3], f"{small} --train.lr fast"])
