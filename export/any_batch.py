"""Make a graph that was exported for one batch size take any.

The batch size is in constants: in the shapes of Reshape and Expand, and in tensors that were expanded before the
export, such as the class token of a transformer. The shapes of all tensors are inferred twice, for the graph's own
batch and for one that is a multiple of it: the dimension that grows has the batch in it. Where a Reshape moves it, the
new dimension is often clear; where it is not, as between 17 x 1 x 24 and 17 x 3 x 8, several ways are tried. The
caller has to run the result in other batches.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

BATCH, SIZE = "batch", "rtk.batch"
"""The name of the dimension, and of the tensor that holds its value."""
TIMES = 7
"""The larger batch, as a multiple; a number that is rarely a dimension."""
SMALL = 256
"""Values of a constant that may be a shape; larger ones are weights, and inference does not need them."""
BROADCASTING = ("Add", "Sub", "Mul", "Div", "Where", "Max", "Min")
NOT_FOLDED = ("DequantizeLinear", "QuantizeLinear", "RandomNormalLike", "RandomUniformLike", "If", "Loop", "Scan")

Shape = tuple[int, ...]


def with_any_batch(model: onnx.ModelProto, input_name: str, batch: int | None) -> Iterator[onnx.ModelProto]:
    """Yield copies of a graph that may take any batch, the most careful one first. `batch`: its own; None: any.

    The first copy changes only what the input and the outputs say.
    """
    yield _declared(model, input_name)
    if batch is None:
        return
    for outer_first in (False, True):
        copied = _declared(model, input_name)
        fold_constants(copied.graph)
        _Change(copied, input_name, batch, outer_first=outer_first).run()
        yield copied


def _declared(model: onnx.ModelProto, input_name: str) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]
    for value in (*copied.graph.input, *copied.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name == input_name:
            dims[0].ClearField("dim_value")
            dims[0].dim_param = BATCH
        else:
            value.type.tensor_type.ClearField("shape")  # ONNX infers it
    return copied


def fold_constants(graph: onnx.GraphProto) -> None:
    """Compute the nodes that read nothing but constants, in place: they may be shapes, or a class token expanded."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept, made = [], {}
    for node in graph.node:
        names = [name for name in node.input if name]
        if not names or any(name not in constants for name in names) or node.op_type in NOT_FOLDED:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        for name, values in _computed(node, {name: constants[name] for name in names}).items():
            constants[name] = made[name] = values
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in made.items())


def _computed(node: onnx.NodeProto, inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape)
        for name, values in inputs.items()
    ]
    wanted = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
    evaluator = ReferenceEvaluator(helper.make_model(helper.make_graph([node], "one", given, wanted)))
    return dict(zip(node.output, map(np.asarray, evaluator.run(None, inputs)), strict=True))


class _Change:
    """The change of one graph, node by node, in place."""

    def __init__(self, model: onnx.ModelProto, input_name: str, batch: int, *, outer_first: bool) -> None:
        """`outer_first`: where a dimension that grows can belong to two of a new shape, it is the outer one."""
        self._model, self._input, self._batch, self._outer_first = model, input_name, batch, outer_first
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._bare = _without_weights(model)
        self._own = _shapes(self._bare, input_name, batch)
        self._needs_size = False

    def run(self) -> None:
        graph, bare = self._model.graph, self._bare.graph
        nodes: list[onnx.NodeProto] = []
        for number in range(len(graph.node)):
            before: list[onnx.NodeProto] = []
            node = onnx.NodeProto.FromString(graph.node[number].SerializeToString())
            if node.op_type == "Reshape" and node.input[1] in self._constants and node.input[0] not in self._constants:
                self._reshape(node, number)
            elif node.op_type == "Expand" and node.input[1] in self._constants:
                self._expand(node, number)
            elif node.op_type in BROADCASTING and self._batch > 1 and any(map(self._constants.get, node.input)):
                self._broadcast(node, number)
            elif node.op_type == "Concat":
                before = self._concat(node, number)
            if node != graph.node[number]:
                bare.node[number].CopyFrom(node)
            nodes += [*before, node]
        if self._needs_size:
            zero = numpy_helper.from_array(np.array([0], np.int64), "rtk.zero")
            graph.initializer.append(zero)
            nodes[:0] = [
                helper.make_node("Shape", [self._input], ["rtk.shape"], name="rtk_shape"),
                helper.make_node("Gather", ["rtk.shape", "rtk.zero"], [SIZE], name="rtk_batch"),
            ]
        del graph.node[:]
        graph.node.extend(nodes)

    def _larger(self) -> dict[str, Shape]:
        """The shapes for the larger batch, as far as the nodes are changed."""
        return _shapes(self._bare, self._input, self._batch * TIMES)

    def _reshape(self, node: onnx.NodeProto, number: int) -> None:
        own, larger = self._own.get(node.input[0]), self._larger().get(node.input[0])
        after = self._own.get(node.output[0])
        if own is None or larger is None or after is None or own == larger:
            return
        grown = _grown(own, larger)
        shape = np.array(after, np.int64)
        shape[self._axis_of(after, int(np.prod(own[grown + 1 :])), int(np.prod(own[grown:])) // self._batch)] = -1
        name = f"rtk.reshape{number}"
        self._add(numpy_helper.from_array(shape, name))
        node.input[1] = name

    def _axis_of(self, shape: Shape, fewest: int, most: int) -> int:
        """The dimension of a new shape with the batch in it, if `fewest` to `most` neighbouring values are an image's.

        A dimension that is the batch itself is the first choice, and the last dimension, which has features, the last.
        """
        steps = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        end = most * self._batch
        covering = [axis for axis, step in enumerate(steps) if step <= most and step * shape[axis] >= end]
        exact = [axis for axis, step in enumerate(steps) if shape[axis] == self._batch and fewest <= step <= most]
        chosen = exact or [axis for axis in covering if axis < len(shape) - 1] or covering or [0]
        return chosen[0] if self._outer_first else chosen[-1]

    def _expand(self, node: onnx.NodeProto, number: int) -> None:
        own, larger = self._own.get(node.input[0]), self._larger().get(node.input[0])
        if own is None or larger is None or own == larger:
            return
        shape = numpy_helper.to_array(self._constants[node.input[1]]).copy()
        at = len(shape) - len(own) + _grown(own, larger)
        if at >= 0:
            shape[at] = 1  # it keeps what the input has there
            name = f"rtk.expand{number}"
            self._add(numpy_helper.from_array(shape, name))
            node.input[1] = name

    def _broadcast(self, node: onnx.NodeProto, number: int) -> None:
        """Where a constant has the same values for each image of the batch, keep those of one."""
        larger = self._larger()
        for index, name in enumerate(node.input):
            other = next((one for one in node.input if one in self._own and one not in self._constants), "")
            own, grown = self._own.get(other), larger.get(other)
            if name not in self._constants or own is None or grown is None or own == grown:
                continue
            values = numpy_helper.to_array(self._constants[name])
            at = values.ndim - len(own) + _grown(own, grown)
            if at < 0 or values.shape[at] != self._batch:
                continue
            first = np.take(values, [0], axis=at)
            if np.array_equal(np.broadcast_to(first, values.shape), values):
                self._add(numpy_helper.from_array(first, f"rtk.one{number}.{index}"))
                node.input[index] = f"rtk.one{number}.{index}"

    def _concat(self, node: onnx.NodeProto, number: int) -> list[onnx.NodeProto]:
        """Expand the constants among the inputs to the batch; return the nodes that do it."""
        fixed = [index for index, name in enumerate(node.input) if name in self._constants]
        if not fixed or len(fixed) == len(node.input):
            return []
        larger = self._larger()
        other = next(name for name in node.input if name not in self._constants)
        own, grown = self._own.get(other), larger.get(other)
        if own is None or grown is None or own == grown:
            return []
        axis, before = _grown(own, grown), list[onnx.NodeProto]()
        for index in fixed:
            values = numpy_helper.to_array(self._constants[node.input[index]])
            if values.shape[axis] != own[axis] or own[axis] != self._batch:
                continue  # a multiple of the batch would need a Tile; no exporter is known to write it
            what = f"rtk.concat{number}.{index}"
            self._add(numpy_helper.from_array(np.take(values, [0], axis=axis), f"{what}.first"))
            sizes = [np.array(values.shape[:axis], np.int64), np.array(values.shape[axis + 1 :], np.int64)]
            for part, size in zip(("before", "after"), sizes, strict=True):
                self._add(numpy_helper.from_array(size, f"{what}.{part}"))
            parts = [f"{what}.before", SIZE, f"{what}.after"]
            before += [
                helper.make_node("Concat", parts, [f"{what}.shape"], axis=0, name=f"{what}.shape"),
                helper.make_node("Expand", [f"{what}.first", f"{what}.shape"], [what], name=what),
            ]
            node.input[index], self._needs_size = what, True
            expanded = [TIMES * self._batch if k == axis else side for k, side in enumerate(values.shape)]
            self._bare.graph.input.append(helper.make_tensor_value_info(what, self._constants_type(values), expanded))
        return before

    @staticmethod
    def _constants_type(values: NDArray[np.generic]) -> int:
        return int(helper.np_dtype_to_tensor_dtype(values.dtype))

    def _add(self, tensor: onnx.TensorProto) -> None:
        for graph in (self._model.graph, self._bare.graph):
            graph.initializer.append(tensor)


def _grown(own: Shape, larger: Shape) -> int:
    """The first dimension that differs."""
    return next(axis for axis, pair in enumerate(zip(own, larger, strict=True)) if pair[0] != pair[1])


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large constants are inputs: enough to infer shapes, and small."""
    bare = onnx.ModelProto()
    bare.ir_version = 8
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = "shapes"
    bare.graph.node.extend(model.graph.node)
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= SMALL:
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return bare


def _shapes(bare: onnx.ModelProto, input_name: str, batch: int) -> dict[str, Shape]:
    """The shapes of all tensors that can be inferred completely."""
    for value in bare.graph.input:
        if value.name == input_name:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    found = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return found
