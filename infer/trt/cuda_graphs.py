"""CUDA graphs for the regular TensorRT: record the kernel launches of a run once, then replay them with one call.

A graph is valid for one batch size, one pair of addresses, and the state of the execution context that it was recorded
from. So each graph has its own context, which nothing else uses. The contexts share their working memory, because all
runs are on one stream. TensorRT-RTX records graphs itself. PyCUDA has no graphs: NVIDIA's cuda-python makes them.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, util
from typing import Any, Protocol

from ...core.errors import BackendError
from .pycuda_driver import RunEngine

KEPT = 32
"""Graphs that are kept; a new one replaces the least recently used. A pipeline has fewer batches in flight."""


class Recorder(Protocol):
    """Records and launches CUDA graphs. Every method raises BackendError."""

    def record(self, stream_handle: int, work: Callable[[], None]) -> Any:
        """Record what `work` enqueues on the stream as a graph; the work does not run now."""

    def launch(self, graph: Any, stream_handle: int) -> None:
        """Enqueue the graph's work on the stream."""

    def destroy(self, graph: Any) -> None:
        """Free a graph, after it has run if it is running."""


class ForkingEngine(RunEngine, Protocol):
    """An engine that can have several execution contexts."""

    def fork(self) -> RunEngine:
        """Make another context. All contexts share memory, so their runs must be on one stream. Raises BackendError."""


@dataclass
class _Recorded:
    context: RunEngine
    graph: Any


class RecordedRuns:
    """An engine that records each kind of run the first time and replays it afterwards."""

    def __init__(self, engine: ForkingEngine, recorder: Recorder, *, kept: int = KEPT) -> None:
        """Take ownership of the engine."""
        self._engine, self._recorder, self._kept = engine, recorder, kept
        self._recorded: OrderedDict[tuple[int, int, int], _Recorded] = OrderedDict()

    def enqueue(self, count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        """Start a run of `count` images on a stream. Raises BackendError."""
        key = (count, images_at, logits_at)
        if key in self._recorded:
            self._recorded.move_to_end(key)
            self._recorder.launch(self._recorded[key].graph, stream_handle)
            return
        context = self._engine.fork()

        def run() -> None:
            context.enqueue(count, images_at=images_at, logits_at=logits_at, stream_handle=stream_handle)

        try:
            run()  # for its logits, and because TensorRT completes the set-up of a context in its first run
            self._recorded[key] = _Recorded(context, self._recorder.record(stream_handle, run))
        except BaseException:
            context.close()
            raise
        if len(self._recorded) > self._kept:
            self._forget(self._recorded.popitem(last=False)[1])

    def close(self) -> None:
        """Free the graphs, their contexts and the engine. No work may be in flight."""
        with contextlib.ExitStack() as frees:  # every callback runs, also after one that fails
            frees.callback(self._engine.close)
            while self._recorded:
                frees.callback(self._forget, self._recorded.popitem()[1])

    def _forget(self, recorded: _Recorded) -> None:
        try:
            self._recorder.destroy(recorded.graph)
        finally:
            recorded.context.close()


class _Owned:
    """A handle of the driver. It is destroyed with its last reference at the latest: Ctrl-C may come at any moment."""

    def __init__(self, destroy: Callable[[Any], Any], handle: Any) -> None:
        self._destroy, self.handle = destroy, handle

    def close(self) -> Any:
        """Destroy it, and return what the driver returns; None if it is destroyed already."""
        handle, self.handle = self.handle, None
        return None if handle is None else self._destroy(handle)

    def __del__(self) -> None:
        self.close()


class CudaGraphs:
    """Records with cuda-python, on streams that the caller owns. The GPU's context must be current."""

    def __init__(self) -> None:
        """Raises BackendError if cuda-python is missing."""
        if util.find_spec("cuda") is None or util.find_spec("cuda.bindings") is None:
            raise BackendError("trt: CUDA graphs need cuda-python; pip install cuda-bindings")
        self._cuda: Any = import_module("cuda.bindings.driver")

    def record(self, stream_handle: int, work: Callable[[], None]) -> Any:
        """Record what `work` enqueues on the stream as a graph. Raises BackendError."""
        cuda, stream = self._cuda, self._cuda.CUstream(stream_handle)
        try:
            # In this mode other threads, for example PyTorch's, may allocate memory meanwhile.
            self._call("cuStreamBeginCapture", stream, cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            work()
            recorded = _Owned(cuda.cuGraphDestroy, self._call("cuStreamEndCapture", stream))
        except BaseException:  # end the capture, if it has begun; the first error is raised
            status, unfinished = cuda.cuStreamEndCapture(stream)
            if status == cuda.CUresult.CUDA_SUCCESS:
                cuda.cuGraphDestroy(unfinished)
            raise
        try:
            return _Owned(cuda.cuGraphExecDestroy, self._call("cuGraphInstantiate", recorded.handle, 0))
        finally:
            recorded.close()  # an error here is one of earlier work, which was raised there

    def launch(self, graph: Any, stream_handle: int) -> None:
        """Enqueue the graph's work on the stream. Raises BackendError."""
        self._call("cuGraphLaunch", graph.handle, self._cuda.CUstream(stream_handle))

    def destroy(self, graph: Any) -> None:
        """Free a graph, after it has run if it is running. Raises BackendError."""
        returned = graph.close()
        if returned is not None:
            self._checked("cuGraphExecDestroy", returned)

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._checked(name, getattr(self._cuda, name)(*arguments))

    def _checked(self, name: str, returned: Any) -> Any:
        status, *results = returned
        if status != self._cuda.CUresult.CUDA_SUCCESS:
            raise BackendError(f"trt: CUDA graphs: {name} failed: {status.name}")
        return results[0] if results else None
