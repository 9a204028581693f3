"""Every graph that rtk exports for a GPU has CUDA kernels in ONNX Runtime, after ONNX Runtime has rewritten it too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fakes.cuda_kernels import without_kernel
from onnx import numpy_helper
from rtk.core.artifacts.checkpoint import Checkpoint, load_checkpoint
from rtk.export.int8.placement import LAYERS, activations, quantised_places
from rtk.export.int8.qdq import with_quantisation
from rtk.export.int8.weights import RoundedWeights, channel_scales
from rtk.export.to_onnx import graph_from_checkpoint
from rtk.infer.backend import BackendOptions
from rtk.infer.onnx_backend import session_settings

FAMILIES = [
    "resnet8v1",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet11v2", "plain8", "resnet18", "resnet18d2l")),
]
"""The smallest network of each family."""
REFUSED_IN_BF16 = {
    "resnet11v2": {"BatchNormalization-22 BFLOAT16"},
    "resnet18": {"MaxPool-22 BFLOAT16"},
    "resnet18d2l": {"MaxPool-22 BFLOAT16"},
}
"""bf16 convolutions begin in opset 22. For these operators ONNX Runtime 1.31 has no CUDA kernel in bf16."""


def rewritten(graph: onnx.ModelProto, settings: onnxruntime.SessionOptions, folder: Path) -> onnx.ModelProto:
    """The graph as ONNX Runtime rewrites it, before it assigns nodes to providers, under these settings."""
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "0")  # here there is only the CPU
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(folder / "rewritten.onnx")
    onnxruntime.InferenceSession(graph.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "rewritten.onnx")


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint_of_family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, save_untrained: Callable[..., Path]
) -> Path:
    return save_untrained(tmp_path_factory.mktemp("family") / "a.pt", arch=request.param)


def int8_graph(checkpoint: Checkpoint) -> onnx.ModelProto:
    """The int8 graph for TensorRT, with weights rounded plainly and ranges that were not measured."""
    graph = graph_from_checkpoint(checkpoint)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    weights = {}
    for node in graph.graph.node:
        if node.op_type in LAYERS:
            values = tensors[node.input[1]]
            scales_O = channel_scales(values.reshape(len(values), -1), 8)
            steps = np.round(values / scales_O.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
            weights[node.input[1]] = RoundedWeights(steps, scales_O, axis=0)
    places = quantised_places(graph, "tensorrt")
    ranges = dict.fromkeys(activations(graph, places), (-1.0, 1.0))
    return with_quantisation(graph, places, ranges, weights, symmetric=True, quantise_biases=False)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_every_node_has_a_cuda_kernel(checkpoint_of_family: Path, precision: str, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint_of_family)
    graph = int8_graph(loaded) if precision == "int8" else graph_from_checkpoint(loaded, precision)
    refused = REFUSED_IN_BF16.get(loaded.card.arch, set()) if precision == "bf16" else set()
    assert without_kernel(graph) == refused
    if precision != "bf16":  # the CPU, which rewrites the graph here, has no bf16 convolutions
        assert not without_kernel(rewritten(graph, session_settings("cuda", BackendOptions()), tmp_path))


def test_int32_biases_that_onnx_runtime_makes_have_no_cuda_kernel(checkpoint_path: Path, tmp_path: Path) -> None:
    """The settings of the CPU let ONNX Runtime make them, and on a GPU its session did not open."""
    graph = int8_graph(load_checkpoint(checkpoint_path))
    settings = session_settings("cpu", BackendOptions())
    assert without_kernel(rewritten(graph, settings, tmp_path)) == {"DequantizeLinear-20 INT32"}
