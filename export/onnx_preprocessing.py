"""rtk's preprocessing as ONNX operators, to put in front of a graph of another program.

The steps and their order are those of core/models/normalise.py. The operators are the same in all opsets from 11 to the
newest, except for the mean, whose axes became an input in opset 18.

Shapes: N images, H rows, W columns, C channels.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..core.artifacts.graph_card import INPUT_NAME
from ..core.card import Input, Preprocessing
from ..core.errors import UsageError
from ..core.models.normalise import MIN_DEVIATION, resize_factor

LOWEST_OPSET = 11
"""The first one with a Resize whose pixels are where PyTorch has them."""
PREFIX = "rtk.preprocessing"
AXES_AS_INPUT, REGION_IS_OPTIONAL = 18, 13


def check_preprocessing(preprocessing: Preprocessing, size: Input) -> None:
    """Raise UsageError for steps whose constants are not in the card, and for channels that do not fit."""
    if preprocessing.per_pixel or preprocessing.whitening:
        raise UsageError("a mean image and whitening have constants that are measured in a training; a graph has none")
    if size.channels not in (1, preprocessing.channels):
        raise UsageError(
            f"images with {size.channels} channels, and a preprocessing for {preprocessing.channels}; expected the same"
        )


class _Steps:
    """Nodes in a row, each of which reads the result of the one before."""

    def __init__(self, start: str, opset: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last, self._opset = start, opset

    def constant(self, values: NDArray[np.generic] | np.float32) -> str:
        name = f"{PREFIX}.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def apply(self, operator: str, *others: str, **attributes: Any) -> str:
        name = f"{PREFIX}.{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, [self.last, *others], [name], name=name, **attributes))
        self.last = name
        return name

    def image_mean(self) -> str:
        """The mean over pixels and channels, N x 1 x 1 x 1."""
        if self._opset >= AXES_AS_INPUT:
            return self.apply("ReduceMean", self.constant(np.array([1, 2, 3])), keepdims=1)
        return self.apply("ReduceMean", axes=[1, 2, 3], keepdims=1)


def preprocessing_nodes(
    preprocessing: Preprocessing, size: Input, *, opset: int, nhwc: bool = False
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """Return the nodes from uint8 `images` N x H x W x C to what the network takes, their constants, and the last name.

    `nhwc`: the network takes N x H x W x C, and not N x C x H x W. Raises UsageError as check_preprocessing does.
    """
    check_preprocessing(preprocessing, size)
    steps = _Steps(INPUT_NAME, opset)
    steps.apply("Cast", to=TensorProto.FLOAT)  # first: TensorRT's parser takes nothing else on uint8
    steps.apply("Transpose", perm=[0, 3, 1, 2])
    scaled = steps.apply("Div", steps.constant(np.float32(255)))
    if preprocessing.image_mean or preprocessing.image_deviation:
        mean = steps.image_mean()
        steps.last = scaled
        centred = steps.apply("Sub", mean)
        if preprocessing.image_deviation:
            steps.apply("Mul", centred)
            steps.image_mean()
            steps.apply("Sqrt")
            deviation = steps.apply("Max", steps.constant(np.float32(MIN_DEVIATION)))
            steps.last = centred if preprocessing.image_mean else scaled
            steps.apply("Div", deviation)
    if any(preprocessing.mean) or size.channels != preprocessing.channels:  # it also repeats a grey image
        steps.apply("Sub", steps.constant(np.array(preprocessing.mean, np.float32)[:, None, None]))
    if set(preprocessing.deviation) != {1.0}:
        steps.apply("Div", steps.constant(np.array(preprocessing.deviation, np.float32)[:, None, None]))
    if preprocessing.resize:
        height, width = preprocessing.resize
        factors = [1.0, 1.0, resize_factor(size.height, height), resize_factor(size.width, width)]
        region = "" if opset >= REGION_IS_OPTIONAL else steps.constant(np.zeros(0, np.float32))
        steps.apply("Resize", region, steps.constant(np.array(factors, np.float32)), mode="linear")
    if nhwc:
        steps.apply("Transpose", perm=[0, 2, 3, 1])
    return steps.nodes, steps.constants, steps.last
