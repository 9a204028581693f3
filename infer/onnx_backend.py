"""The onnx backend: a graph in ONNX Runtime, on the CPU or on a GPU. It imports neither torch nor onnx."""

import contextlib
import ctypes
import io
import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
)

from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME, arithmetic_of, graph_card, is_from_graph
from ..core.card import ModelCard
from ..core.errors import ArtifactError, BackendError, noted
from ..core.library_errors import raise_translated
from ..core.machine import usable_cores
from ..core.nvidia.driver import gpu, gpu_count, no_gpu_reason
from ..core.text import one_line, wrapped
from .backend import Backend, BackendOptions, Resident, overflows_here
from .cuda_options import cuda_options

ERRORS_ONLY = 3
WARNINGS, FATAL = 2, 4
"""Levels of ONNX Runtime's log."""
CUDA = "CUDAExecutionProvider"

_log = logging.getLogger(__name__)


class OnnxBackend(Backend):
    """Runs a graph that rtk exported."""

    name = "onnx"

    def __init__(self, graph: Path, options: BackendOptions) -> None:
        if not graph.is_file():
            raise ArtifactError(f"{graph}: no such graph")
        self._session = open_session(graph, options)
        meta = self._session.get_modelmeta()
        self.card: ModelCard = graph_card(graph, meta.custom_metadata_map, meta.producer_name)
        if overflows_here(self.card) and self._session.get_providers()[0] != CUDA:
            self._session = open_session(graph, replace(options, device="cpu"), exact_int8=True)
        provider = self._session.get_providers()[0]
        on_gpu = provider == CUDA
        index = int(self._session.get_provider_options()[provider].get("device_id", 0)) if on_gpu else 0
        self.device = f"cuda:{index}" if on_gpu else "cpu"
        self._buffers = DeviceBuffers(self._session, self.card, "cuda", index) if on_gpu else None
        threads = options.threads or usable_cores()
        where = gpu(index).name if on_gpu else f"CPU, {threads} {'thread' if threads == 1 else 'threads'}"
        self.runs_on = f"ONNX Runtime {onnxruntime.__version__}, {where}"

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self._buffers is not None:
            return self._buffers.run(images_NHWC)
        logits_NK: NDArray[np.float32] = self._session.run([OUTPUT_NAME], {INPUT_NAME: images_NHWC})[0]
        return logits_NK

    def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident | None:
        """Copy the images to the GPU; None on the CPU."""
        if self._buffers is None:
            return None
        return OnDevice(self._session, self.card, images_NHWC, "cuda", int(self.device.partition(":")[2]))

    def _free(self) -> None:
        """Free the session and its buffers."""
        self._buffers = None
        self._session = None


class DeviceBuffers:
    """Buffers on the device for each recent batch size, bound once to the graph's input and output."""

    KEPT = 8
    """Batch sizes with buffers: enough for a stream with a short last batch, and for the sizes of a benchmark."""

    def __init__(self, session: onnxruntime.InferenceSession, card: ModelCard, kind: str, index: int) -> None:
        """`kind`: ONNX Runtime's name for the device, such as cuda."""
        self._session, self._card, self._place = session, card, (kind, index)
        self._bound: OrderedDict[int, tuple[Any, Any, Any]] = OrderedDict()

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Copy the images in, run, copy the logits out."""
        binding, images, logits = self._for(len(images_NHWC))
        images.update_inplace(images_NHWC)
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        logits_NK: NDArray[np.float32] = np.array(logits.numpy())
        return logits_NK

    def _for(self, count: int) -> tuple[Any, Any, Any]:
        if count in self._bound:
            self._bound.move_to_end(count)
            return self._bound[count]
        allocate = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        images = allocate((count, *self._card.input.shape), np.uint8, *self._place)
        logits = allocate((count, len(self._card.classes)), np.float32, *self._place)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(INPUT_NAME, images)
        binding.bind_ortvalue_output(OUTPUT_NAME, logits)
        self._bound[count] = (binding, images, logits)
        if len(self._bound) > self.KEPT:
            self._bound.popitem(last=False)
        return self._bound[count]


class OnDevice(Resident):
    """Images on the device, bound to the graph's input without a copy. ONNX Runtime has no clock of its own."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        card: ModelCard,
        images_NHWC: NDArray[np.uint8],
        kind: str,
        index: int,
    ) -> None:
        """`kind`: ONNX Runtime's name for the device, such as cuda."""
        self._session, self._card, self._place = session, card, (kind, index)
        self._images = onnxruntime.OrtValue.ortvalue_from_numpy(images_NHWC, kind, index)
        self._logits: dict[int, Any] = {}

    def run(self, start: int, count: int) -> None:
        """Run on the images without copying them, into a buffer that is used again."""
        if count not in self._logits:
            shape = (count, len(self._card.classes))
            self._logits[count] = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, *self._place)
        binding, size = self._session.io_binding(), self._card.input.shape
        address = self._images.data_ptr() + start * int(np.prod(size))
        binding.bind_input(INPUT_NAME, *self._place, np.uint8, (count, *size), address)
        binding.bind_ortvalue_output(OUTPUT_NAME, self._logits[count])
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()


def open_session(
    graph: Path | bytes, options: BackendOptions, *, exact_int8: bool = False, optimised: bool = True
) -> onnxruntime.InferenceSession:
    """Open a session of ONNX Runtime on the requested device; auto: on a GPU if that works, else on the CPU.

    `exact_int8`: on a CPU whose int8 kernels overflow, use slower ones that do not. `optimised` False: compute the
    nodes one by one, as they are written.
    Logs why a GPU that is there is not used. Raises ArtifactError or BackendError.
    """
    if options.device != "auto":
        return _session_on(options.device, graph, options, exact_int8=exact_int8, optimised=optimised)
    if gpu_count() and CUDA in onnxruntime.get_available_providers():
        try:
            return _session_on("cuda", graph, options)
        except BackendError as error:
            reason = noted(error).removeprefix("onnx: --device cuda: ")
            _log.warning(wrapped(f"onnx: the GPU is not used: {reason}; the CPU is used instead"))
    return _session_on("cpu", graph, options, exact_int8=exact_int8, optimised=optimised)


def _session_on(
    device: str, graph: Path | bytes, options: BackendOptions, *, exact_int8: bool = False, optimised: bool = True
) -> onnxruntime.InferenceSession:
    """Open a session on exactly this device. Raises ArtifactError or BackendError."""
    settings = session_settings(device, options, exact_int8=exact_int8, shapes_on_cpu=is_from_graph(graph))
    if not optimised:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    name = "the graph" if isinstance(graph, bytes) else str(graph)
    try:
        with _silent() if device != "cpu" else contextlib.nullcontext():
            providers = _providers(device, graph)
            session = onnxruntime.InferenceSession(graph, settings, providers=providers, enable_fallback=0)
    except (InvalidProtobuf, InvalidGraph, InvalidArgument, NoSuchFile) as error:
        raise ArtifactError(f"{name}: truncated, damaged, or not an ONNX file that ONNX Runtime accepts") from error
    except BackendError:
        raise
    except Exception as error:  # for example no kernel: bf16 convolutions on a CPU
        missing = _missing_library() if device != "cpu" else ""
        if missing:
            raise _cuda_does_not_start(device, missing) from error
        raise_translated(error, f"onnx: {name}" if device == "cpu" else f"onnx: --device {device}: {name}")
    if device != "cpu" and session.get_providers()[0] != CUDA:
        raise _cuda_does_not_start(device, _missing_library() or "no reason given")
    return session


def session_settings(
    device: str, options: BackendOptions, *, exact_int8: bool = False, shapes_on_cpu: bool = False
) -> onnxruntime.SessionOptions:
    """Return the settings of a session on that device; see `open_session`.

    `shapes_on_cpu`: nodes that the GPU has no kernel for may run on the CPU; those of imported graphs compute shapes.
    """
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = ERRORS_ONLY
    settings.intra_op_num_threads = options.threads or usable_cores()
    settings.inter_op_num_threads = 1
    if exact_int8:  # uint8 weights instead of int8 ones, in ONNX Runtime's words
        settings.add_session_config_entry("session.x64quantprecision", "1")
    if device != "cpu":
        if not shapes_on_cpu:  # no node of rtk's own graphs may run on the CPU in silence
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # The CUDA provider has no integer convolutions, so rewriting an int8 graph for them gains nothing. It even
        # makes int32 biases (WeightBiasQuantization), for whose DequantizeLinear there is no CUDA kernel.
        settings.add_session_config_entry("session.disable_quant_qdq", "1")
    if options.shares_cores:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings


def _cuda_does_not_start(device: str, reason: str) -> BackendError:
    return BackendError(
        f"onnx: --device {device}: ONNX Runtime {onnxruntime.__version__} could not start its CUDA provider: {reason}; "
        "it needs CUDA 13 and cuDNN 9: pip install 'onnxruntime-gpu[cuda,cudnn]'"
    )


def _missing_library() -> str:
    """Why the library of the CUDA provider cannot be loaded, in the words of the system's loader; empty if it can.

    ONNX Runtime itself writes this to its log and opens a session without the provider.
    """
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        for name in ("libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"):
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return one_line(error)
    return ""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what ONNX Runtime prints about missing CUDA libraries off standard output, which is for results."""
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(WARNINGS)


def _providers(device: str, graph: Path | bytes) -> list[str | tuple[str, dict[str, str]]]:
    """Return the providers of a session, with the options for this graph. Raises BackendError."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    index = int(device.partition(":")[2] or 0)
    if CUDA not in onnxruntime.get_available_providers():
        raise BackendError(
            f"onnx: --device {device}: this ONNX Runtime has no CUDA provider: "
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
        )
    if index >= gpu_count():
        reason = no_gpu_reason() or f"this machine has {gpu_count()} CUDA GPU(s), numbered from 0"
        raise BackendError(f"onnx: --device {device}: {reason}")
    onnxruntime.preload_dlls()
    return [(CUDA, {"device_id": str(index), **cuda_options(arithmetic_of(graph))})]
