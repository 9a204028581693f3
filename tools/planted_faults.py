"""Faults planted into correct graphs of rtk, in any precision: pixels and logits are fp32 in all of them."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME


def faulty(graph: onnx.ModelProto, fault: Callable[[onnx.GraphProto], None]) -> onnx.ModelProto:
    """A copy of the graph with the fault; ONNX's checker accepts it."""
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    fault(copied.graph)
    onnx.checker.check_model(copied)
    return copied


def mean_off(graph: onnx.GraphProto) -> None:
    """The mean of the first channel is 8 of 255 too high."""
    mean = next(tensor for tensor in graph.initializer if tensor.name == "normalise.mean")
    values = numpy_helper.to_array(mean).copy()
    values[0] += 8 / 255
    mean.CopyFrom(numpy_helper.from_array(values, mean.name))


def logit_moved(label: int, by: float) -> Callable[[onnx.GraphProto], None]:
    """The logit of one class is too high."""

    def plant(graph: onnx.GraphProto) -> None:
        classes = graph.output[0].type.tensor_type.shape.dim[1].dim_value
        moved = np.zeros(classes, np.float32)
        moved[label] = by
        graph.initializer.append(numpy_helper.from_array(moved, "planted"))
        _after_logits(graph, "Add", ["planted"])

    return plant


def logits_scaled(by: float) -> Callable[[onnx.GraphProto], None]:
    """All logits are too large."""

    def plant(graph: onnx.GraphProto) -> None:
        graph.initializer.append(numpy_helper.from_array(np.array(by, np.float32), "planted"))
        _after_logits(graph, "Mul", ["planted"])

    return plant


def noisy(by: float) -> Callable[[onnx.GraphProto], None]:
    """Every answer has noise of its own."""

    def plant(graph: onnx.GraphProto) -> None:
        before = _renamed(graph)
        graph.node.append(helper.make_node("RandomNormalLike", [before], ["planted"], scale=by))
        graph.node.append(helper.make_node("Add", [before, "planted"], [OUTPUT_NAME]))

    return plant


def negated_unless(size: int) -> Callable[[onnx.GraphProto], None]:
    """Logits have the wrong sign in batches of every other size."""

    def plant(graph: onnx.GraphProto) -> None:
        before = _renamed(graph)
        constants = {
            "planted.size": np.array([size], np.int64),
            "planted.yes": np.float32(1),
            "planted.no": np.float32(-1),
        }
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
        graph.node.append(helper.make_node("Shape", [before], ["planted.batch"], start=0, end=1))
        graph.node.append(helper.make_node("Equal", ["planted.batch", "planted.size"], ["planted.is"]))
        graph.node.append(helper.make_node("Where", ["planted.is", "planted.yes", "planted.no"], ["planted.sign"]))
        graph.node.append(helper.make_node("Mul", [before, "planted.sign"], [OUTPUT_NAME]))

    return plant


def overflowing_above(brightness: float) -> Callable[[onnx.GraphProto], None]:
    """A value in the network is out of the range of fp16 for images that are brighter than this, and of no use.

    The value is 1e5 for those images and 0 for the others. In fp32 it is subtracted again without a trace.
    """

    def plant(graph: onnx.GraphProto) -> None:
        half = onnx.TensorProto.FLOAT16
        before = _renamed(graph)
        pixels = next(node.output[0] for node in graph.node if node.op_type == "Cast" and node.input[0] == INPUT_NAME)
        constants = {"planted.limit": np.float32(brightness), "planted.axes": np.array([1, 2, 3], np.int64)}
        constants["planted.large"] = np.float16(320)
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
        graph.node.append(helper.make_node("ReduceMean", [pixels, "planted.axes"], ["planted.mean"], keepdims=0))
        graph.node.append(helper.make_node("Greater", ["planted.mean", "planted.limit"], ["planted.bright"]))
        graph.node.append(helper.make_node("Cast", ["planted.bright"], ["planted.one"], to=half))
        graph.node.append(helper.make_node("Mul", ["planted.one", "planted.large"], ["planted.root"]))
        graph.node.append(helper.make_node("Mul", ["planted.root", "planted.root"], ["planted.square"]))
        graph.node.append(helper.make_node("Sub", ["planted.square", "planted.square"], ["planted.nothing"]))
        graph.node.append(helper.make_node("Cast", ["planted.nothing"], ["planted.wide"], to=onnx.TensorProto.FLOAT))
        graph.initializer.append(numpy_helper.from_array(np.array([-1, 1], np.int64), "planted.column"))
        graph.node.append(helper.make_node("Reshape", ["planted.wide", "planted.column"], ["planted.each"]))
        graph.node.append(helper.make_node("Add", [before, "planted.each"], [OUTPUT_NAME]))

    return plant


def _after_logits(graph: onnx.GraphProto, operator: str, others: list[str]) -> None:
    before = _renamed(graph)
    graph.node.append(helper.make_node(operator, [before, *others], [OUTPUT_NAME]))


def _renamed(graph: onnx.GraphProto) -> str:
    """Rename the tensor of the logits, and return its new name, so that other nodes can follow."""
    before = f"{OUTPUT_NAME}.before"
    for node in graph.node:
        node.output[:] = [before if name == OUTPUT_NAME else name for name in node.output]
    return before
