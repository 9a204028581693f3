"""Load an engine with TensorRT or TensorRT-RTX and run it on a CUDA stream.

Host code in engines stays disabled. RTX compiles its kernels when an engine is loaded and first run; the compiled
kernels are kept on disk for the next time.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from ...core.artifacts.engine import rebuild_command
from ...core.artifacts.engine_cache import KERNELS
from ...core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ...core.errors import ArtifactError, BackendError, OtherGpuError, UnavailableError, UsageError
from ...core.library_errors import reason_of
from ...core.nvidia.flavor import LogLines, collected_errors, logger_of
from ...core.nvidia.layer_types import layers_of_engine
from ...core.nvidia.validity import refusal_of
from ...core.paths import only_a_cache
from ...core.sealed_files import read_sealed, write_sealed
from .preflight import Loadable
from .pycuda_driver import MIB, DeviceMemory, Driver

SPECIALIZATIONS = ("lazy", "eager", "none")


@dataclass(frozen=True)
class RtxOptions:
    """Options at run time that only TensorRT-RTX has."""

    cuda_graphs: bool = False
    """Capture the run of each batch size as a CUDA graph."""
    specialization: str = "lazy"
    """When kernels for the exact batch size are compiled: lazy (in the background), eager (at once) or none."""
    runtime_cache: bool = True
    """Keep compiled kernels in the user's cache folder."""

    def __post_init__(self) -> None:
        if self.specialization not in SPECIALIZATIONS:
            known = ", ".join(SPECIALIZATIONS)
            raise UsageError(f"shape specialization {self.specialization!r} is unknown; known: {known}")


class TrtContext:
    """An execution context. It keeps shape and addresses from one run to the next."""

    def __init__(self, context: Any, loadable: Loadable) -> None:
        self._context, self._name = context, loadable.path.name
        self._image_shape = loadable.info.card.input.shape
        self._count, self._addresses = 0, (0, 0)

    def enqueue(self, count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        """Start a run of `count` images on a stream. Raises BackendError if TensorRT rejects it."""
        with collected_errors() as log:
            context = self._context
            started = (
                (self._count == count or context.set_input_shape(INPUT_NAME, (count, *self._image_shape)))
                and (self._addresses[0] == images_at or context.set_tensor_address(INPUT_NAME, images_at))
                and (self._addresses[1] == logits_at or context.set_tensor_address(OUTPUT_NAME, logits_at))
            )
            self._count, self._addresses = (count, (images_at, logits_at)) if started else (0, (0, 0))
            if not started or not context.execute_async_v3(stream_handle):
                raise BackendError(
                    f"trt: {self._name}: a batch of {count} does not run: {log.reason('no reason given')}"
                )

    def close(self) -> None:
        """Free the context."""
        self._context = None


class TrtEngine:
    """An engine with one execution context, and more on demand. The GPU's context must be current for every call."""

    def __init__(self, loadable: Loadable, driver: Driver, rtx: RtxOptions) -> None:
        """Load the engine. Raises ArtifactError if TensorRT rejects it, BackendError if there is too little memory."""
        self._path, self._trt = loadable.path, loadable.flavor.load()
        self._loadable, self._driver = loadable, driver
        self._cache_read = b""
        self.layers: dict[str, int] = {}
        """The number of layers per data type from the engine's inspector; empty if the inspector has none."""
        self._runtime: Any = None
        self._engine: Any = None
        self._context: TrtContext | None = None
        self._shared: DeviceMemory | None = None
        """Working memory of the forked contexts."""
        self._settings: Any = None
        self._cache: Any = None
        try:
            with collected_errors() as log:
                self._load(loadable, log)
                self._start(loadable, driver, rtx, log)
        except BaseException:
            self._free()  # while the GPU's context is current; otherwise the traceback would keep everything alive
            raise

    def enqueue(self, count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        """Start a run of `count` images on a stream. Raises BackendError if TensorRT rejects it."""
        assert self._context is not None
        self._context.enqueue(count, images_at=images_at, logits_at=logits_at, stream_handle=stream_handle)

    def fork(self) -> TrtContext:
        """Make another context (regular TensorRT only). All contexts share memory: their runs must be on one stream.

        Raises BackendError if there is too little memory.
        """
        size = int(self._engine.device_memory_size_v2)
        if self._shared is None:
            try:
                self._shared = self._driver.mem_alloc(max(size, 1))
            except self._driver.MemoryError as error:
                raise BackendError(
                    f"trt: {self._path.name}: CUDA graphs need {size / MIB:,.0f} MiB of working memory of their own, "
                    "which the GPU does not have; stop other programs on it, or go on without CUDA graphs"
                ) from error
        with collected_errors() as log:
            strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(strategy)
            if context is None:
                raise BackendError(f"trt: {self._path.name}: no further context: {log.reason('no reason given')}")
        context.set_device_memory(int(self._shared), size)
        return TrtContext(context, self._loadable)

    def close(self) -> None:
        """Keep the kernels that RTX compiled, then free the execution context, the engine and the runtime."""
        self._keep_runtime_cache()
        self._free()

    def _free(self) -> None:
        if self._shared is not None:
            self._shared.free()
        for name in ("_context", "_shared", "_cache", "_settings", "_engine", "_runtime"):  # in this order
            setattr(self, name, None)

    def _load(self, loadable: Loadable, log: LogLines) -> None:
        """Create the runtime and load the plan."""
        try:
            self._runtime = runtime = self._trt.Runtime(logger_of(self._trt))
        except TypeError as error:  # the bindings raise this if the constructor returns nothing
            raise BackendError(f"trt: TensorRT does not start: {log.reason(reason_of(error))}") from error
        runtime.engine_host_code_allowed = False
        if loadable.flavor.checks_engines:
            _check_validity(self._trt, runtime, loadable, log)
        self._engine = runtime.deserialize_cuda_engine(loadable.plan)
        if self._engine is None:
            raise ArtifactError(
                f"{self._path}: TensorRT does not load it: {log.reason('it gives no reason')}; "
                f"build it again: {rebuild_command(self._path)}"
            )
        self._check_tensors(loadable)
        self.layers = layers_of_engine(self._engine, self._trt)

    def _start(self, loadable: Loadable, driver: Driver, rtx: RtxOptions, log: LogLines) -> None:
        """Create the execution context, which allocates the working memory."""
        needed, (free, total) = int(self._engine.device_memory_size_v2), driver.mem_get_info()
        context = self._new_context(loadable, rtx)
        if context is None:
            raise BackendError(
                f"{self._path}: no execution context: {log.reason('TensorRT gives no reason')}; it needs "
                f"{needed / MIB:,.0f} MiB of working memory for batches of up to {loadable.info.profile.max_batch}, "
                f"{free / MIB:,.0f} of {total / MIB:,.0f} MiB are free on the GPU; stop other programs on it, or "
                "build it with a smaller --max-batch"
            )
        self._context = TrtContext(context, loadable)

    def _check_tensors(self, loadable: Loadable) -> None:
        """Raise ArtifactError if the engine's tensors and profile differ from those in its JSON."""
        engine, trt, card = self._engine, self._trt, loadable.info.card
        names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        fits = (
            names == {INPUT_NAME, OUTPUT_NAME}
            and engine.get_tensor_dtype(INPUT_NAME) == trt.DataType.UINT8
            and engine.get_tensor_dtype(OUTPUT_NAME) == trt.DataType.FLOAT
            and tuple(engine.get_tensor_shape(INPUT_NAME)) == (-1, *card.input.shape)
            and tuple(engine.get_tensor_shape(OUTPUT_NAME)) == (-1, len(card.classes))
            and engine.get_tensor_profile_shape(INPUT_NAME, 0)[2][0] == loadable.info.profile.max_batch
        )
        if not fits:
            raise ArtifactError(
                f"{self._path}: its tensors differ from those in its JSON (uint8 images {card.input.shape}, "
                f"{len(card.classes)} logits, batches of up to {loadable.info.profile.max_batch}); "
                f"build it again: {rebuild_command(self._path)}"
            )

    def _new_context(self, loadable: Loadable, rtx: RtxOptions) -> Any:
        if not loadable.flavor.checks_engines:
            return self._engine.create_execution_context()
        trt = self._trt
        self._settings = settings = self._engine.create_runtime_config()
        settings.cuda_graph_strategy = (
            trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE if rtx.cuda_graphs else trt.CudaGraphStrategy.DISABLED
        )
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        settings.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, rtx.specialization.upper())
        if rtx.runtime_cache:
            self._cache = settings.create_runtime_cache()
            self._cache_read = read_sealed(KERNELS, _cache_name(loadable))
            if self._cache_read:
                self._cache.deserialize(self._cache_read)  # RTX ignores a cache of another driver or GPU
            settings.set_runtime_cache(self._cache)
        return self._engine.create_execution_context(settings)

    def _keep_runtime_cache(self) -> None:
        if self._cache is None:
            return
        compiled = bytes(self._cache.serialize())
        if compiled != self._cache_read:
            with only_a_cache("compiled kernels are"):
                write_sealed(KERNELS, _cache_name(self._loadable), compiled)


def _check_validity(trt: Any, runtime: Any, loadable: Loadable, log: LogLines) -> None:
    """Ask RTX whether the engine runs on this machine. Raises ArtifactError or BackendError with its diagnostics."""
    reasons = refusal_of(trt, runtime, loadable.plan)
    if reasons is None:
        return
    problem = f"TensorRT-RTX rejects it on this machine ({', '.join(sorted(reasons)) or log.reason('no diagnostics')})"
    info, found = loadable.info, loadable.gpu
    here = (
        f"this machine has {loadable.flavor.name} {loadable.flavor.version()} and {found.name} "
        f"(compute capability {found.compute_capability})"
    )
    if not reasons or reasons == {"CUDA_ERROR"}:  # the check itself failed; the engine may be sound
        raise BackendError(f"trt: {loadable.path.name}: {problem}; CUDA does not work here: see nvidia-smi; {here}")
    if reasons & {"OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME", "CUDA_ERROR"}:
        raise BackendError(f"trt: {loadable.path.name}: {problem}; update the NVIDIA driver; {here}")
    if "INSUFFICIENT_GPU_MEMORY" in reasons:
        raise BackendError(
            f"trt: {loadable.path.name}: {problem}: too little GPU memory; build it with a smaller --max-batch"
        )
    if "UNSUPPORTED_CC" in reasons and (info.gpu, info.compute_capability) == (found.name, found.compute_capability):
        raise UnavailableError(  # it was built for this GPU: to build it again does not help
            f"trt: {loadable.path.name}: {problem}; this TensorRT-RTX does not support this GPU: {here}; install the "
            "regular TensorRT and build with --flavor tensorrt, or use --backend onnx"
        )
    kind = OtherGpuError if reasons == {"UNSUPPORTED_CC"} else ArtifactError
    raise kind(
        f"{loadable.path}: {problem}: built by {info.flavor} {info.version} for {info.built_for}, {here}; "
        f"build it again here: {rebuild_command(loadable.path)}"
    )


def _cache_name(loadable: Loadable) -> str:
    """The name of the kernel cache: kernels are valid for one plan, GPU model and TensorRT version."""
    parts = (loadable.info.plan_sha256, loadable.gpu.name, loadable.gpu.compute_capability, loadable.flavor.version())
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return digest[:32]
