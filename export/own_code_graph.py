"""Trace models whose network has code outside of rtk, and find where the network begins in their graphs."""

import warnings

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..core.errors import UsageError
from ..core.library_errors import reason_of
from ..core.models.model import Model
from .reduced_precision import Half


class Marked(nn.Module):
    """A model that rounds its normalised pixels to a 16-bit precision: that marks the place in the graph."""

    def __init__(self, model: Model, half: Half) -> None:
        super().__init__()
        self.normalise, self.network = model.normalise, model.network
        self.takes_contiguous = model.takes_contiguous
        self.torch_type = half.torch_type

    def forward(self, images_NHWC: Tensor) -> Tensor:
        x_NCHW = self.normalise(images_NHWC)
        return Model.logits_of_pixels(self, x_NCHW.to(self.torch_type).to(x_NCHW.dtype))  # type: ignore[arg-type]


def traced_program(model: nn.Module, images_NHWC: NDArray[np.uint8], *, arch: str) -> ExportedProgram:
    """Trace a model for any number of images. Raises UsageError, which names `arch`, if PyTorch cannot.

    First the code runs once and its operations are recorded. Where it reads the number of images as a plain number, as
    `len(x)` does, PyTorch reads the code itself instead.
    """
    arguments, shapes = (torch.from_numpy(images_NHWC),), ({0: torch.export.Dim("batch")},)
    problems: list[Exception] = []
    for strict in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return torch.export.export(model, arguments, dynamic_shapes=shapes, strict=strict)
            except Exception as error:  # the user's own code and PyTorch's compiler may raise anything
                problems.append(error)
    if "specialized" in str(problems[0]):
        reason = "its code works for one number of images only; read it as x.shape[0], not as a plain number"
    else:
        reason = f"{type(problems[0]).__name__}: {reason_of(problems[0])}"
    raise UsageError(f"{arch}: PyTorch cannot export the network: {reason}") from problems[0]


def without_mark(graph: onnx.ModelProto, half: Half) -> tuple[onnx.ModelProto, str]:
    """Return the graph of a Marked model without the mark, and the name of the normalised pixels."""
    into = next(n for n in graph.graph.node if n.op_type == "Cast" and n.attribute[0].i == half.onnx_type)
    back = next(n for n in graph.graph.node if n.op_type == "Cast" and n.input[0] == into.output[0])
    assert back.attribute[0].i == TensorProto.FLOAT
    start = into.input[0]
    result = onnx.ModelProto()
    result.CopyFrom(graph)
    del result.graph.node[:], result.graph.value_info[:]
    for node in graph.graph.node:
        if node.output[0] not in (into.output[0], back.output[0]):
            copied = result.graph.node.add()
            copied.CopyFrom(node)
            copied.input[:] = [start if name == back.output[0] else name for name in node.input]
    return result, start
