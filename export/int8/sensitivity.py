"""The cost of each layer in int8, to choose the layers that stay in fp32."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ...core.artifacts.checkpoint import Checkpoint
from ...core.tolerances import differences
from ..config import Int8Config
from ..to_onnx import graph_from_checkpoint
from .calibration import Calibration
from .placement import layer_names, not_quantised, quantised_places
from .quantize import Quantiser, quantisable_graph, reference_logits
from .ranges import logits_as_written

IMAGES = 256
"""Number of held-out images for each layer."""


@dataclass(frozen=True)
class LayerCost:
    """The error of the logits if this layer alone is quantised."""

    layer: str
    """Its name for --keep-fp32."""
    operator: str
    relative_error: float
    """Root mean square of the logit differences over the standard deviation of the reference's logits."""
    largest_difference: float


def explain(checkpoint: Checkpoint, *, calibration: Calibration, config: Int8Config | None = None) -> list[LayerCost]:
    """Quantise one layer at a time and compare the logits with PyTorch's; return the costliest layer first."""
    return _costs(graph_from_checkpoint(checkpoint), partial(reference_logits, checkpoint), calibration, config)


def explain_graph(source: Path, *, calibration: Calibration, config: Int8Config | None = None) -> list[LayerCost]:
    """As `explain`, for an imported fp32 graph: compare with its own logits. Raises ArtifactError."""
    graph, _ = quantisable_graph(source, config)
    return _costs(graph, partial(logits_as_written, graph), calibration, config)


def _costs(
    graph: onnx.ModelProto,
    reference: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    calibration: Calibration,
    config: Int8Config | None,
) -> list[LayerCost]:
    config = config or Int8Config()
    always_fp32 = not_quantised(graph)
    in_int8 = {node for node, _ in quantised_places(graph, config.flavor, keep_fp32=always_fp32)}
    layers = {layer: node for layer, node in layer_names(graph).items() if node in in_int8}
    operators = {node.name: node.op_type for node in graph.graph.node}
    quantiser = Quantiser.of(graph, config, calibration.images_NHWC)
    method = "minmax" if config.method == "auto" else config.method
    images_NHWC = calibration.held_out_NHWC[:: max(1, len(calibration.held_out_NHWC) // IMAGES)][:IMAGES]
    reference_NK = reference(images_NHWC)
    costs = []
    for layer, node in layers.items():
        alone = quantiser.quantised(method, keep_fp32=(in_int8 - {node}) | always_fp32)
        largest, relative = differences(logits_as_written(alone, images_NHWC), reference_NK)
        costs.append(LayerCost(layer, operators[node], relative, largest))
    return sorted(costs, key=lambda cost: -cost.relative_error)
