"""int8 graphs by ONNX Runtime's own quantiser, with its own calibration: a second quantiser besides rtk's."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from ..core.artifacts.graph_card import INPUT_NAME


class _Images(CalibrationDataReader):  # type: ignore[misc] # the library has no types
    def __init__(self, images_NHWC: NDArray[np.uint8]) -> None:
        self._batches = iter(np.array_split(images_NHWC, max(1, len(images_NHWC) // 100)))

    def get_next(self) -> Any:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def plainly_quantised(
    graph: onnx.ModelProto, images_NHWC: NDArray[np.uint8], *, method: CalibrationMethod = CalibrationMethod.MinMax
) -> onnx.ModelProto:
    """The graph with uint8 activations and int8 weights per channel, calibrated on the images."""
    handlers, level = logging.root.handlers[:], logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, made = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
            onnx.save(graph, source)
            quantize_static(
                source,
                made,
                _Images(images_NHWC),
                per_channel=True,
                calibrate_method=method,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["Conv", "Gemm", "Add"],
            )
            return onnx.load(made)
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers
