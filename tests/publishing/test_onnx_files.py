"""ONNX files: what torch computes, computed without torch; refused where it is not the same."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor

from flowferry import Pipeline, launch
from flowferry.datasets.pixels import to_images, to_pixels
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.publishing import onnx_files
from flowferry.pipelines.publishing.onnx_graphs import INFERRED
from flowferry.pipelines.storage import weights
from tiny_diffusers import stage_1, unconditional

Shaken = Callable[..., Pipeline]


def run(data: bytes, output: str, **inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(data)
    return torch.from_numpy(session.run([output], {name: tensor.numpy() for name, tensor in inputs.items()})[0])


def export(folder: Path, output: Path) -> int:
    argv = ["export", "--pipeline", folder, "--format", "onnx", "--output", output]
    return launch.main([*map(str, argv)])


def to_float(pixels: Tensor) -> Tensor:
    return pixels.movedim(-1, -3).float() / 127.5 - 1


def test_velocity_and_guided_samples_are_the_pipeline_s_for_any_number_size_and_label(shaken: Shaken) -> None:
    """In several steps, of a solver that looks back."""
    pipeline = shaken("noise2mnist-cfg", name="ab2", num_steps=3, guidance=3.0)
    files = {one.name: one.data for one in onnx_files.make_onnx(pipeline, "a digest")}
    for count, size, time in ((1, (28, 28), 0.0), (70, (32, 24), 0.7), (2, (28, 28), 1.0)):
        x, t, label = torch.randn(count, 1, *size), torch.tensor(time), (torch.arange(count) + 7) % 11
        with torch.no_grad():
            expected = pipeline.conditional_velocity(x, t, Condition(label, None, 10))
        assert expected.std() > 0.1
        torch.testing.assert_close(run(files["velocity.onnx"], "velocity", x=x, t=t, label=label), expected)
    noise, label = torch.randn(5, 1, 28, 28), torch.tensor([0, 3, 10, 9, 7])
    states = run(files["translation.onnx"], "states", noise=noise, label=label)
    trajectory = torch.stack([*pipeline.trajectory(noise, label)])
    assert states.shape == (4, 5, 28, 28, 1)
    torch.testing.assert_close(to_float(states), trajectory.clamp(-1, 1), rtol=0, atol=0.51 / 127.5)
    result = run(files["translation.onnx"], "result", noise=noise, label=label)
    assert torch.equal(result, states[-1])
    assert (result != run(files["translation.onnx"], "result", noise=noise, label=torch.full((5,), 10))).any()


def test_guidance_away_from_a_weaker_network_is_in_both_files(shaken: Shaken) -> None:
    pipeline = shaken("fashion2mnist", weaker=True, num_steps=2, guidance=2.0, source_noise=0.2)
    files = {one.name: one.data for one in onnx_files.make_onnx(pipeline, "a digest")}
    x, t = torch.randn(3, 1, 28, 28), torch.tensor(0.4)
    with torch.no_grad():
        expected = pipeline.conditional_velocity(x, t, Condition())
        unguided = pipeline.using(guidance=1.0).conditional_velocity(x, t, Condition())
    assert (expected - unguided).abs().max() > 0.1
    torch.testing.assert_close(run(files["velocity.onnx"], "velocity", x=x, t=t), expected)
    image, noise = to_pixels(torch.rand(3, 1, 28, 28) * 2 - 1), torch.randn(3, 1, 28, 28)
    states = run(files["translation.onnx"], "states", image=image.movedim(1, -1), noise=noise)
    start = to_images(image) + 0.2 * noise
    trajectory = torch.stack([*pipeline.using(source_noise=0.0).trajectory(start)])
    torch.testing.assert_close(to_float(states), trajectory.clamp(-1, 1), rtol=0, atol=0.51 / 127.5)


def test_guidance_towards_the_inferred_class_is_in_the_translation_of_any_number(shaken: Shaken) -> None:
    """Both evaluations of it are one of twice as many samples."""
    pipeline = shaken("fashion2mnist-labels", num_steps=2, guidance=2.0, source_noise=0.0)
    files = {one.name: one.data for one in onnx_files.make_onnx(pipeline, "a digest")}
    for count in (1, 4):
        image, label = to_pixels(torch.rand(count, 1, 28, 28) * 2 - 1), torch.full((count,), INFERRED)
        states = run(files["translation.onnx"], "states", image=image.movedim(1, -1), label=label)
        start = to_images(image)
        trajectory = torch.stack([*pipeline.trajectory(start, pipeline.inferred_labels(start))])
        torch.testing.assert_close(to_float(states), trajectory.clamp(-1, 1), rtol=0, atol=0.51 / 127.5)


def test_a_size_that_is_no_multiple_of_the_stride_is_fixed(shaken: Shaken) -> None:
    """And padded inside, as the pipeline pads it."""
    pipeline = shaken("paired", changes={"shape": (3, 30, 22)}, num_steps=2, source_noise=0.0)
    files = {one.name: one.data for one in onnx_files.make_onnx(pipeline, "a digest")}
    session = onnxruntime.InferenceSession(files["translation.onnx"])
    assert [one.shape for one in session.get_inputs()] == [["batch", 30, 22, 3]]
    assert json.loads(session.get_modelmeta().custom_metadata_map["stride"]) is None
    image = to_pixels(torch.rand(2, 3, 30, 22) * 2 - 1)
    states = run(files["translation.onnx"], "states", image=image.movedim(1, -1))
    trajectory = torch.stack([*pipeline.trajectory(to_images(image))])
    torch.testing.assert_close(to_float(states), trajectory.clamp(-1, 1), rtol=0, atol=0.51 / 127.5)


def test_the_command_writes_equal_files_that_say_what_they_are_and_a_line_for_each(
    shaken: Shaken, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shaken("moons", num_steps=3).save_pretrained(tmp_path / "mine")
    for output in ("one", "two"):
        caplog.clear()
        assert export(tmp_path / "mine", tmp_path / output) == 0
    lines = [record.getMessage() for record in caplog.records if record.name == "flowferry"]
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == ["velocity.onnx", "translation.onnx", "two"]
    assert capfd.readouterr().out == ""
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    told = onnxruntime.InferenceSession(one["translation.onnx"]).get_modelmeta().custom_metadata_map
    assert (told["pipeline"], told["solver"], told["path"], told["shape"]) == ("moons", "euler", "linear", "[2]")
    assert json.loads(told["times"]) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert told["weights_sha256"] == weights.digest(tmp_path / "mine")
    assert str(Path(__file__).parents[2]).encode() not in one["translation.onnx"], "they say where the code lay"


def test_what_differs_from_torch_is_refused_and_nothing_is_written(
    shaken: Shaken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shaken("moons").save_pretrained(tmp_path / "mine")
    velocity, asked = Pipeline.conditional_velocity, []

    def drifting(self: Pipeline, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        asked.append(t)
        return velocity(self, x, t, condition) + (0.01 if len(asked) > 1 else 0)  # once it is written

    monkeypatch.setattr(Pipeline, "conditional_velocity", drifting)
    assert export(tmp_path / "mine", tmp_path / "out") == 2
    assert "got a velocity.onnx that is " in (told := capsys.readouterr().err) and "expected at most 0.0001" in told
    assert not (tmp_path / "out").exists()


def test_a_solver_that_adds_noise_leaves_the_velocity(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Here of a pretrained pipeline, on the levels of its own path."""
    assert export(unconditional(tmp_path / "theirs"), tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"velocity.onnx", "README.md"}
    assert "no translation.onnx: the solver ancestral adds noise at each step" in caplog.text


def test_what_cannot_be_exported_is_told_in_a_line(
    shaken: Shaken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(stage_1(tmp_path / "texts"), tmp_path / "out") == 2
    assert "--format: got a pipeline that takes texts, expected one without" in capsys.readouterr().err
    shaken("moons").save_pretrained(tmp_path / "mine")
    monkeypatch.setattr(onnx_files, "MAX_BYTES", 100)
    assert export(tmp_path / "mine", tmp_path / "out") == 2
    assert "got weights of 0.0 GB, expected less than 0.0" in capsys.readouterr().err
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None if name == "onnxscript" else sys)
    assert export(tmp_path / "mine", tmp_path / "out") == 2
    assert "got no onnxscript, expected it: pip install 'flowferry[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    assert export(tmp_path / "mine", tmp_path / "out") == 2
    assert (tmp_path / "out").exists(), "somebody else's folder"
