"""What becomes an ONNX file does what the pipeline does, before it becomes one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from flowferry import Pipeline
from flowferry.datasets.pixels import to_images, to_pixels
from flowferry.datasets.rng import derive_seed, normal_rows
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.publishing.onnx_graphs import TranslationGraph, VelocityGraph, flat_images

COUNT = 12  # each class, "no class" and the one that is inferred
SOLVERS: dict[str, dict[str, Any]] = {
    "fashion2mnist": {"num_steps": 3, "source_noise": 0.4},
    "fashion2mnist-map": {"num_steps": 2},
    "fashion2mnist-labels": {"num_steps": 2},
    "paired": {"num_steps": 2, "source_noise": 0.2},
    "noise2mnist-cfg": {"num_steps": 2, "guidance": 3.0},
    "ddpm-mnist-cfg": {"name": "ddim", "num_steps": 3, "clip": 1.0},
    "denoise-mnist": {},
    "moons": {"num_steps": 5, "name": "heun"},
    "noise2mnist": {"num_steps": 2, "guidance": 2.0, "weaker": True},
}


@pytest.mark.parametrize("preset", SOLVERS)
def test_a_translation_s_states_are_the_pipeline_s_trajectory(preset: str, shaken: Callable[..., Pipeline]) -> None:
    pipeline = shaken(preset, **SOLVERS[preset])
    graph = TranslationGraph(pipeline, pipeline.conditional_velocity)
    given = dict(zip(graph.inputs, graph.examples(COUNT, pipeline.config.shape), strict=True))
    x, labels = given.get("noise"), given.get("label")
    if "image" in given:
        x = to_images(given["image"].movedim(-1, 1))
        drawn = normal_rows(derive_seed(0, "source noise"), range(COUNT))(x)
        given |= {"noise": drawn} if "noise" in given else {}
    assert x is not None
    if pipeline.config.infer_labels:
        asked, inferred = labels, pipeline.inferred_labels(x)
        assert asked is not None and inferred is not None and -1 in asked and 10 in asked
        labels = torch.where(asked == -1, inferred, asked)
    expected = torch.stack([*pipeline.trajectory(x, labels)])
    with torch.no_grad():
        result, states = graph(*given.values())
    assert ("label" in given) == bool(pipeline.config.num_classes)
    if pipeline.config.is_image:
        expected = to_pixels(expected).movedim(2, -1)
    assert torch.equal(states, expected) and torch.equal(result, expected[-1])
    assert not torch.equal(states[0], states[-1])


@pytest.mark.parametrize("preset", ["paired", "noise2mnist-cfg", "fashion2mnist-map", "moons"])
def test_a_velocity_is_one_evaluation_of_the_network(preset: str, shaken: Callable[..., Pipeline]) -> None:
    pipeline = shaken(preset)
    graph = VelocityGraph(pipeline)
    given = dict(zip(graph.inputs, graph.examples(COUNT, pipeline.config.shape), strict=True))
    condition = Condition(given.get("label"), given.get("source"), pipeline.config.num_classes)
    with torch.no_grad():
        found = graph(*given.values())
        expected = pipeline.conditional_velocity(given["x"], given["t"], condition)
    assert torch.equal(found, expected) and found.std() > 0.01
    assert given["t"].shape == ((2,) if preset == "fashion2mnist-map" else ())


def test_checks_are_made_with_images_of_the_whole_range() -> None:
    images = flat_images(50, (3, 30, 22), torch.Generator().manual_seed(0))
    assert images.shape == (50, 3, 30, 22)
    for value in (-1, 1):
        assert (images == value).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (images[..., 0::4, :][..., :7, :] == images[..., 1::4, :][..., :7, :]).all()
