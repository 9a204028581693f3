"""int8 graphs of one checkpoint by rtk, by ONNX Runtime's quantiser and by NNCF, on the same calibration images."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

from ..core.artifacts.checkpoint import Checkpoint
from ..core.artifacts.graph import set_card
from ..core.artifacts.graph_card import INPUT_NAME
from ..core.files import temporary_folder, write_whole
from ..export.config import INT8_FLAVORS, Int8Config, Int8Flavor
from ..export.int8.calibration import Calibration
from ..export.int8.quantize import int8_from_checkpoint
from ..export.to_onnx import graph_from_checkpoint

PLAIN = ("MinMax", "Entropy", "Percentile")
"""The calibration methods of ONNX Runtime's quantiser."""
NNCF = "NNCF"
NNCF_MISSING = "NNCF is not installed, its row is left out; to have it: pip install nncf"
BATCH = 100


TARGETS: tuple[Int8Flavor, ...] = ("cpu", "tensorrt")


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Batches of calibration images, as ONNX Runtime's quantiser reads them."""

    def __init__(self, images_NHWC: NDArray[np.uint8]) -> None:
        starts = range(0, len(images_NHWC), BATCH)
        self._batches = iter([{INPUT_NAME: images_NHWC[start : start + BATCH]} for start in starts])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)


def int8_graphs(
    checkpoint: Checkpoint, calibration: Calibration, folder: Path, *, targets: Collection[str] = TARGETS
) -> Iterator[tuple[str, str, Path]]:
    """Write every graph for these targets into the folder; yield its target, its name, and its path."""
    for flavor in INT8_FLAVORS:
        if ("tensorrt" if flavor == "tensorrt" else "cpu") not in targets:
            continue
        path = folder / f"rtk-{flavor}.onnx"
        int8_from_checkpoint(checkpoint, path, calibration=calibration, config=Int8Config(flavor))
        yield ("tensorrt" if flavor == "tensorrt" else "cpu"), f"rtk {flavor}", path
    graph = graph_from_checkpoint(checkpoint)
    makers: dict[tuple[Int8Flavor, str], Callable[..., onnx.ModelProto]] = {}
    for target in TARGETS:
        makers |= {(target, f"ONNX Runtime {one}"): by_onnxruntime for one in PLAIN}
    if find_spec("nncf") is not None:
        makers["cpu", NNCF] = _by_nncf
    for (target, name), make in makers.items():
        if target not in targets:
            continue
        made = make(graph, calibration.images_NHWC, name.split()[-1], target)
        notes = {"flavor": target, "weight_bits": Int8Config(target).bits}
        set_card(made, replace(checkpoint.card, precision="int8", notes={"export": notes}))
        path = folder / f"{target}-{name.replace(' ', '-')}.onnx"
        write_whole(path, made.SerializeToString())
        yield target, name, path


def by_onnxruntime(
    graph: onnx.ModelProto, images_NHWC: NDArray[np.uint8], method: str, target: Int8Flavor
) -> onnx.ModelProto:
    """Quantise with the defaults of ONNX Runtime's quantiser, but with weights per channel.

    For TensorRT also with what it needs, and for CPUs with weights of 7 bits where this machine's processor needs them.
    """
    for_tensorrt = target == "tensorrt"
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)  # the quantiser changes the graph that it is given
    with temporary_folder(None) as folder, redirect_stdout(StringIO()), _quiet_log():
        quantize_static(
            copied,
            folder / "a.onnx",
            _Images(images_NHWC),
            per_channel=True,
            activation_type=QuantType.QInt8 if for_tensorrt else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=Int8Config(target).bits == 7,
            calibrate_method=CalibrationMethod[method],
            extra_options={"ActivationSymmetric": True, "QuantizeBias": False} if for_tensorrt else {},
        )
        return onnx.load(folder / "a.onnx")


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep the quantiser's log lines off the terminal. Its first one also gives the root logger a handler."""
    level, handlers = logging.root.manager.disable, logging.root.handlers[:]
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers


def _by_nncf(
    graph: onnx.ModelProto, images_NHWC: NDArray[np.uint8], method: str, target: Int8Flavor
) -> onnx.ModelProto:
    """Quantise with NNCF's defaults, but with weights of 7 bits where this machine's processor needs them."""
    del method
    nncf: Any = import_module("nncf")
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    images = [images_NHWC[index : index + 1] for index in range(len(images_NHWC))]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        data = nncf.Dataset(images, lambda image: {INPUT_NAME: image})
        options = {}
        if Int8Config(target).bits == 7:
            fix = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
            options["advanced_parameters"] = fix
        made: onnx.ModelProto = nncf.quantize(copied, data, subset_size=len(images), **options)
    return made
