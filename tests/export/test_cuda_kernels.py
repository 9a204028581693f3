"""Every graph that rtk exports for a GPU has CUDA kernels in ONNX Runtime, after ONNX Runtime has rewritten it too."""

from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
from fakes.cuda_kernels import without_kernel
from rtk.core.artifacts.checkpoint import Checkpoint, load_checkpoint
from rtk.core.probe import probe_images
from rtk.export.config import Int8Config
from rtk.export.int8.quantize import Quantiser
from rtk.export.to_onnx import graph_from_checkpoint
from rtk.infer.backend import BackendOptions
from rtk.infer.onnx_backend import session_settings

ARCHITECTURES = ("resnet8v1", "resnet11v2", "plain8", "resnet18", "resnet18d2l")
"""One of each family."""
MAX_POOL_BF16 = {"MaxPool-22 BFLOAT16"}
"""bf16 convolutions begin in opset 22, and ONNX Runtime 1.31 has no CUDA kernel for a MaxPool of that opset."""


def rewritten(graph: onnx.ModelProto, settings: onnxruntime.SessionOptions, folder: Path) -> onnx.ModelProto:
    """The graph as ONNX Runtime rewrites it, before it assigns nodes to providers, under these settings."""
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "0")  # here there is only the CPU
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(folder / "rewritten.onnx")
    onnxruntime.InferenceSession(graph.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "rewritten.onnx")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def checkpoint_of_family(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, save_untrained: Callable[..., Path]
) -> Path:
    return save_untrained(tmp_path_factory.mktemp("family") / "a.pt", arch=request.param)


def int8_graph(checkpoint: Checkpoint) -> onnx.ModelProto:
    """The int8 graph for TensorRT, with ranges measured on a few images."""
    images_NHWC = probe_images(32, checkpoint.card.input)
    quantiser = Quantiser.of(graph_from_checkpoint(checkpoint), Int8Config("tensorrt"), images_NHWC)
    return quantiser.quantised("minmax", keep_fp32=())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_every_node_has_a_cuda_kernel(checkpoint_of_family: Path, precision: str, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint_of_family)
    graph = int8_graph(loaded) if precision == "int8" else graph_from_checkpoint(loaded, precision)
    pools = any(node.op_type == "MaxPool" for node in graph.graph.node)
    assert without_kernel(graph) == (MAX_POOL_BF16 if pools and precision == "bf16" else set())
    if precision != "bf16":  # the CPU, which rewrites the graph here, has no bf16 convolutions
        assert not without_kernel(rewritten(graph, session_settings("cuda", BackendOptions()), tmp_path))


def test_int32_biases_that_onnx_runtime_makes_have_no_cuda_kernel(checkpoint_path: Path, tmp_path: Path) -> None:
    """The settings of the CPU let ONNX Runtime make them, and on a GPU its session did not open."""
    graph = int8_graph(load_checkpoint(checkpoint_path))
    settings = session_settings("cpu", BackendOptions())
    assert without_kernel(rewritten(graph, settings, tmp_path)) == {"DequantizeLinear-20 INT32"}
