"""The reference of parity: PyTorch on a checkpoint; for an imported graph, that graph in ONNX Runtime on the CPU, fp32.

Shapes: N images, H rows, W columns, C channels, K classes.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.artifacts.graph import load_graph
from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ..core.tolerances import PRECISIONS
from ..export.half_graph import rounded_results
from ..export.reduced_precision import HALVES
from ..infer.backend import BackendOptions
from ..infer.onnx_backend import OnnxBackend, open_session

BATCH = 64


class GraphReference(OnnxBackend):
    """Runs an imported graph, and measures what rounding does to it."""

    def __init__(self, graph: Path, options: BackendOptions) -> None:
        super().__init__(graph, BackendOptions(device="cpu", threads=options.threads, steady=options.steady))
        self._path = graph

    def _rounding(self, images_NHWC: NDArray[np.uint8]) -> float:
        """Return how far its logits are from those without ONNX Runtime's optimisations, which sum in another order.

        Nothing computes any graph in fp64, so this stands for the difference from exact logits.
        """
        session = open_session(self._path, BackendOptions(device="cpu"), optimised=False)
        return float(np.abs(self(images_NHWC) - _logits(session, images_NHWC)).max())

    def _rounded(self, images_NHWC: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        assert precision in PRECISIONS
        rounded = rounded_results(load_graph(self._path)[0], HALVES[precision])
        return _logits(open_session(rounded.SerializeToString(), BackendOptions(device="cpu")), images_NHWC)


def _logits(session: object, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    starts = range(0, len(images_NHWC), BATCH)
    return np.concatenate(
        [session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC[at : at + BATCH]})[0] for at in starts]  # type: ignore[attr-defined]
    )
