"""Which data types an engine computes in: counted in the parsed network, and in what the engine inspector tells."""

import json
import re
from collections import Counter
from typing import Any

from ..artifacts.engine import PrecisionAsBuilt

TYPE_NAMES = {
    "FLOAT": "fp32",
    "HALF": "fp16",
    "BF16": "bf16",
    "INT8": "int8",
    "FP8": "fp8",
    "FP4": "fp4",
    "INT4": "int4",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
"""TensorRT's DataType members, by the names that rtk uses."""
SEEN_THROUGH = ("SHUFFLE", "IDENTITY")
"""Layers that move numbers without computing: a quantised matrix may be turned on its way to the product."""
INSPECTOR_TYPES = (
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half|float16", re.IGNORECASE)),
    ("fp8", re.compile(r"fp8", re.IGNORECASE)),
    ("uint8", re.compile(r"uint8", re.IGNORECASE)),
    ("int8", re.compile(r"int8", re.IGNORECASE)),
    ("int32", re.compile(r"int32", re.IGNORECASE)),
    ("int64", re.compile(r"int64", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float", re.IGNORECASE)),
)
"""Of the inspector's words for a tensor's type, the first that fits; "bfloat16" also holds "float16" and "float"."""
INSPECTOR_KEYS = ("DataType", "Datatype", "Format/Datatype", "Format/DataType")
"""Where the inspectors of TensorRT 10 (format and type in one) and 11 (apart) tell a tensor's type."""


def precision_of_network(network: Any) -> PrecisionAsBuilt:
    """The data types of a parsed, strongly typed network: each layer runs in the type of its tensors.

    A convolution or matrix product whose data and weights both come from dequantised int8 counts as int8: the parsed
    network still calls its tensors float, the builder fuses them away.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    maker = {layer.get_output(k).name: layer for layer in layers for k in range(layer.num_outputs)}
    products, others = Counter[str](), Counter[str]()
    for layer in layers:
        if layer.type.name in ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"):
            products[_product_type(layer, maker)] += 1
        elif layer.type.name != "CONSTANT" and layer.num_outputs:
            others[_type_name(layer.get_output(0))] += 1
    label = "+".join(name for name, _ in products.most_common()) or "none"
    return PrecisionAsBuilt(label, dict(products.most_common()), dict((products + others).most_common()))


def layers_of_engine(engine: Any, trt: Any) -> dict[str, int]:
    """The layers of a loaded engine per data type of their first output; empty when the inspector does not tell."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_of_inspector(text)


def layers_of_inspector(text: str) -> dict[str, int]:
    """Count the layers per data type in the engine inspector's JSON; empty when it names layers only."""
    try:
        layers = json.loads(text).get("Layers", [])
    except (json.JSONDecodeError, AttributeError):
        return {}
    counts = Counter[str]()
    for layer in layers:
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        words = [str(outputs[0][key]) for key in INSPECTOR_KEYS if key in outputs[0]] if outputs else []
        name = next((name for name, pattern in INSPECTOR_TYPES for word in words if pattern.search(word)), None)
        if name:
            counts[name] += 1
    return dict(counts.most_common())


def _product_type(layer: Any, maker: dict[str, Any]) -> str:
    fed_by = [layer.get_input(k) for k in range(min(layer.num_inputs, 2))]
    dequantised = [_dequantised(tensor, maker) for tensor in fed_by if tensor is not None]
    if dequantised and len(set(dequantised)) == 1 and dequantised[0]:
        return dequantised[0]
    return _type_name(fed_by[0])


def _dequantised(tensor: Any, maker: dict[str, Any]) -> str:
    """The type before the DequantizeLinear that makes this tensor; empty when something else makes it."""
    layer = maker.get(tensor.name)
    while layer is not None and layer.type.name in SEEN_THROUGH:
        layer = maker.get(layer.get_input(0).name)
    return _type_name(layer.get_input(0)) if layer is not None and layer.type.name == "DEQUANTIZE" else ""


def _type_name(tensor: Any) -> str:
    name = str(tensor.dtype.name)
    return TYPE_NAMES.get(name, name.lower())
