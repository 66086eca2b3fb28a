"""What a network may predict, and the velocity that follows from it: pipelines/flow/predictions.py."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from flowferry.pipelines.flow.paths import PATHS, Path
from flowferry.pipelines.flow.predictions import PREDICTIONS, Prediction

each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
each_prediction = pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS.keys())
each_shape = pytest.mark.parametrize("shape", [(2,), (3, 5, 4)], ids=str)


def pair(count: int, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, count, *shape, generator=g, dtype=torch.float64).to(device)
    return x0, x1


def times(start: float, stop: float, count: int, device: torch.device) -> Tensor:
    return torch.linspace(start, stop, count, dtype=torch.float64, device=device)


def test_the_predictions_are_the_velocity_the_two_ends_and_what_is_at_a_right_angle(device: torch.device) -> None:
    (x0, x1), path, t = pair(9, (2,), device), PATHS["cosine"], times(0.05, 0.95, 9, device)
    wanted = {name: prediction.truth(path, x0, x1, t) for name, prediction in PREDICTIONS.items()}
    assert list(wanted) == ["velocity", "source", "target", "v-prediction"]
    assert torch.equal(wanted["velocity"], path.velocity(x0, x1, t))
    assert torch.equal(wanted["source"], x0)
    assert torch.equal(wanted["target"], x1)
    torch.testing.assert_close(wanted["v-prediction"], -2 / math.pi * path.velocity(x0, x1, t))  # on an arc, along it


def test_a_network_that_predicts_an_end_is_not_asked_at_the_target() -> None:
    last = {"velocity": 1, "source": 0.999, "target": 0.999, "v-prediction": 1}
    assert {name: p.max_time for name, p in PREDICTIONS.items()} == last
    assert [name for name, prediction in PREDICTIONS.items() if prediction.needs_signal] == ["source"]


@each_path
@each_prediction
@each_shape
def test_the_true_answer_implies_the_velocity_of_the_path(
    path: Path, prediction: Prediction, shape: tuple[int, ...], device: torch.device
) -> None:
    (x0, x1), t = pair(9, shape, device), times(0.01, 0.99, 9, device)  # where both ends show
    answer, xt = prediction.truth(path, x0, x1, t), path.interpolate(x0, x1, t)
    torch.testing.assert_close(prediction.velocity(path, answer, xt, t), path.velocity(x0, x1, t), rtol=0, atol=1e-11)


@each_path
@each_prediction
def test_the_velocity_can_be_computed_up_to_the_last_time(
    path: Path, prediction: Prediction, device: torch.device
) -> None:
    """From there to t = 1 the network is asked at this time; on the path ddpm, at its last level before."""
    (x0, x1), last = pair(3, (2,), device), min(prediction.max_time, path.max_time)
    t = torch.full((3,), last, dtype=torch.float32, device=device)  # as the pipelines compute
    x0, x1 = x0.float(), x1.float()
    answer, xt = prediction.truth(path, x0, x1, t), path.interpolate(x0, x1, t)
    torch.testing.assert_close(prediction.velocity(path, answer, xt, t), path.velocity(x0, x1, t), rtol=1e-3, atol=1e-3)


@each_path
@each_shape
def test_each_sample_of_a_batch_has_its_own_time(path: Path, shape: tuple[int, ...], device: torch.device) -> None:
    count = shape[0]  # as many samples as the next axis is long: times put on a wrong axis would not raise
    (answer, xt), t = pair(count, shape, device), times(0.1, 0.8, count, device)
    for function in (partial(prediction.velocity, path) for prediction in PREDICTIONS.values()):
        one_by_one = [function(answer[i : i + 1], xt[i : i + 1], t[i : i + 1]) for i in range(count)]
        torch.testing.assert_close(function(answer, xt, t), torch.cat(one_by_one))


@pytest.mark.parametrize(
    "name, path", [("velocity", "linear"), ("target", "linear"), ("source", "ddpm"), ("v-prediction", "linear")]
)
def test_a_velocity_can_be_computed_at_the_source(name: str, path: str, device: torch.device) -> None:
    """There, noise that is predicted says where to go only on a path that keeps something of the target."""
    (x0, x1), t, on = pair(3, (2,), device), times(0, 0, 3, device), PATHS[path]
    answer, xt = PREDICTIONS[name].truth(on, x0, x1, t), on.interpolate(x0, x1, t)
    torch.testing.assert_close(PREDICTIONS[name].velocity(on, answer, xt, t), on.velocity(x0, x1, t))
