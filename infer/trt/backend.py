"""The trt backend: an engine in TensorRT or TensorRT-RTX on an NVIDIA GPU. It imports neither torch nor onnx.

PyCUDA owns the memory, in the GPU's primary context, so that PyTorch and ONNX Runtime can work in the same process.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.artifacts.engine import EngineInfo
from ...core.errors import UsageError
from ..backend import Backend, BackendOptions, Resident
from .cuda_graphs import CudaGraphs, RecordedRuns
from .engine import RtxOptions, TrtEngine
from .pipeline import SLOTS, Pipeline
from .preflight import check_engine
from .pycuda_driver import CurrentGpu, pycuda_driver


class TrtBackend(Backend):
    """Runs an engine that rtk built."""

    name = "trt"

    def __init__(
        self,
        engine: Path,
        options: BackendOptions,
        *,
        slots: int = SLOTS,
        specialization: str | None = None,
        runtime_cache: bool = True,
    ) -> None:
        """Load the engine.

        `slots`: batches of a stream in flight at the same time, each with its own buffers; at least 2 to overlap.
        `specialization` and `runtime_cache`: as in RtxOptions; the default is eager if options.steady, else lazy.

        Raises ArtifactError or BackendError, with a message of its own for each obstacle.
        """
        if slots < 1:
            raise UsageError(f"trt: {slots} slots: expected at least 1, and 2 to overlap copies and computation")
        specialization = specialization or ("eager" if options.steady else "lazy")
        rtx = RtxOptions(options.cuda_graphs, specialization, runtime_cache)
        loadable = check_engine(engine, device=options.device)
        driver = pycuda_driver()
        index = loadable.gpu.index
        recorder = CudaGraphs() if options.cuda_graphs and not loadable.flavor.checks_engines else None
        with CurrentGpu(driver, index):
            loaded = TrtEngine(loadable, driver, rtx)
        self.info: EngineInfo = loadable.info
        if loaded.layers:
            self.info = replace(self.info, precision=replace(self.info.precision, layers=loaded.layers, inspected=True))
        self.card = loadable.info.card
        self.max_batch = loadable.info.profile.max_batch
        self.opt_batch = loadable.info.profile.opt_batch
        self.device = f"cuda:{index}"
        self.runs_on = (
            f"{loadable.flavor.name} {loadable.flavor.version()}, {loadable.gpu.name}, {self.info.precision.label}"
        )
        self._recorded = options.cuda_graphs
        self._pipeline = Pipeline(
            driver,
            loaded if recorder is None else RecordedRuns(loaded, recorder),
            image_shape=self.card.input.shape,
            classes=len(self.card.classes),
            max_batch=self.max_batch,
            device_index=index,
            slots=slots,
        )

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._pipeline.run(images_NHWC)

    def _stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the logits of each batch, in order; uploads and downloads overlap with the computation."""
        return self._pipeline.stream(batches)

    def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident:
        """Copy the images to the GPU. A CUDA graph reads one address, so with graphs one batch is run every time."""
        return self._pipeline.resident(images_NHWC, places=1 if self._recorded else None)

    def _free(self) -> None:
        """Free everything."""
        self._pipeline.close()
