"""The openvino backend: a graph in OpenVINO on the CPU, in bf16 and int8 too where the processor has them.

OpenVINO computes in bf16 by itself where it is fast, and takes a hint that the processor cannot follow without a word.
So the hint is always given, the device is asked before, and the compiled model after.
"""

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from ..core.artifacts.graph import load_graph
from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ..core.card import ModelCard
from ..core.errors import ArtifactError, BackendError
from ..core.machine import usable_cores
from ..core.text import one_line
from .backend import Backend, BackendOptions

DEVICE = "CPU"
HINTS = {"fp32": openvino.Type.f32, "fp16": openvino.Type.f16, "bf16": openvino.Type.bf16}
CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}


class OpenVinoBackend(Backend):
    """Runs a graph of rtk's."""

    name = "openvino"

    def __init__(self, graph: Path, options: BackendOptions) -> None:
        if options.device not in ("auto", "cpu"):
            raise BackendError(f"openvino: --device {options.device}: it runs on the CPU only")
        _, card = load_graph(graph)
        core = openvino.Core()
        capable = [str(one) for one in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")]
        computes_in = _arithmetic(card, options, capable)
        threads = options.threads or usable_cores()
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[computes_in],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._model = core.compile_model(core.read_model(graph), DEVICE, settings)
        except RuntimeError as error:
            raise ArtifactError(f"{graph}: refused by OpenVINO: {one_line(error)}") from error
        followed = self._model.get_property("INFERENCE_PRECISION_HINT")
        if followed != HINTS[computes_in]:
            raise BackendError(f"openvino: asked to compute in {computes_in}, it computes in {followed.to_string()}")
        self._request = self._model.create_infer_request()
        self.card: ModelCard = card
        self.precision = options.hint or card.precision
        self.device = "cpu"
        where = f"{core.get_property(DEVICE, 'FULL_DEVICE_NAME')}, {threads} threads"
        what = _words(card, options, computes_in)
        self.runs_on = f"OpenVINO {openvino.__version__.split('-')[0]}, {where}, {what}"

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            answer = self._request.infer({INPUT_NAME: images_NHWC}, share_inputs=True)
        except RuntimeError as error:
            raise BackendError(f"openvino: {one_line(error)}") from error
        logits_NK: NDArray[np.float32] = np.array(answer[OUTPUT_NAME], np.float32)  # the request's buffer is reused
        return logits_NK

    def close(self) -> None:
        """Drop the compiled model."""
        self._request = self._model = None


def processor_computes_in(precision: str) -> bool:
    """Whether OpenVINO says that this processor computes in that precision."""
    capable = openvino.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    return CAPABILITIES[precision] in [str(one) for one in capable]


def _arithmetic(card: ModelCard, options: BackendOptions, capable: list[str]) -> str:
    """The precision of the floating-point arithmetic to ask for. Raises BackendError for a hint nothing follows."""
    if options.hint is None:
        wanted = card.precision if card.precision in HINTS else "fp32"
        return wanted if CAPABILITIES[wanted] in capable else "fp32"
    if options.hint not in HINTS or card.precision != "fp32":
        raise BackendError(
            f"openvino: a hint of {options.hint} for a graph in {card.precision}: expected fp32, fp16 or bf16 for one "
            "in fp32"
        )
    if CAPABILITIES[options.hint] not in capable:
        raise BackendError(f"openvino: {options.hint}: this processor computes in {', '.join(capable)} only")
    return options.hint


def _words(card: ModelCard, options: BackendOptions, computes_in: str) -> str:
    if options.hint:
        return f"{computes_in} by a hint to its runtime"
    if card.precision in (computes_in, "int8"):
        return card.precision
    return f"{card.precision} graph computed in {computes_in}, which this processor has instead"
