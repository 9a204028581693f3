"""The openvino backend: a graph in OpenVINO on the CPU, also in bf16 and int8 if the processor supports them.

OpenVINO chooses bf16 without being asked if it is fast, and silently ignores a hint that the processor cannot follow.
So this backend always gives the hint, asks the device before, and asks the compiled model afterwards.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.artifacts.graph import load_graph
from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ..core.card import ModelCard
from ..core.environment import without_openvino_telemetry
from ..core.errors import ArtifactError, BackendError
from ..core.library_errors import reason_of
from ..core.machine import onednn_limit, this_machine, usable_cores
from .backend import Backend, BackendOptions, overflows_here

with without_openvino_telemetry():
    import openvino

DEVICE = "CPU"
HINTS = {"fp32": openvino.Type.f32, "fp16": openvino.Type.f16, "bf16": openvino.Type.bf16}
CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}
FEATURES = {"FP16": {"avx512_fp16", "amx_fp16"}, "BF16": {"avx512_bf16", "amx_bf16"}}
"""Processor features of which a capability needs one."""


class OpenVinoBackend(Backend):
    """Runs a graph that rtk exported."""

    name = "openvino"

    def __init__(self, graph: Path, options: BackendOptions) -> None:
        if options.device not in ("auto", "cpu"):
            raise BackendError(f"openvino: --device {options.device}: it runs on the CPU only")
        _, card = load_graph(graph)
        if overflows_here(card):
            raise BackendError(
                f"openvino: {graph}: its int8 weights have {card.weight_bits} bits, which overflow on this processor: "
                "it has no VNNI; expected 7 bits; export it with --int8-weight-bits 7, or run it with --backend onnx"
            )
        core = openvino.Core()
        capable = capabilities(core)
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
            raise ArtifactError(f"{graph}: OpenVINO rejects it: {reason_of(error)}") from error
        followed = self._model.get_property("INFERENCE_PRECISION_HINT")
        if followed != HINTS[computes_in]:
            raise BackendError(f"openvino: computes in {followed.to_string()} although {computes_in} was requested")
        self._request = self._model.create_infer_request()
        self.card: ModelCard = card
        self.precision = options.hint or card.precision
        self.device = "cpu"
        where = f"{core.get_property(DEVICE, 'FULL_DEVICE_NAME')}, {threads} {'thread' if threads == 1 else 'threads'}"
        precision = _precision_text(card, options, computes_in)
        self.runs_on = f"OpenVINO {openvino.__version__.split('-')[0]}, {where}, {precision}"

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        answer = self._request.infer({INPUT_NAME: images_NHWC}, share_inputs=True)
        # A copy: the next call overwrites the request's buffer.
        logits_NK: NDArray[np.float32] = np.array(answer[OUTPUT_NAME], np.float32)
        return logits_NK

    def _free(self) -> None:
        """Free the compiled model."""
        self._request = self._model = None


def processor_computes_in(precision: str) -> bool:
    """Whether this processor computes in that precision, according to OpenVINO and ONEDNN_MAX_CPU_ISA."""
    return CAPABILITIES[precision] in capabilities(openvino.Core())


def capabilities(core: openvino.Core) -> list[str]:
    """What this processor can do: FP32, INT8, BF16, ...

    OpenVINO reads it from the processor. It crashes in bf16 if ONEDNN_MAX_CPU_ISA forbids its kernels the instructions.
    """
    listed = [str(one) for one in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")]
    if not onednn_limit():
        return listed
    allowed = set(this_machine().features)
    return [one for one in listed if one not in FEATURES or FEATURES[one] & allowed]


def _arithmetic(card: ModelCard, options: BackendOptions, capable: list[str]) -> str:
    """The precision to request for floating-point arithmetic. Raises BackendError for a hint without effect."""
    if options.hint is None:
        wanted = card.precision if card.precision in HINTS else "fp32"
        return wanted if CAPABILITIES[wanted] in capable else "fp32"
    if options.hint not in HINTS or card.precision != "fp32":
        raise BackendError(
            f"openvino: a hint of {options.hint} for a graph in {card.precision}: expected fp32, fp16 or bf16 for an "
            "fp32 graph"
        )
    if CAPABILITIES[options.hint] not in capable:
        possible = ", ".join(precision for precision, name in CAPABILITIES.items() if name in capable)
        raise BackendError(f"openvino: {options.hint}: this processor computes only in {possible}")
    return options.hint


def _precision_text(card: ModelCard, options: BackendOptions, computes_in: str) -> str:
    if options.hint:
        return f"{computes_in} by a hint to its runtime"
    if card.precision in (computes_in, "int8"):
        return card.precision
    return f"{card.precision} graph computed in {computes_in}: this processor lacks {card.precision}"
