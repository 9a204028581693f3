"""What each layer costs in int8, so that one sees which to keep in fp32."""

from dataclasses import dataclass

from ...core.artifacts.checkpoint import Checkpoint
from ...core.tolerances import differences
from ..to_onnx import graph_of
from .calibration import Calibration
from .quantize import Int8Config, layer_names, logits_as_written, quantised, ranges_by, reference_logits
from .ranges import histograms

IMAGES = 256
"""Held-out images that every layer is judged on."""


@dataclass(frozen=True)
class LayerCost:
    """A layer, and what quantising it and nothing else does to the logits."""

    layer: str
    """The name that --keep-fp32 takes."""
    operator: str
    relative_error: float
    """Root mean square of the logits' differences over the standard deviation of the reference's."""
    largest_difference: float


def explain(checkpoint: Checkpoint, *, calibration: Calibration, config: Int8Config | None = None) -> list[LayerCost]:
    """Quantise one layer at a time and compare logits with PyTorch's; the costliest layer first."""
    config = config or Int8Config()
    graph = graph_of(checkpoint)
    layers = layer_names(graph)
    operators = {node.name: node.op_type for node in graph.graph.node}
    counted = histograms(graph, calibration.images_NHWC)
    ranges = ranges_by("minmax" if config.method == "auto" else config.method, counted, config)
    images_NHWC = calibration.held_out_NHWC[:: max(1, len(calibration.held_out_NHWC) // IMAGES)][:IMAGES]
    reference_NK = reference_logits(checkpoint, images_NHWC)
    costs = []
    for layer, node in layers.items():
        alone = quantised(graph, ranges, config, kept=[other for other in layers.values() if other != node])
        largest, relative = differences(logits_as_written(alone, images_NHWC), reference_NK)
        costs.append(LayerCost(layer, operators[node], relative, largest))
    return sorted(costs, key=lambda cost: -cost.relative_error)
