"""Laws of a pipeline, there and back, in batches, saved and loaded: pipelines/pipeline.py and weights.py."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from configs.schema import Config, MoonsConfig, UserError
from datasets import build_sampler
from pipelines import Pipeline
from pipelines.solvers import SOLVERS

NULL = 10
COS, SIN = math.cos(math.pi / 8), math.sin(math.pi / 8)  # of πt/2 at t = 1/4
each_name = pytest.mark.parametrize("name", ["fashion2mnist", "noise2mnist", "noise2mnist-cfg"])


@pytest.fixture
def pipeline(tiny: Callable[..., Config]) -> Callable[..., Pipeline]:
    """pipeline(name): freshly initialised, tiny, the same each time, with weights large enough to move samples."""

    def make(name: str) -> Pipeline:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = Pipeline(tiny(name))
        *_, last = (m for m in made.model.modules() if isinstance(m, nn.Conv2d))
        last.weight.data.mul_(3)
        made.model.eval()
        return made

    return make


class Told(nn.Module):
    """Predicts the speed label/100 everywhere, or what `speed` gives, and remembers what it was asked."""

    def __init__(self, speed: float | None = None) -> None:
        super().__init__()
        self.zero, self.speed = nn.Parameter(torch.zeros(1)), speed
        self.asked: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.asked.append((xt, t, label))
        speed = label / 100 if self.speed is None else torch.full_like(t, self.speed)
        return (speed + self.zero)[:, None, None, None].expand_as(xt)


def images(count: int, reach: float = 0.5) -> Tensor:
    return torch.empty(count, 1, 28, 28).uniform_(-reach, reach, generator=torch.Generator().manual_seed(1))


# --- the loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, alpha, beta, dalpha, dbeta",
    [("linear", 0.75, 0.25, -1, 1), ("cosine", COS, SIN, -math.pi / 2 * SIN, math.pi / 2 * COS)],
)
def test_the_loss_is_the_mean_squared_error_of_the_velocity(
    path: str, alpha: float, beta: float, dalpha: float, dbeta: float, tiny: Callable[..., Config]
) -> None:
    x0, x1, t = images(3), images(6)[3:], torch.full((3,), 0.25)
    model, label = Told(0.1), torch.tensor([4, NULL, 1])
    loss = Pipeline(tiny("noise2mnist-cfg", path=path), model).loss(x0, x1, t, label)
    torch.testing.assert_close(loss, ((0.1 - (dalpha * x0 + dbeta * x1)) ** 2).mean())
    ((xt, *told),) = model.asked
    torch.testing.assert_close(xt, alpha * x0 + beta * x1)
    assert torch.equal(told[0], t)
    assert torch.equal(told[1], label)


# --- there and back -------------------------------------------------------------------------------------


@each_name
def test_inverting_and_translating_returns_to_the_start(name: str, pipeline: Callable[..., Pipeline]) -> None:
    carrier, x = pipeline(name), images(4)
    there = carrier.invert(x, solver="rk4", steps=12)
    back = carrier.translate(there, solver="rk4", steps=12)
    assert (there - x).abs().mean() > 0.02  # it went somewhere
    assert there.abs().max() < 1  # and was not clipped
    torch.testing.assert_close(back, x, rtol=0, atol=1e-3)


def test_a_trajectory_runs_over_the_grid_and_leaves_gradients_as_they_were(tiny: Callable[..., Config]) -> None:
    model, x = Told(0.5), images(2)
    model.train()
    carrier = Pipeline(tiny("noise2mnist"), model).using(steps=4)
    points: list[Tensor] = []
    for point in carrier.trajectory(x):
        assert torch.is_grad_enabled()
        assert not point.requires_grad
        points.append(point)
    torch.testing.assert_close(torch.stack(points), x + 0.5 * torch.linspace(0, 1, 5)[:, None, None, None, None])
    torch.testing.assert_close(
        torch.stack([t for _, t, _ in model.asked]), torch.arange(4)[:, None] / 4 * torch.ones(2)
    )
    assert not model.training


def test_images_are_clipped_and_points_in_the_plane_are_not(tiny: Callable[..., Config]) -> None:
    config = tiny("noise2mnist")
    assert Pipeline(config, Told(5.0)).translate(images(2)).max() == 1
    plane = replace(config, shape=(2,), target=MoonsConfig())
    moved = Pipeline(plane, Plane()).translate(torch.zeros(3, 2))
    torch.testing.assert_close(moved, torch.full((3, 2), 5.0))


class Plane(Told):
    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return torch.full_like(xt, 5.0)


@pytest.mark.parametrize("shape", [(1, 28, 27), (3, 28, 28), (28, 28)])
def test_samples_of_another_shape_are_refused(shape: tuple[int, ...], tiny: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match=r"accepted is \(B, 1, 28, 28\)") as told:
        Pipeline(tiny("noise2mnist"), Told(0.0)).translate(torch.zeros(2, *shape))
    assert str((2, *shape)) in str(told.value)


# --- batches and seeds ----------------------------------------------------------------------------------


@each_name
def test_the_batch_size_changes_nothing(name: str, pipeline: Callable[..., Pipeline]) -> None:
    carrier, x = pipeline(name), images(7)
    labels = torch.arange(7) if carrier.config.classes else None
    results = [carrier.translate(x, labels, steps=3, batch_size=size) for size in (7, 3, 1)]
    assert results[0].shape == x.shape
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=2e-6)


@each_name
def test_samples_are_a_function_of_the_seed(name: str, pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    def sample(seed: int, batch_size: int, global_seed: int) -> Tensor:
        torch.manual_seed(global_seed)
        return pipeline(name).sample(5, steps=2, seed=seed, batch_size=batch_size, data_root=tmp_path)

    first = sample(0, 256, global_seed=1)
    assert first.shape == (5, 1, 28, 28)
    assert torch.equal(sample(0, 256, global_seed=2), first)
    torch.testing.assert_close(sample(0, 2, global_seed=3), first, rtol=0, atol=2e-6)
    assert (sample(1, 256, global_seed=1) - first).abs().mean() > 0.01


def test_sampling_a_translation_starts_from_test_images_of_its_source(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("fashion2mnist")
    samples = Pipeline(config, Told(0.0)).sample(20, steps=1, data_root=tmp_path)  # what stays as it is drawn
    source = build_sampler(config.source, config.shape, data_root=tmp_path, split="test", device=samples.device)
    garments = source.draw(64, seed=0, step=0).samples  # all of them
    assert (samples[:, None] == garments).flatten(2).all(dim=2).any(dim=1).all()
    assert len(samples.unique(dim=0)) == 20


def test_sampling_from_noise_starts_from_unit_noise(tiny: Callable[..., Config]) -> None:
    carrier = Pipeline(tiny("noise2mnist"), Told(0.0))
    samples = carrier.sample(64, steps=1)
    inside = samples[samples.abs() < 1]  # the rest is clipped
    assert abs(len(inside) / samples.numel() - math.erf(1 / math.sqrt(2))) < 0.01
    assert abs(inside.mean().item()) < 0.01


# --- labels, guidance, cost -----------------------------------------------------------------------------


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("batch_size", [2, 256])
def test_each_sample_is_guided_by_its_own_label(w: float, batch_size: int, tiny: Callable[..., Config]) -> None:
    labels, x = torch.tensor([3, 0, 9, NULL, 5]), images(5)
    moved = Pipeline(tiny("noise2mnist-cfg"), Told()).translate(
        x, labels, guidance=w, steps=4, batch_size=batch_size
    ) - x  # fmt: skip
    uncond, cond = NULL / 100, labels / 100
    expected = (uncond + w * (cond - uncond))[:, None, None, None].expand_as(x)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)


def test_without_labels_a_class_conditioned_pipeline_is_told_the_null_label(tiny: Callable[..., Config]) -> None:
    model = Told()
    Pipeline(tiny("noise2mnist-cfg"), model).translate(images(3), steps=2)
    assert all((label == NULL).all() for _, _, label in model.asked)


@pytest.mark.parametrize(
    "labels", [[1, 2], [1, 2, 3, 4], [1, 2, NULL + 1], [-1, 2, 3], [[1, 2, 3]], 1, [1.0, 2.0, 3.0]]
)
def test_labels_that_do_not_fit_are_refused_before_anything_is_computed(
    labels: Any, tiny: Callable[..., Config]
) -> None:
    model = Told()
    with pytest.raises(UserError, match=r"accepted are 3 whole numbers from 0 to 9, or 10 for untold"):
        Pipeline(tiny("noise2mnist-cfg"), model).translate(images(3), torch.tensor(labels), steps=1, batch_size=1)
    assert not model.asked


def test_a_batch_of_none_is_refused(tiny: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match="batch_size: found 0"):
        Pipeline(tiny("fashion2mnist"), Told()).translate(images(3), batch_size=0)


def test_images_are_clipped_and_recovered_noise_is_not(tiny: Callable[..., Config]) -> None:
    """Told moves every sample by its null label / 100 or less: from ±1 that leaves [-1, 1]."""
    x = torch.ones(2, 1, 28, 28)
    there = Pipeline(tiny("noise2mnist-cfg"), Told()).translate(x, steps=1)
    back = Pipeline(tiny("noise2mnist-cfg"), Told()).invert(-x, steps=1)
    assert (there == 1).all() and (back < -1).all()


def test_labels_are_refused_where_there_are_no_classes(tiny: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match="fashion2mnist knows no classes"):
        Pipeline(tiny("fashion2mnist"), Told(0.0)).translate(images(1), torch.tensor([3]), steps=1)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "name, w", [("noise2mnist", 5.0), ("noise2mnist-cfg", 0.0), ("noise2mnist-cfg", 1.0), ("noise2mnist-cfg", 5.0)]
)
def test_the_evaluations_told_are_the_rows_the_network_saw(
    solver: str, name: str, w: float, tiny: Callable[..., Config]
) -> None:
    model = Told(0.0)
    carrier = Pipeline(tiny(name), model).using(solver=solver, steps=3, guidance=w)
    carrier.translate(images(5), batch_size=2)
    assert sum(len(xt) for xt, _, _ in model.asked) == 5 * carrier.evaluations


def test_using_changes_what_it_is_told_and_nothing_else(tiny: Callable[..., Config]) -> None:
    carrier = Pipeline(tiny("noise2mnist-cfg"), Told())
    assert carrier.using().config == carrier.config
    changed = carrier.using(guidance=0.0).config
    assert changed == replace(carrier.config, solver=replace(carrier.config.solver, guidance=0.0))
    assert carrier.using(solver="rk4", steps=3).config.solver.steps == 3
    with pytest.raises(UserError, match="accepted: euler, midpoint, heun, rk4"):
        carrier.using(solver="magic")


# --- saved and loaded -----------------------------------------------------------------------------------


@pytest.fixture
def saved(pipeline: Callable[..., Pipeline], tmp_path: Path) -> Iterator[Path]:
    """The folder of a saved class-conditioned pipeline."""
    pipeline("noise2mnist-cfg").save_pretrained(tmp_path / "saved", step=123)
    yield tmp_path / "saved"


def load(folder: Path) -> Pipeline:
    return Pipeline.from_pretrained(folder, device="cpu")


@each_name
def test_a_saved_pipeline_gives_the_same_bits(name: str, pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    original = pipeline(name)
    for buffer in original.model.buffers():  # BatchNorm's averages are part of the weights
        if buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer))
    original.save_pretrained(tmp_path / "run" / "model")
    x = images(3)
    expected = original.translate(x, steps=2)
    for folder in (tmp_path / "run", tmp_path / "run" / "model"):
        loaded = load(folder)
        assert loaded.config == original.config
        assert not loaded.model.training
        assert torch.equal(loaded.translate(x, steps=2), expected)


def test_the_weights_describe_themselves(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    with safe_open(saved / "model.safetensors", "pt") as file:
        told = file.metadata()
    expected = {
        "pipeline": "noise2mnist-cfg",
        "source": "gaussian",
        "target": "drawn-digits",
        "path": "linear",
        "prediction": "velocity",
        "time": "0 at the source, 1 at the target",
        "value_range": "[-1, 1]",
        "channels": "1",
        "shape": "[1, 28, 28]",
        "classes": "10",
        "step": "123",
        "model": "course-unet",
    }
    assert {key: told.get(key) for key in expected} == expected
    assert "drawn" in told["data"]
    assert told["flowferry"]


DAMAGE: dict[str, tuple[str, Callable[[dict[str, Tensor]], Any]]] = {
    "missing": ("up1.0.0.weight", lambda tensors: tensors.pop("up1.0.0.weight")),
    "unexpected": ("stranger", lambda tensors: tensors.update(stranger=torch.zeros(2))),
    "misshapen": ("class1.0.weight", lambda tensors: tensors.update({"class1.0.weight": torch.zeros(8, 9)})),
    "not finite": ("init.0.1.running_mean", lambda tensors: tensors["init.0.1.running_mean"][2].fill_(math.nan)),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_weights_that_do_not_fit_are_refused_by_name(problem: str, saved: Path) -> None:
    name, damage = DAMAGE[problem]
    tensors = load_file(saved / "model.safetensors")
    damage(tensors)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError, match=f"{problem}: {name}") as told:
        load(saved)
    assert str(saved) in str(told.value)
    assert not any(other in str(told.value) for other in DAMAGE if other != problem)


def test_an_infinite_weight_is_refused(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["init.0.0.bias"][0] = -math.inf
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(UserError, match=r"not finite: init\.0\.0\.bias"):
        load(saved)


@pytest.mark.parametrize("kept", [0, 4, 1000])
def test_half_a_weights_file_is_refused_by_name(kept: int, saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError) as told:
        load(saved)
    assert str(file) in str(told.value)


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no weights in") as told:
            load(folder)
        assert str(folder) in str(told.value)


CHANGES: dict[str, tuple[str, Any]] = {  # what the message names: where in the configuration, another value
    "bogus": ("bogus", 1),
    "train.lr": ("train/lr", "fast"),
    "stray": ("train/stray", 1),
    "classes": ("classes", "ten"),
    "seed": ("seed", 0.5),
    "mnistt": ("target/kind", "mnistt"),
    "depth": ("model/depth", 3),
    "width": ("model/width", 0),
    "spiral": ("path", "spiral"),
    "shape": ("shape", ["a"]),
    "solver": ("solver", 3),
}


@pytest.mark.parametrize("named", CHANGES)
def test_a_configuration_with_a_wrong_entry_is_refused_by_name(named: str, saved: Path) -> None:
    path, value = CHANGES[named]
    told = json.loads((saved / "config.json").read_text())
    *outer, last = path.split("/")
    entry = told["config"]
    for name in outer:
        entry = entry[name]
    entry[last] = value
    (saved / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=named):
        load(saved)


@pytest.mark.parametrize("missing", ["model", "source", "name", "summary"])
def test_a_configuration_without_a_needed_entry_is_refused_by_name(missing: str, saved: Path) -> None:
    told = json.loads((saved / "config.json").read_text())
    del told["config"][missing]
    (saved / "config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=missing):
        load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": []}', "null"])
def test_what_is_no_configuration_is_refused(text: str, saved: Path) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(UserError, match="configuration"):
        load(saved)


def test_weights_without_a_configuration_are_refused_by_name(saved: Path) -> None:
    (saved / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        load(saved)
