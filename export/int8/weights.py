"""Weights in int8, rounded so that the results of a layer change least, not the weights themselves.

Each output channel has its own scale, which its largest weight fixes. The weights of a channel are rounded one after
the other, and the weights that are not rounded yet make up for the error: how, follows from the second moments of the
layer's inputs on the calibration images. This is GPTQ (E. Frantar and others, arXiv 2210.17323). For a trained
resnet20v1 the error that eight bits in the weights add to the logits falls to a third of that of plain rounding, and
seven bits are closer than eight bits with plain rounding.

Shapes: O output channels, G groups of a grouped convolution, D inputs of one output (channels x kernel), S samples,
B weights of a block; N images, C channels, H rows, W columns.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ...core.artifacts.graph_card import INPUT_NAME
from .placement import LAYERS
from .ranges import BATCH, session_as_written, with_outputs

POSITIONS = 16
"""Number of places in each image at which the inputs of a convolution are sampled."""
DAMPING = 0.01
"""Added to the diagonal of the second moments, as a share of its mean; GPTQ's own value."""
BLOCK = 128
"""Number of weights after which all later ones are corrected, in one product of matrices."""


@dataclass(frozen=True)
class RoundedWeights:
    """The weights of one layer in int8."""

    values: NDArray[np.int8]
    """In the shape of the weights."""
    scales_O: NDArray[np.float32]
    axis: int
    """The axis of the output channels."""


def rounded_weights(
    graph: onnx.ModelProto, nodes: Collection[str], images_NHWC: NDArray[np.uint8], *, bits: int
) -> dict[str, RoundedWeights]:
    """Return the weights of these convolutions and dense layers in int8, by the name of the weights."""
    layers = [node for node in graph.graph.node if node.name in nodes and node.op_type in LAYERS]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    moments = second_moments(graph, layers, images_NHWC)
    rounded = {}
    for node in layers:
        values, axis = weights[node.input[1]], _channel_axis(node)
        moved = np.moveaxis(values, axis, 0)
        scales_O = channel_scales(moved.reshape(len(moved), -1), bits)
        moments_GDD = moments[node.name]
        parts = zip(
            np.array_split(moved.reshape(len(moved), -1), len(moments_GDD)),
            np.array_split(scales_O, len(moments_GDD)),
            moments_GDD,
            strict=True,
        )
        found_OD = np.concatenate([rounded_with_compensation(*part, bits=bits) for part in parts])
        rounded[node.input[1]] = RoundedWeights(np.moveaxis(found_OD.reshape(moved.shape), 0, axis), scales_O, axis)
    return rounded


def channel_scales(weights_OD: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Return the step between two values of each output channel."""
    largest_O = np.abs(weights_OD).max(axis=1)
    scales_O: NDArray[np.float32] = (np.where(largest_O > 0, largest_O, 1) / _largest_value(bits)).astype(np.float32)
    return scales_O


def rounded_with_compensation(
    weights_OD: NDArray[np.float32], scales_O: NDArray[np.float32], moments_DD: NDArray[np.float64], *, bits: int
) -> NDArray[np.int8]:
    """Round the weights of one input after the other, in the order of the inputs' moments, the largest first.

    After each of them the weights that are not rounded yet change, so that they make up for its error.
    """
    limit = _largest_value(bits)
    damped_DD = moments_DD + (DAMPING * np.diag(moments_DD).mean() + 1e-12) * np.eye(len(moments_DD))
    order_D = np.argsort(-np.diag(damped_DD), kind="stable")
    effect_DD = np.linalg.cholesky(np.linalg.inv(damped_DD[np.ix_(order_D, order_D)])).T
    left_DO = weights_OD.T[order_D].astype(np.float64)
    values_DO = np.zeros(left_DO.shape, np.int8)
    for start in range(0, len(left_DO), BLOCK):
        end = min(start + BLOCK, len(left_DO))
        errors_BO = np.empty((end - start, left_DO.shape[1]))
        for at in range(start, end):
            values_DO[at] = np.clip(np.round(left_DO[at] / scales_O), -limit, limit)
            errors_BO[at - start] = (left_DO[at] - values_DO[at] * scales_O) / effect_DD[at, at]
            left_DO[at + 1 : end] -= np.outer(effect_DD[at, at + 1 : end], errors_BO[at - start])
        left_DO[end:] -= effect_DD[start:end, end:].T @ errors_BO
    result_DO = np.empty_like(values_DO)
    result_DO[order_D] = values_DO
    return np.ascontiguousarray(result_DO.T)


def second_moments(
    graph: onnx.ModelProto, layers: Collection[onnx.NodeProto], images_NHWC: NDArray[np.uint8]
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of x times x transposed, G x D x D, over sampled inputs x of each layer in fp32, by node."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    names = list(dict.fromkeys(node.input[0] for node in layers))
    session, random = session_as_written(with_outputs(graph, names)), np.random.default_rng(0)
    totals: dict[str, NDArray[np.float64]] = {}
    counts = dict.fromkeys((node.name for node in layers), 0)
    for start in range(0, len(images_NHWC), BATCH):
        outputs = session.run(names, {INPUT_NAME: images_NHWC[start : start + BATCH]})
        values = dict(zip(names, outputs, strict=True))
        for node in layers:
            inputs = values[node.input[0]]
            samples_GSD = _samples(node, shapes[node.input[1]], inputs, random)
            products_GDD = (samples_GSD.transpose(0, 2, 1) @ samples_GSD).astype(np.float64)
            totals[node.name] = totals.get(node.name, 0) + products_GDD
            counts[node.name] += samples_GSD.shape[1]
    return {name: total / counts[name] for name, total in totals.items()}


def _samples(
    node: onnx.NodeProto, shape: tuple[int, ...], inputs: NDArray[np.float32], random: np.random.Generator
) -> NDArray[np.float32]:
    """Return inputs of a layer with weights of this shape, G x S x D: one group, but those of grouped convolutions."""
    if node.op_type != "Conv":
        return inputs.reshape(1, -1, inputs.shape[-1])
    groups = inputs.shape[1] // shape[1]
    samples = _patches(node, shape, inputs, random)
    return np.ascontiguousarray(samples.reshape(len(samples), groups, -1).transpose(1, 0, 2))


def _patches(
    node: onnx.NodeProto,
    shape: tuple[int, ...],
    inputs_NCHW: NDArray[np.float32],
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """Return what a convolution with weights of this shape multiplies them with, at places drawn at random.

    The result is S x GD: each row has the inputs of all groups, one after the other.
    """
    given = {one.name: list(one.ints) for one in node.attribute}
    (stride_h, stride_w), (step_h, step_w) = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    top, left, bottom, right = given.get("pads", [0, 0, 0, 0])
    padded = np.pad(inputs_NCHW, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel_h, kernel_w = shape[2:]
    rows = (padded.shape[2] - step_h * (kernel_h - 1) - 1) // stride_h + 1
    columns = (padded.shape[3] - step_w * (kernel_w - 1) - 1) // stride_w + 1
    places = random.choice(rows * columns, min(POSITIONS, rows * columns), replace=False)
    row = places[:, None, None] // columns * stride_h + step_h * np.arange(kernel_h)[:, None]
    column = places[:, None, None] % columns * stride_w + step_w * np.arange(kernel_w)
    patches = padded[:, :, row, column].transpose(0, 2, 1, 3, 4)
    return patches.reshape(-1, padded.shape[1] * kernel_h * kernel_w)


def _channel_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the output channels in the weights of a layer."""
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _largest_value(bits: int) -> int:
    return 2 ** (bits - 1) - 1
