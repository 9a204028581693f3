"""The data types of an engine's layers, counted in the parsed network and in the output of the engine inspector."""

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
"""Members of TensorRT's DataType, with their names in rtk."""
PASS_THROUGH = ("SHUFFLE", "IDENTITY")
"""Layers that move numbers without computing: a quantised matrix may be transposed before the product."""
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
"""Patterns for the inspector's tensor types; the first match counts: "bfloat16" contains "float16" and "float"."""
INSPECTOR_KEYS = ("DataType", "Datatype", "Format/Datatype", "Format/DataType")
"""Keys of a tensor's type in the inspector's JSON: TensorRT 10 (format and type in one value) and 11 (separate)."""


def precision_of_network(network: Any) -> PrecisionAsBuilt:
    """Count the data types in a parsed, strongly typed network, where each layer runs in the type of its tensors.

    A convolution or matrix product whose data and weights both come from dequantised int8 counts as int8: its tensors
    are float in the parsed network, but the builder fuses them away.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producer = {layer.get_output(k).name: layer for layer in layers for k in range(layer.num_outputs)}
    products, others = Counter[str](), Counter[str]()
    for layer in layers:
        if layer.type.name in ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"):
            products[_product_type(layer, producer)] += 1
        elif layer.type.name != "CONSTANT" and layer.num_outputs:
            others[_type_name(layer.get_output(0))] += 1
    label = "+".join(name for name, _ in products.most_common()) or "none"
    return PrecisionAsBuilt(label, dict(products.most_common()), dict((products + others).most_common()))


def layers_of_engine(engine: Any, trt: Any) -> dict[str, int]:
    """Count the layers of a loaded engine for each data type of their first output; empty without detailed layers."""
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return layers_of_inspector(text)


def layers_of_inspector(text: str) -> dict[str, int]:
    """Count the layers for each data type in the engine inspector's JSON; empty when it has only layer names."""
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


def _product_type(layer: Any, producer: dict[str, Any]) -> str:
    fed_by = [layer.get_input(k) for k in range(min(layer.num_inputs, 2))]
    dequantised = [_dequantised(tensor, producer) for tensor in fed_by if tensor is not None]
    if dequantised and len(set(dequantised)) == 1 and dequantised[0]:
        return dequantised[0]
    return _type_name(fed_by[0])


def _dequantised(tensor: Any, producer: dict[str, Any]) -> str:
    """Return the type before the DequantizeLinear that makes this tensor; empty when another layer makes it."""
    layer = producer.get(tensor.name)
    while layer is not None and layer.type.name in PASS_THROUGH:
        layer = producer.get(layer.get_input(0).name)
    return _type_name(layer.get_input(0)) if layer is not None and layer.type.name == "DEQUANTIZE" else ""


def _type_name(tensor: Any) -> str:
    name = str(tensor.dtype.name)
    return TYPE_NAMES.get(name, name.lower())
