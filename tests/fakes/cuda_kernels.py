"""The operators for which ONNX Runtime's CUDA provider has kernels, as far as rtk's graphs use operators.

Asked of the provider itself, onnxruntime-gpu 1.31.1: each entry is a graph of one node that it opened, without
optimisations, while the fallback to the CPU was disabled, in opsets 20 to 23; the CUDA libraries behind it were
stand-ins, because a provider chooses its nodes without computing anything. What is not listed was refused.
"""

import onnx
from onnx import TensorProto, shape_inference

FLOATS = {"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"}
ANY = FLOATS | {"INT32", "INT64", "INT8", "UINT8", "BOOL"}
KERNELS: dict[str, set[str]] = {
    "Add": ANY - {"BOOL"},
    "BatchNormalization": FLOATS - {"BFLOAT16"},
    "Cast": ANY,
    "Conv": FLOATS,
    "DequantizeLinear": {"INT8", "UINT8"},  # no INT32: biases stay in fp32
    "Div": ANY - {"BOOL"},
    "Flatten": ANY,
    "Gemm": FLOATS,
    "GlobalAveragePool": FLOATS - {"BFLOAT16"},
    "Identity": ANY,
    "MaxPool": (FLOATS - {"BFLOAT16"}) | {"INT8", "UINT8"},
    "Mul": ANY - {"BOOL"},
    "QuantizeLinear": {"FLOAT"},
    "ReduceMean": FLOATS | {"INT32"},
    "Relu": FLOATS,
    "Reshape": ANY,
    "Sub": ANY - {"BOOL"},
    "Transpose": ANY,
}
"""By operator: the types of its first input."""
OPSETS = range(20, 24)
LAST_OPSET = {"MaxPool": 21}
"""The last opset in which there is a kernel; for the others it is the last of OPSETS."""
FIRST_OPSET = {("Conv", "BFLOAT16"): 22}
"""The first opset with a kernel for that type; for the others it is the first of OPSETS."""
QUANTISED = {"INT8", "UINT8"}
"""Types that QuantizeLinear can make."""


def without_kernel(graph: onnx.ModelProto) -> set[str]:
    """Return the nodes of the graph that the CUDA provider refuses, as operator, opset and type of the first input."""
    (opset,) = [one.version for one in graph.opset_import if one.domain == ""]
    assert opset in OPSETS
    inferred = shape_inference.infer_shapes(graph, strict_mode=True).graph
    types = {one.name: one.type.tensor_type.elem_type for one in (*inferred.value_info, *inferred.input)}
    types |= {one.name: one.type.tensor_type.elem_type for one in inferred.output}
    types |= {one.name: one.data_type for one in inferred.initializer}
    refused = set()
    for node in graph.graph.node:
        operator, name = node.op_type, TensorProto.DataType.Name(types[node.input[0]])
        known = name in KERNELS.get(operator, set()) and node.domain == ""
        in_range = FIRST_OPSET.get((operator, name), OPSETS[0]) <= opset <= LAST_OPSET.get(operator, OPSETS[-1])
        made = TensorProto.DataType.Name(types[node.output[0]])
        if not known or not in_range or (operator == "QuantizeLinear" and made not in QUANTISED):
            refused.add(f"{operator}-{opset} {name}")
    return refused
