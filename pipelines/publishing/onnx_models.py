"""From the graphs of a pipeline to ONNX models, by torch's exporter."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.publishing.onnx_graphs import Graph

OPSET = 18
TRACED = 3  # samples of a traced batch: more than one, which would be taken for a constant
VELOCITY = ("flowferry", "velocity")  # the node that stands for an evaluation of the network


def evaluation_node(x: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Return what stands for one evaluation in the graph of a translation; see `with_velocity`."""
    told = [part for part in (condition.label, condition.image) if part is not None]
    return torch.onnx.ops.symbolic("::".join(VELOCITY), (x, t, *told), dtype=x.dtype, shape=x.shape, version=1)


def to_model(graph: Graph, what: str) -> Any:
    """Return a graph as an `onnx_ir.Model` that equal weights give equal bytes of.

    what: its name in errors. Raises UserError where torch cannot trace it with axes of any length.
    """
    how: Any = {"input_names": [*graph.inputs], "output_names": [*graph.outputs], "opset_version": OPSET}
    shapes = (tuple(graph.dynamic_shapes()),)
    try:
        with quiet(), torch.no_grad():
            traced = torch.export.export(
                graph.eval(), graph.examples(TRACED, graph.pipeline.config.shape), dynamic_shapes=shapes, strict=False
            )
            program = torch.onnx.export(traced, dynamo=True, verbose=False, **how)
    except Exception as error:  # of many kinds, in any layer of the exporter
        reason = str(error.__cause__ or error).strip().partition("\n")[0].partition(" For more information")[0]
        raise UserError(f"--format: torch cannot write the {what} as a graph ({reason})") from error
    assert program is not None
    return without_traces(with_named_axes(program.model, graph))


@contextmanager
def quiet() -> Iterator[None]:
    """Let the exporter tell nothing of what it does inside."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def with_named_axes(model: Any, graph: Graph) -> Any:
    """Return a model in which axes of any length have the names of the graph, where torch numbers them."""
    names: dict[str, str] = {}
    for value, axes in zip(model.graph.inputs, graph.axes(), strict=True):
        names |= {str(value.shape[axis]): name for axis, name in axes.items()}
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = type(value.shape)(names.get(str(length), length) for length in value.shape)
    return model


def without_traces(model: Any) -> Any:
    """Return a model without what says where its code lay, and without the shapes between its nodes."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in model.graph.outputs:
                value.shape = None
    return model


def with_velocity(translation: Any, velocity: Any) -> Any:
    """Return the model of a translation with that of the velocity in the place of each node that stands for it.

    The weights are there once.
    """
    import onnx_ir
    from onnx_ir.passes.common import InlinePass

    body = velocity.clone().graph
    weights = list(body.initializers.values())
    body.initializers.clear()
    body.inputs.extend(weights)  # a function has none of its own
    for value in body.outputs:
        value.shape = None  # guided evaluations have more samples than the translation's batch
    function = onnx_ir.Function(*VELOCITY, graph=body, attributes=[])
    shared = [onnx_ir.val(f"velocity.{w.name}", const_value=w.const_value, type=w.type, shape=w.shape) for w in weights]
    for value in shared:
        translation.graph.initializers.add(value)
    for node in [node for node in translation.graph if (node.domain, node.op_type) == VELOCITY]:
        given = [*node.inputs, *shared]
        first = len(node.inputs)
        node.resize_inputs(len(given))
        for index, value in enumerate(given[first:], first):
            node.replace_input_with(index, value)
    translation.functions[function.identifier()] = function
    return InlinePass()(translation).model
