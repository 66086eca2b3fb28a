"""The format `onnx`: files that run without torch, each checked against torch before any is written."""

import json
import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.publishing.onnx_graphs import (
    INFERRED,
    Graph,
    TranslationGraph,
    VelocityGraph,
    free_stride,
    velocity_of,
)
from flowferry.pipelines.publishing.onnx_models import OPSET, evaluation_node, to_model, with_velocity
from flowferry.pipelines.storage import hub, weights
from flowferry.pipelines.storage.files import prepare_folder, write_aside, write_text

log = logging.getLogger("flowferry")

PACKAGES = "onnx", "onnxscript", "onnxruntime"
VELOCITY, TRANSLATION = "velocity.onnx", "translation.onnx"
MAX_EVALUATIONS = 64  # in the graph of a translation, each of which makes it longer
MAX_BYTES = 2**31  # of an ONNX file
TOLERANCE = 1e-4  # of values in [-1, 1]; of larger ones in proportion
COUNTS = (1, 5)  # samples at a time of the checks, other than those of the traced batch


class Made(NamedTuple):
    """An ONNX file, checked."""

    name: str
    data: bytes
    difference: float
    """Its largest difference from torch, of values in [-1, 1]."""


def for_onnx(pipeline: Pipeline, folder: Path, output: Path, address: str) -> None:
    """Write `velocity.onnx` and, unless `no_translation` says why not, `translation.onnx`."""
    prepare_folder(output, "--output")
    made = [*make_onnx(pipeline, weights.digest(folder))]
    for one in made:
        write_aside(output / one.name, one.data)
        told = "%s: %.1f MB, at most %.1e from torch"
        log.info(told, output / one.name, len(one.data) / 1e6, one.difference)
    write_text(output / hub.CARD, USE.format(name=pipeline.config.name, sampling=pipeline.sampling))
    if why := no_translation(pipeline):
        log.info("no %s: %s", TRANSLATION, why)


def make_onnx(pipeline: Pipeline, digest: str) -> list[Made]:
    """Return the ONNX files of a pipeline on the CPU, whose weights have this digest.

    Raises UserError without the packages for it, for what torch cannot trace, and for what onnxruntime computes
    otherwise than torch.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"--format: got no {missing[0]}, expected it: pip install 'flowferry[onnx]'")
    if getattr(pipeline.model, "text_channels", None):
        raise UserError("--format: got a pipeline that takes texts, expected one without")
    networks = [network for network in (pipeline.model, pipeline.weaker) if network is not None]
    if (size := sum(p.numel() * p.element_size() for one in networks for p in one.parameters())) >= MAX_BYTES:
        raise UserError(f"--format: got weights of {size / 1e9:.1f} GB, expected less than {MAX_BYTES / 1e9:.1f}")
    told = properties(pipeline, digest)
    graph = VelocityGraph(pipeline)
    velocity = to_model(graph, "velocity")
    data = to_bytes(velocity, told)
    made = [Made(VELOCITY, data, check_velocity(graph, data))]
    if no_translation(pipeline) is None:
        translation = to_model(TranslationGraph(pipeline, evaluation_node), "translation")
        data = to_bytes(with_velocity(translation, velocity), told)
        of_network = TranslationGraph(pipeline, velocity_of(pipeline))
        made.append(Made(TRANSLATION, data, check_translation(of_network, data)))
    return made


def no_translation(pipeline: Pipeline) -> str | None:
    """Return why a pipeline's translation is not written as one graph; None where it is."""
    if pipeline.config.solver.adds_noise:
        return f"the solver {pipeline.config.solver.name} adds noise at each step"
    if (evaluations := pipeline.evaluations()) > MAX_EVALUATIONS:
        return (
            f"got {evaluations} evaluations of the velocity ({pipeline.sampling}), expected at most {MAX_EVALUATIONS}"
        )
    return None


def properties(pipeline: Pipeline, digest: str) -> dict[str, str]:
    """Return what the files say of themselves: all that their user needs to know besides the graph."""
    config, solver = pipeline.config, pipeline.config.solver
    left_out = ("format_version", "model", "step")  # of the weights file, which this is not
    told = {name: value for name, value in weights.metadata(config, 0).items() if name not in left_out}
    facts = {
        "solver": solver.name,
        "times": [round(time, 7) for time in pipeline.grid().tolist()],
        "source_noise": solver.source_noise,
        "guidance": solver.guidance,
        "nfe": pipeline.nfe,
        "default_label": INFERRED if config.infer_labels else config.num_classes,
        "stride": free_stride(pipeline),
        "opset": OPSET,
        "weights_sha256": digest,
    }
    return told | {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}


def to_bytes(model: Any, told: dict[str, str]) -> bytes:
    """Return a model with these properties as the bytes of its file."""
    import onnx_ir

    model.metadata_props.update(told)
    data: bytes = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    return data


# --- checks -------------------------------------------------------------------------------------------------


def check_velocity(graph: VelocityGraph, data: bytes) -> float:
    """Return by how much the file's velocity differs from torch's; see `compared`."""
    times = (0.0, 0.5, graph.pipeline.max_time)
    inputs = [graph.examples(count, shape, time) for count, shape in sizes(graph.pipeline) for time in times]
    return compared(graph, data, VELOCITY, inputs, lambda expected, found: (found - expected).abs())


def check_translation(graph: TranslationGraph, data: bytes) -> float:
    """Return by how much the states of the file's translation differ from torch's, beyond rounding them to pixels."""

    def difference(expected: Tensor, found: Tensor) -> Tensor:
        if not graph.pipeline.config.is_image:
            return (found - expected).abs()
        apart = (found.movedim(-1, 2).double() - (expected.double().clamp(-1, 1) + 1) * 127.5).abs()
        return (apart - 0.5).clamp(min=0) / 127.5

    inputs = [graph.examples(count, shape) for count, shape in sizes(graph.pipeline)]
    return compared(graph, data, TRANSLATION, inputs, difference)


def sizes(pipeline: Pipeline) -> list[tuple[int, Sequence[int]]]:
    """Return numbers of samples and shapes to check with: the pipeline's, and another one if it takes any."""
    own = pipeline.config.shape
    stride = free_stride(pipeline)
    other = (own[0], own[1] + stride, own[2] + 2 * stride) if stride else own
    return [*zip(COUNTS, (own, other), strict=True)]


def compared(
    graph: Graph,
    data: bytes,
    name: str,
    examples: list[tuple[Tensor, ...]],
    difference: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """Return the largest difference between what onnxruntime makes of a file and torch of its graph.

    Raises UserError where it is more than TOLERANCE, or than that share of the largest value if that is over 1.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for inputs in examples:
        given = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs, strict=True)}
        with torch.no_grad():
            expected = graph.unrounded(*inputs) if isinstance(graph, TranslationGraph) else graph(*inputs)
        found = torch.from_numpy(session.run([graph.outputs[-1]], given)[0])
        scale = 1.0 if found.dtype == torch.uint8 else max(1.0, expected.abs().max().item())
        largest = max(largest, difference(expected, found).max().item() / scale)
    if not largest <= TOLERANCE:
        raise UserError(f"--format: got a {name} that is {largest:.1e} from torch, expected at most {TOLERANCE}")
    return largest


USE = """\
# {name}, as ONNX

`velocity.onnx` is one evaluation of the velocity, `translation.onnx` (where there is one) the whole way from source to
target, pixels included: {sampling}. Their metadata says the rest.

```python
import onnxruntime  # pip install onnxruntime

session = onnxruntime.InferenceSession("translation.onnx")
print([(one.name, one.type, one.shape) for one in session.get_inputs()])
print(session.get_modelmeta().custom_metadata_map)
```
"""
