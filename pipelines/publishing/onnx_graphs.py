"""What becomes an ONNX file: one evaluation of a pipeline's velocity, and a whole translation, pixels included.

Each graph is a module whose `forward` takes its `inputs` in order. `evaluate` is how it gets the velocity: from the
network, or while a translation is traced from a node that stands for it, because the steps of a solver are few
operations and the evaluations between them many.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from flowferry.datasets.pixels import to_images, to_pixels
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.guidance import ConditionalVelocity, guide
from flowferry.pipelines.flow.solvers import trajectory
from flowferry.pipelines.flow.tiling import padded
from flowferry.pipelines.flow.variances import large, own_channels
from flowferry.pipelines.pipeline import Pipeline

MOST = 65536  # pixels of a side
INFERRED = -1  # the label of a translation that leaves it to the classifier to infer one
BATCH = 63  # samples that torch is told of, while files take any number: from 64 on diffusers copies tensors for GPUs


class Graph(nn.Module):
    """A module with the names of its inputs and outputs."""

    inputs: Sequence[str]
    outputs: Sequence[str]

    def __init__(self, pipeline: Pipeline, evaluate: ConditionalVelocity) -> None:
        super().__init__()
        self.pipeline, self.evaluate, self.num_classes = pipeline, evaluate, pipeline.config.num_classes
        self.stride = free_stride(pipeline)

    def condition(self, label: Tensor | None, image: Tensor) -> Condition:
        """Return what the network is told: labels int64 [B], and the source samples where it sees them."""
        return Condition(label, image if self.pipeline.sees_source else None, self.num_classes)

    def examples(self, count: int, shape: Sequence[int]) -> tuple[Tensor, ...]:
        """Return inputs of `count` samples of a `shape` like the pipeline's, the same at each call."""
        raise NotImplementedError

    def axes(self) -> list[dict[int, str]]:
        """Return for each input the names of its axes of any length: of samples, of images where the network allows."""
        sides = ["height", "width"] if self.stride else []
        axes = {"t": {}, "label": {0: "batch"}, "image": {0: "batch", **dict(enumerate(sides, 1))}}
        usual = {0: "batch", **dict(enumerate(sides, 2))}
        return [axes.get(name, usual) for name in self.inputs]

    def dynamic_shapes(self) -> list[dict[int, Any]]:
        """Return the same for torch, which has to know that sides are multiples of the network's stride."""
        stride = self.stride or 1
        sides = {name: stride * Dim(f"{name}_in_strides", min=1, max=MOST // stride) for name in ("height", "width")}
        lengths = {"batch": Dim("batch", min=1, max=BATCH), **sides}
        return [{axis: lengths[name] for axis, name in axes.items()} for axes in self.axes()]


class VelocityGraph(Graph):
    """x [B, …], t [] and, where the pipeline has them, label int64 [B] and source [B, …] -> velocity [B, …].

    t is [2], the start and the end of a step, for a network of two times. The label num_classes is "no class".
    """

    outputs = ("velocity",)

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline, velocity_of(pipeline))
        self.model, self.weaker = pipeline.model, pipeline.weaker
        self.inputs = ["x", "t", *["label"] * bool(self.num_classes), *["source"] * pipeline.sees_source]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the velocity."""
        given = dict(zip(self.inputs, inputs, strict=True))
        condition = self.condition(given.get("label"), given.get("source", given["x"]))
        return own_channels(lambda x, t: self.evaluate(x, t, condition))(given["x"], given["t"])

    def examples(self, count: int, shape: Sequence[int], time: float = 0.3) -> tuple[Tensor, ...]:
        """Return points of paths at a `time`, the same at each call."""
        g, path = torch.Generator().manual_seed(0), self.pipeline.path
        noise = torch.randn(count, *shape, generator=g)
        target = flat_images(count, shape, g) if self.pipeline.config.is_image else noise.flip(0)
        source = noise if self.pipeline.config.source.is_noise else target.flip(0)
        t = torch.tensor([time, 1.0] if self.pipeline.objective.two_times else time)
        x = path.interpolate(source, target, torch.full((count,), time))
        label = torch.arange(count) % (self.num_classes + 1)
        return tuple({"x": x, "t": t, "label": label, "source": source}[name] for name in self.inputs)


class TranslationGraph(Graph):
    """image uint8 [B, H, W, C], noise [B, C, H, W] and label int64 [B], those that it needs -> result and states.

    noise: standard normal; where the source is noise it is all that there is to start from. label: num_classes is "no
    class"; INFERRED leaves it to the classifier of a pipeline that infers labels. result: uint8 [B, H, W, C]. states:
    the same at every time of the grid, the first and the last included, [N+1, B, H, W, C]. Points in the plane have
    neither pixels nor channels: float32 [B, n].
    """

    outputs = ("result", "states")

    def __init__(self, pipeline: Pipeline, evaluate: ConditionalVelocity) -> None:
        super().__init__(pipeline, evaluate)
        config = pipeline.config
        self.label_classifier = pipeline.label_classifier
        self.times, self.std = pipeline.grid().tolist(), 0.0 if config.source.is_noise else config.solver.source_noise
        needed = {
            "image": not config.source.is_noise,
            "noise": config.source.is_noise or self.std,
            "label": self.num_classes,
        }
        self.inputs = [name for name, need in needed.items() if need]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the result and the states."""
        states = self.states(*inputs)
        return states[-1], states

    def states(self, *inputs: Tensor) -> Tensor:
        """Return the states as pixels, or as points."""
        states = self.unrounded(*inputs)
        return to_pixels(states).movedim(2, -1) if self.pipeline.config.is_image else states

    def unrounded(self, *inputs: Tensor) -> Tensor:
        """Return the states [N+1, B, *shape] as the solver has them."""
        given, pipeline = dict(zip(self.inputs, inputs, strict=True)), self.pipeline
        x = to_images(given["image"].movedim(-1, 1)) if "image" in given else given["noise"]
        label = given.get("label")
        if self.label_classifier is not None:
            label = torch.where(given["label"] == INFERRED, self.label_classifier(x).argmax(dim=1), given["label"])
        condition = self.condition(label, x)
        if self.std:
            x = x + self.std * given["noise"]
        w = pipeline.class_guidance(asked=self.num_classes > 0)
        velocity = own_channels(guide(self.evaluate, condition, w))
        step = pipeline.step_along(velocity, torch.zeros_like, large)
        times = [torch.tensor(time) for time in self.times]  # one by one they stay constants while the graph is traced
        return torch.stack([*trajectory(step, x, times)])

    def examples(self, count: int, shape: Sequence[int]) -> tuple[Tensor, ...]:
        """Return flat areas as images, noise, and each label in turn, the same at each call."""
        g = torch.Generator().manual_seed(0)
        noise = torch.randn(count, *shape, generator=g)
        image = to_pixels(flat_images(count, shape, g)).movedim(1, -1) if self.pipeline.config.is_image else noise
        first = INFERRED if self.label_classifier is not None else 0
        label = first + torch.arange(count) % (self.num_classes + 1 - first)
        return tuple({"image": image, "noise": noise, "label": label}[name] for name in self.inputs)


def free_stride(pipeline: Pipeline) -> int | None:
    """Return what sides are multiples of, where a graph takes images of any size; None where it takes its own size."""
    stride = pipeline.stride
    return stride if stride and all(side % stride == 0 for side in pipeline.config.shape[1:]) else None


def velocity_of(pipeline: Pipeline) -> ConditionalVelocity:
    """Return the velocity that a graph contains, on images of every size that it takes."""
    velocity = pipeline.conditional_velocity
    return padded(velocity, pipeline.stride) if pipeline.stride and not free_stride(pipeline) else velocity


def flat_images(count: int, shape: Sequence[int], g: torch.Generator) -> Tensor:
    """Return images [count, C, H, W] in [-1, 1] of areas of 4×4 pixels: a quarter of them -1, another quarter 1."""
    channels, height, width = shape
    areas = torch.rand(count, channels, -(-height // 4), -(-width // 4), generator=g).mul(4).sub(2).clamp(-1, 1)
    return areas.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)[..., :height, :width]
