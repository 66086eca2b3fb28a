"""ONNX files: what torch computes, computed without torch; refused where it is not the same."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor

from flowferry import Pipeline, launch
from flowferry.configs.schema import Config
from flowferry.datasets.pixels import to_images, to_pixels
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.publishing import onnx_files
from flowferry.pipelines.storage import weights

Make = Callable[..., Pipeline]


@pytest.fixture(scope="module")
def make(tiny: Callable[..., Config]) -> Make:
    """make(preset, steps=…, **solver): a tiny pipeline whose answers are not 0."""

    def made(preset: str, *, steps: int = 2, changes: dict[str, object] | None = None, **solver: object) -> Pipeline:
        config = tiny(preset, **changes or {})
        pipeline = Pipeline(replace(config, solver=replace(config.solver, num_steps=steps, **solver)))
        g = torch.Generator().manual_seed(1)
        for parameter in pipeline.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=g)
        return pipeline

    return made


def run(data: bytes, output: str, **inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(data)
    return torch.from_numpy(session.run([output], {name: tensor.numpy() for name, tensor in inputs.items()})[0])


def files_of(pipeline: Pipeline) -> dict[str, bytes]:
    return {one.name: one.data for one in onnx_files.make_onnx(pipeline, "a digest")}


def to_float(pixels: Tensor) -> Tensor:
    return pixels.movedim(-1, -3).float() / 127.5 - 1


def test_velocity_and_guided_samples_are_the_pipeline_s_for_any_batch_size_and_label(make: Make) -> None:
    pipeline = make("noise2mnist-cfg", guidance=3.0)
    files = files_of(pipeline)
    for count, size, time in ((1, (28, 28), 0.0), (4, (32, 24), 0.7), (2, (28, 28), 1.0)):
        x, t, label = torch.randn(count, 1, *size), torch.tensor(time), torch.arange(count) + 7
        with torch.no_grad():
            expected = pipeline.conditional_velocity(x, t, Condition(label, None, 10))
        assert expected.std() > 0.1
        torch.testing.assert_close(run(files["velocity.onnx"], "velocity", x=x, t=t, label=label), expected)
    noise, label = torch.randn(5, 1, 28, 28), torch.tensor([0, 3, 10, 9, 7])
    states = run(files["translation.onnx"], "states", noise=noise, label=label)
    expected_states = torch.stack([*pipeline.trajectory(noise, label)])
    assert states.shape == (3, 5, 28, 28, 1)
    torch.testing.assert_close(to_float(states), expected_states.clamp(-1, 1), rtol=0, atol=0.51 / 127.5)
    result = run(files["translation.onnx"], "result", noise=noise, label=label)
    assert torch.equal(result, states[-1])
    assert (result != run(files["translation.onnx"], "result", noise=noise, label=torch.full((5,), 10))).any()


def test_a_translation_of_images_follows_a_solver_of_many_steps_and_adds_the_noise_that_it_is_given(make: Make) -> None:
    pipeline = make("fashion2mnist", steps=4, name="ab2", source_noise=0.5)
    images, noise = torch.randint(0, 256, (4, 28, 28, 1), dtype=torch.uint8), torch.randn(4, 1, 28, 28)
    found = run(files_of(pipeline)["translation.onnx"], "result", image=images, noise=noise)
    start = to_images(images.movedim(-1, 1)) + 0.5 * noise
    expected = to_pixels(pipeline.using(source_noise=0.0).translate(start)).movedim(1, -1)
    assert (found.int() - expected.int()).abs().max() <= 1
    assert len(expected.unique()) > 50


def test_the_command_writes_files_that_say_what_they_are_and_no_line_beside_its_own(
    make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    make("moons", steps=3).save_pretrained(tmp_path / "mine")
    for output in ("one", "two"):
        argv = ["export", "--pipeline", tmp_path / "mine", "--format", "onnx", "--output", tmp_path / output]
        assert launch.main([*map(str, argv)]) == 0
    assert capfd.readouterr() == ("", "") or not caplog.records
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines[-3:]] == [
        "velocity.onnx",
        "translation.onnx",
        "two",
    ]
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two, "equal weights give equal files"
    told = onnxruntime.InferenceSession(one["translation.onnx"]).get_modelmeta().custom_metadata_map
    assert (told["pipeline"], told["solver"], told["path"]) == ("moons", "euler", "linear")
    assert json.loads(told["times"]) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert told["weights_sha256"] == weights.digest(tmp_path / "mine")
    assert str(tmp_path).encode() not in one["translation.onnx"] and b".py" not in one["velocity.onnx"]


def test_what_differs_from_torch_is_refused_and_nothing_is_written(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make("moons").save_pretrained(tmp_path / "mine")
    real = onnx_files.VelocityGraph.forward
    calls = []

    def forward(self: onnx_files.VelocityGraph, *inputs: Tensor) -> Tensor:
        calls.append(inputs)
        return real(self, *inputs) + (0.01 if len(calls) > 3 else 0)

    monkeypatch.setattr(onnx_files.VelocityGraph, "forward", forward)
    argv = ["export", "--pipeline", tmp_path / "mine", "--format", "onnx", "--output", tmp_path / "out"]
    assert launch.main([*map(str, argv)]) == 2
    assert "got a velocity.onnx that is " in (told := capsys.readouterr().err) and "expected at most 0.0001" in told
    assert not list((tmp_path / "out").iterdir())


def test_without_the_packages_one_line_says_what_to_install(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make("moons").save_pretrained(tmp_path / "mine")
    monkeypatch.setattr(onnx_files, "find_spec", lambda name: None if name == "onnxscript" else sys)
    argv = ["export", "--pipeline", tmp_path / "mine", "--format", "onnx", "--output", tmp_path / "out"]
    assert launch.main([*map(str, argv)]) == 2
    assert "got no onnxscript, expected it: pip install 'flowferry[onnx]'" in capsys.readouterr().err
