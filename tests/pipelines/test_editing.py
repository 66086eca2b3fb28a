"""Laws of the edits of a pipeline: pipelines/editing.py."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.rng import derive_seed, normal_rows
from flowferry.pipelines import editing

LINEAR, DDPM = ("noise2mnist-cfg", {}), ("ddpm-mnist-cfg", {"steps": 20})
each_pipeline = pytest.mark.parametrize(
    ("name", "changes"), [LINEAR, DDPM, ("noise2mnist-cfg", {"solver": "ancestral", "steps": 4, "stride": 30})]
)


@pytest.fixture
def made(tiny: Callable[..., Config]) -> Callable[..., Pipeline]:
    """made(name, changes): an untrained pipeline of a network that depends on all that it is told."""

    def make(name: str, changes: dict[str, Any]) -> Pipeline:
        torch.manual_seed(0)
        pipeline = Pipeline(tiny(name)).using(**{"steps": 4, "guidance": 2.0, **changes})
        for parameter in pipeline.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1) if parameter.ndim > 1 else torch.nn.init.normal_(parameter)
        return pipeline

    return make


def images(count: int = 2) -> Tensor:
    return torch.empty(count, 1, 28, 28).uniform_(-1, 1, generator=torch.Generator().manual_seed(1))


def last(states: Iterator[Tensor]) -> Tensor:
    *_, end = states
    return end


def labels(*values: int) -> Tensor:
    return torch.tensor(values)


def noise_of_edit(x: Tensor, seed: int = 0) -> Tensor:
    return normal_rows(derive_seed(seed, "noised"), range(len(x)))(x)


HALF = torch.zeros(28, 28, dtype=torch.bool)
HALF[:, 14:] = True


@each_pipeline
def test_sdedit_at_0_is_sampling_and_at_1_the_identity(
    name: str, changes: dict[str, Any], made: Callable[..., Pipeline]
) -> None:
    pipeline, x, asked = made(name, changes), images(), labels(3, 8)
    sampled = last(pipeline.trajectory(noise_of_edit(x), asked))
    assert torch.equal(last(editing.sdedit(pipeline, x, asked, start=0)), sampled)
    assert torch.equal(last(editing.sdedit(pipeline, x, asked, start=1)), x)
    between = last(editing.sdedit(pipeline, x, asked, start=0.6))
    assert not torch.equal(between, sampled) and not torch.equal(between, x)


@each_pipeline
def test_inpainting_keeps_known_pixels_and_of_a_whole_mask_is_sampling(
    name: str, changes: dict[str, Any], made: Callable[..., Pipeline]
) -> None:
    pipeline, x, asked = made(name, changes), images(), labels(3, 8)
    sampled = last(pipeline.trajectory(noise_of_edit(x), asked))
    assert torch.equal(last(editing.inpaint(pipeline, x, torch.ones_like(HALF), asked)), sampled)
    for how in ({}, {"resample": 2}, {"start": 0.4}):
        end = last(editing.inpaint(pipeline, x, HALF, asked, **how))
        assert torch.equal(end[..., :14], x[..., :14]) and not torch.equal(end[..., 14:], sampled[..., 14:])
    assert torch.equal(last(editing.inpaint(pipeline, x, ~(HALF | ~HALF), asked)), x)


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_an_edit_between_equal_classes_is_the_identity(start: float, made: Callable[..., Pipeline]) -> None:
    pipeline, x = made(*LINEAR), images()
    end = last(editing.flow_edit(pipeline, x, labels(3, 8), labels(3, 8), start=start))
    torch.testing.assert_close(end, x, rtol=0, atol=1e-4)
    other = last(editing.flow_edit(pipeline, x, labels(3, 8), labels(4, 8), start=start))
    torch.testing.assert_close(other[1], x[1], rtol=0, atol=1e-4)  # of each image, its own classes
    assert (other[0] - x[0]).abs().max() > 0.01
    assert torch.equal(last(editing.flow_edit(pipeline, x, labels(3, 8), labels(4, 4), start=1)), x)


@each_pipeline
def test_denoising_is_one_step_to_the_image_that_the_velocity_implies(
    name: str, changes: dict[str, Any], made: Callable[..., Pipeline]
) -> None:
    pipeline, x, asked, t = made(name, changes), images(), labels(3, 8), torch.tensor(0.4)
    noised, end = editing.denoise(pipeline, x, asked, start=0.4)
    torch.testing.assert_close(noised, pipeline.path.interpolate(noise_of_edit(x), x, t[None]))
    velocity = pipeline.velocity(noised, asked)(noised, t)
    torch.testing.assert_close(end, pipeline.path.endpoints(noised, velocity, t)[1])
    assert [torch.equal(only, x) for only in editing.denoise(pipeline, x, asked, start=1)] == [True]


@each_pipeline
def test_an_anagram_of_one_view_and_a_hybrid_of_one_class_are_sampling(
    name: str, changes: dict[str, Any], made: Callable[..., Pipeline]
) -> None:
    pipeline, x, asked, other = made(name, changes), noise_of_edit(images()), labels(3, 8), labels(4, 4)
    sampled = last(pipeline.trajectory(x, asked))
    assert torch.equal(last(editing.anagram(pipeline, x, [asked], ["identity"])), sampled)
    same, mixed = (last(editing.hybrid(pipeline, x, asked, near)) for near in (asked, other))
    torch.testing.assert_close(same, sampled, rtol=0, atol=1e-3)
    assert (mixed - sampled).abs().max() > 10 * (same - sampled).abs().max()


def test_an_anagram_turned_is_the_anagram_of_the_turned_noise_with_its_classes_exchanged(
    made: Callable[..., Pipeline],
) -> None:
    pipeline, x, views = made(*LINEAR), noise_of_edit(images()), ["identity", "rotate180"]
    here = last(editing.anagram(pipeline, x, [labels(6, 6), labels(9, 9)], views))
    there = last(editing.anagram(pipeline, x.flip(-2, -1), [labels(9, 9), labels(6, 6)], views))
    torch.testing.assert_close(here.flip(-2, -1), there, rtol=0, atol=1e-3)


def test_mixes_of_velocities_edit_a_pipeline_that_starts_from_images(made: Callable[..., Pipeline]) -> None:
    pipeline, x = made("fashion2mnist", {"solver": "euler", "source_noise": 0.3}), images()
    plain = last(pipeline.trajectory(x))
    assert torch.equal(last(editing.anagram(pipeline, x, [None], ["identity"])), plain)
    assert (last(editing.anagram(pipeline, x, [None] * 2, ["identity", "flip"])) - plain).abs().max() > 0.01


@pytest.mark.parametrize("edit", [editing.sdedit, editing.denoise, editing.inpaint])
def test_the_noise_of_an_image_is_a_function_of_the_seed_and_its_number(
    edit: Callable[..., Iterator[Tensor]], made: Callable[..., Pipeline]
) -> None:
    pipeline, x = made(*LINEAR), images(3)
    what: Any = {"start": 0.3} if edit is not editing.inpaint else {"mask": HALF, "resample": 2}
    ends = last(edit(pipeline, x, rows=[5, 6, 7], **what))
    torch.testing.assert_close(last(edit(pipeline, x[1:2], rows=[6], **what)), ends[1:2], rtol=0, atol=1e-4)
    for other in ({"rows": [7, 6, 5]}, {"rows": [5, 6, 7], "seed": 1}):
        assert (last(edit(pipeline, x, **other, **what)) - ends)[0].abs().max() > 0.01


def test_what_an_edit_cannot_do_is_refused_in_one_line(made: Callable[..., Pipeline]) -> None:
    x, garments, digits = images(), made("fashion2mnist", {"solver": "euler"}), made(*LINEAR)
    got = "got fashion2mnist, which starts from synthetic-garments, expected a pipeline"
    refused(f"sdedit: {got}", lambda: editing.sdedit(garments, x, start=0.5))
    refused(f"inpaint: {got}", lambda: editing.inpaint(garments, x, HALF))
    refused(f"flowedit: {got}", lambda: editing.flow_edit(garments, x, None, None))
    refused(f"denoise: {got}", lambda: editing.denoise(garments, x, start=0.5))
    refused("start: got 1.5, expected a time from 0 to 1", lambda: editing.denoise(digits, x, start=1.5))
    refused("samples: got shape", lambda: editing.sdedit(digits, x[:, :, 1:, 1:].expand(2, 3, 27, 27), start=0.5))
    ancestral = made(*DDPM)
    told = "flowedit: got the solver ancestral, expected euler, midpoint, heun, rk4, ab2$"
    refused(told, lambda: editing.flow_edit(ancestral, x, None, labels(1, 1)))


def refused(match: str, made: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=f"^{match}") as told:
        made()
    assert "\n" not in str(told.value)


def test_an_anagram_shows_a_network_that_sees_its_source_the_source_in_the_same_view(
    made: Callable[..., Pipeline],
) -> None:
    """One that answers its source exactly gives it back, whatever the views."""
    pipeline = made("paired", {"source_noise": 0.0})
    pipeline.model.forward = lambda xt, t, condition: condition.image  # type: ignore[method-assign, assignment]
    x = images(6).view(2, 3, 28, 28)[..., :16, :16].repeat_interleave(4, 2).repeat_interleave(4, 3)
    result = last(editing.anagram(pipeline, x, [None, None], ["identity", "rotate180"]))
    torch.testing.assert_close(result, x, rtol=0, atol=1e-4)
