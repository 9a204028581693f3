"""The options of ONNX Runtime's CUDA provider, by the precision of the graph.

They were chosen by measurement on an H100 (tools/gpu/onnxruntime_options.py). The figures are in docs/gpus.md, under
"Options of ONNX Runtime on the H100".

`cudnn_conv_algo_search`: the default, EXHAUSTIVE, runs every algorithm that cuDNN has for every convolution at every
new batch size, and chooses worse ones in the end. HEURISTIC lost to it in fp32 on batches of 64 images, and a little
in bf16; in fp32 and fp16 it won clearly on batches of 1,024.

`prefer_nhwc`: fp16 runs on tensor cores, which take channels last (NHWC); fp32 does not, without TF32.

`fuse_conv_bias` is never set: in fp32 it gave wrong logits, in fp16 without tensor cores and NHWC no convolution ran,
and what is wrong in one layout is not trusted in the other one. With tensor cores, fp16 runs with it, and faster.
"""

from ..core.artifacts.graph_card import GraphArithmetic

HEURISTIC = {"cudnn_conv_algo_search": "HEURISTIC"}
BY_PRECISION = {
    "fp32": HEURISTIC,
    "fp16": HEURISTIC | {"prefer_nhwc": "1"},
    "bf16": HEURISTIC,  # ONNX Runtime 1.31 does not open a bf16 graph with prefer_nhwc
    "int8": HEURISTIC,  # its convolutions run in fp32
}
TENSOR_CORES = ("fp16", "bf16")
"""Precisions that need tensor cores.

ONNX Runtime's option `use_tf32` means more than TF32: without it, a convolution of any type gets no algorithm on tensor
cores (onnxruntime/core/providers/cuda/nn/conv.cc). The options above were first compared without it, so in fp16 each
convolution used slower ones, or logged "No execution plans support the graph" and then took tensor cores after all.
With it, fp16 is as fast in either layout.
"""


def cuda_options(arithmetic: GraphArithmetic | None) -> dict[str, str]:
    """Return the options for a graph that computes so; None: it is unknown. Nothing in fp32 is computed in TF32."""
    if arithmetic is None:
        return {"use_tf32": "0", **HEURISTIC}
    tensor_cores = arithmetic.precision in TENSOR_CORES and arithmetic.uniform
    return {"use_tf32": str(int(tensor_cores)), **BY_PRECISION.get(arithmetic.precision, HEURISTIC)}
