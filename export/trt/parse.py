"""A TensorRT network from an ONNX graph."""

from pathlib import Path
from typing import Any

from ...core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ...core.errors import ArtifactError
from ...core.library_errors import cleaned


def network_from_onnx(trt: Any, builder: Any, logger: Any, content: bytes, *, source: Path) -> tuple[Any, Any]:
    """Return a strongly typed network and the parser, which owns the weights of the network and must outlive it.

    Raises ArtifactError with the parser's own words if it refuses the graph, and if inputs and outputs are not rtk's.
    """
    modes = trt.NetworkDefinitionCreationFlag
    weakly_typed_by_default = hasattr(modes, "EXPLICIT_BATCH")  # TensorRT 10; later versions are always strongly typed
    network = builder.create_network(1 << int(modes.STRONGLY_TYPED) if weakly_typed_by_default else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = [_error_line(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ArtifactError(f"{source}: refused by TensorRT's parser: {'; '.join(errors) or 'it gives no reason'}")
    names = [network.get_input(k).name for k in range(network.num_inputs)]
    names += [network.get_output(k).name for k in range(network.num_outputs)]
    if names != [INPUT_NAME, OUTPUT_NAME]:
        raise ArtifactError(f"{source}: inputs and outputs {', '.join(names)}, expected {INPUT_NAME}, {OUTPUT_NAME}")
    return network, parser


def _error_line(error: Any) -> str:
    """Return the node and the reason of one parser error as one line."""
    reason = cleaned(error.desc())
    if error.node() < 0:
        return reason
    return f"node {error.node()} {error.node_name()!r} ({error.node_operator()}): {reason}"
