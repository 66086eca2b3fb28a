"""Which pictures a pipeline has, and that each can be drawn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from flowferry import Pipeline
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.datasets.builders import build_samplers
from flowferry.pipelines.visualization import grids
from flowferry.pipelines.visualization.select import visuals


@pytest.mark.parametrize("name", PIPELINES)
def test_each_pipeline_has_its_pictures_and_an_animation(
    name: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny(name)
    steps = min(3, config.solver.num_steps)
    pipeline = Pipeline(replace(config, solver=replace(config.solver, num_steps=steps)))
    shown = visuals(config)
    source, target = build_samplers(config, data_root=Path("data"), split="test", device=torch.device("cpu"))
    pictures = shown.pictures(pipeline, source, target, "epoch 1")
    expected = {"samples", "path"}
    if not config.is_image:
        expected = {"densities", "trajectories", "variance"}
    elif config.objective == "one-step":
        expected = {"samples"} | ({"noising", "out-of-distribution"} if config.source.kind == "noisy" else set())
    assert pictures.keys() == expected
    frames = shown.frames(pipeline, source, target)
    assert len(frames) == steps + 1
    grids.save_gif(frames, tmp_path / "path.gif")
    with Image.open(tmp_path / "path.gif") as gif:
        assert gif.n_frames == steps + 1 or frames[0] == frames[1]  # Pillow joins equal frames
