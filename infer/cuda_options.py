"""The options of ONNX Runtime's CUDA provider, by the precision of the graph.

Measured on an H100 with ONNX Runtime 1.31.1, CUDA 13 and cuDNN 9.19 (tools/gpu/onnxruntime_options.py): resnet20v1 on
batches of 1,024 images, in images per second from the host, and with the images on the GPU.

                                                     fp32                  fp16
    ONNX Runtime's defaults                  135,541 | 147,080     105,096 | 109,185
    cudnn_conv_algo_search HEURISTIC         158,643 | 170,927     222,845 | 244,103
    prefer_nhwc                               62,465 |  64,373      41,747 |  42,746
    prefer_nhwc and HEURISTIC                 62,032 |  63,911     284,833 | 314,382
    prefer_nhwc and fuse_conv_bias            61,300 |  63,045     365,479 | 416,650
    fuse_conv_bias                            wrong logits         an error

The default, EXHAUSTIVE, runs every algorithm that cuDNN has for every convolution at every new batch size, and chooses
worse ones in the end. fp16 runs on tensor cores, which take channels last (NHWC); fp32 does not, without TF32. On
batches of 64 images HEURISTIC is slower in fp32 by a seventh (76,743 against 88,864 images per second), and nearly
twice as fast with NHWC in fp16 (104,577 against 53,245).

`fuse_conv_bias` is never set: in fp32 a logit was wrong by 120, in fp16 without NHWC no convolution ran, and what is
wrong in one layout is not trusted in the other one. (With tensor cores, fp16 runs with it: 461,894 | 566,939.)
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
cores (onnxruntime/core/providers/cuda/nn/conv.cc). The figures above were measured without it, so in fp16 each
convolution used slower ones, or logged "No execution plans support the graph" and then took tensor cores after all.
With it, fp16 has 286,113 | 318,065 images per second (289,238 | 323,258 in NCHW), and bf16 236,500 | 261,701.
"""


def cuda_options(arithmetic: GraphArithmetic | None) -> dict[str, str]:
    """Return the options for a graph that computes so; None: it is unknown. Nothing in fp32 is computed in TF32."""
    if arithmetic is None:
        return {"use_tf32": "0", **HEURISTIC}
    tensor_cores = arithmetic.precision in TENSOR_CORES and arithmetic.uniform
    return {"use_tf32": str(int(tensor_cores)), **BY_PRECISION.get(arithmetic.precision, HEURISTIC)}
