"""Check rtk's trt pipeline, CUDA graphs and resident images on the real PyCUDA and cuda-python, without TensorRT.

The engine is one kernel (fake_engine.cu) that computes the numbers of rtk's `fake_logits`, so every row can be checked.
With --fake everything runs on rtk's LazyCuda instead, without a GPU and PyCUDA. Exit code 1 means a fault.
"""

import contextlib
import ctypes
import gc
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rtk
from rtk.core.nvidia.driver import gpu
from rtk.infer.trt.cuda_graphs import CudaGraphs, RecordedRuns
from rtk.infer.trt.pipeline import Pipeline
from rtk.infer.trt.pycuda_driver import CurrentGpu, pycuda_driver

sys.path.insert(0, str(Path(rtk.__file__).parent / "tests"))
from fakes.lazy_cuda import LazyCuda, LazyEngine, LazyGraphs, fake_logits

SHAPE, CLASSES, MOST = (32, 32, 3), 10, 64
SPIN = 200_000
"""Clock ticks of the blocks of a slow engine, about 0.1 ms: long enough to show a missing synchronisation."""
CUBIN = Path(__file__).parent / "fake_engine.cubin"
"""The kernel, where a payload brought it. Without it, nvcc compiles the source for this GPU."""
NVCC = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"


@contextlib.contextmanager
def compiled_kernel() -> Iterator[Path]:
    """The compiled kernel's file. Raises SystemExit if it is missing and cannot be compiled."""
    if CUBIN.is_file():
        yield CUBIN
        return
    with tempfile.TemporaryDirectory() as folder:
        compiled, source = Path(folder) / CUBIN.name, CUBIN.with_suffix(".cu")
        architecture = f"-arch=sm_{gpu(0).compute_capability.replace('.', '')}"
        try:
            subprocess.run([NVCC, architecture, "-cubin", "-o", compiled, source], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"{source} cannot be compiled ({error}); nvcc is needed") from None
        yield compiled


class KernelEngine:
    """An engine for the pipeline whose run launches the kernel."""

    def __init__(self, cuda: Any, kernel: Any, spin: int) -> None:
        self.cuda, self.kernel, self.spin, self.closed = cuda, kernel, spin, False

    def enqueue(self, count: int, *, images_at: int, logits_at: int, stream_handle: int) -> None:
        """Start a run of `count` images on a stream."""
        values = (images_at, logits_at, int(np.prod(SHAPE)), CLASSES, self.spin)
        kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_longlong)
        stream = self.cuda.CUstream(stream_handle)
        (code,) = self.cuda.cuLaunchKernel(self.kernel, count * CLASSES, 1, 1, 256, 1, 1, 0, stream, (values, kinds), 0)
        assert code == 0, code

    def fork(self) -> "KernelEngine":
        """Another execution context."""
        return KernelEngine(self.cuda, self.kernel, self.spin)

    def close(self) -> None:
        """Nothing needs to be freed."""
        self.closed = True


class Real:
    """The GPU."""

    def __init__(self) -> None:
        from cuda.bindings import driver as cuda

        self.driver, self.cuda, self.spins = pycuda_driver(), cuda, (0, SPIN)
        with compiled_kernel() as kernel, self.current():
            code, module = cuda.cuModuleLoad(str(kernel).encode())
            assert code == 0, code
            code, self.kernel = cuda.cuModuleGetFunction(module, b"run")
            assert code == 0, code

    def current(self) -> contextlib.AbstractContextManager[Any]:
        """The context of the GPU, for a `with` block."""
        return CurrentGpu(self.driver, 0)

    def engine(self, spin: int = 0) -> Any:
        """A new engine."""
        return KernelEngine(self.cuda, self.kernel, spin)

    def recorder(self) -> Any:
        """The recorder of CUDA graphs."""
        return CudaGraphs()


class Fake:
    """The same on LazyCuda."""

    def __init__(self) -> None:
        self.driver, self.spins = LazyCuda(schedule=random.Random(0)), (0,)

    def current(self) -> contextlib.AbstractContextManager[Any]:
        """The context of the GPU, for a `with` block."""
        return CurrentGpu(self.driver, 0)

    def engine(self, spin: int = 0) -> Any:
        """A new engine."""
        return LazyEngine(self.driver, image_shape=SHAPE, classes=CLASSES)

    def recorder(self) -> Any:
        """The recorder of graphs."""
        return LazyGraphs(self.driver)


random_pixels = np.random.default_rng(0)


def images(count: int) -> Any:
    """Random images. Zeros would hide memory that was not written."""
    return random_pixels.integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def check_logits(found_NK: Any, batch_NHWC: Any, what: str) -> None:
    """Compare with what the engine must compute, to the last digit."""
    expected_NK = fake_logits(batch_NHWC, CLASSES)
    wrong = int((found_NK != expected_NK).any(axis=1).sum())
    assert not wrong, f"{what}: {wrong} of {len(expected_NK)} rows are wrong"


def check(machine: Real | Fake, *, graphs: bool, spin: int) -> None:
    """Check a stream, a stream from one reused array, single calls and resident images; then close everything."""
    engine = machine.engine(spin)
    runs = RecordedRuns(engine, machine.recorder()) if graphs else engine
    pipeline = Pipeline(machine.driver, runs, image_shape=SHAPE, classes=CLASSES, max_batch=MOST)
    batches = [images(random.choice((0, 1, 7, 32, 63, 64))) for _ in range(60)]

    def one_array() -> Iterator[Any]:
        array = np.empty((MOST, *SHAPE), np.uint8)
        for batch in batches:
            array[: len(batch)] = batch
            yield array[: len(batch)]

    for what, stream in (("a stream", iter(batches)), ("a stream of one array", one_array())):
        for found_NK, batch in zip(pipeline.stream(stream), batches, strict=True):
            check_logits(found_NK, batch, what)
    for batch in filter(len, batches[:20]):
        check_logits(pipeline.run(batch), batch, "a call")
    resident = pipeline.resident(images(512))
    fastest_s = min(resident.run(0, MOST) for _ in range(20))
    print(f"graphs {graphs!s:5} spin {spin:7}: ok; {MOST} resident images {1e6 * fastest_s:.1f} us by events")
    resident.close()
    pipeline.close()
    assert engine.closed


def in_a_thread(work: Callable[[], None]) -> None:
    """Run the work in a thread of its own, because contexts are per thread. Raises what the work raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def main() -> None:
    """Run all checks."""
    machine = Fake() if "--fake" in sys.argv[1:] else Real()

    def new_pipeline() -> Pipeline:
        return Pipeline(machine.driver, machine.engine(), image_shape=SHAPE, classes=CLASSES, max_batch=MOST)

    def free_bytes() -> int:
        gc.collect()
        with machine.current():
            return machine.driver.mem_get_info()[0]

    for graphs in (False, True):
        for spin in machine.spins:
            check(machine, graphs=graphs, spin=spin)
    in_a_thread(lambda: check(machine, graphs=False, spin=0))
    before = free_bytes()
    for _ in range(50):
        pipeline = new_pipeline()
        pipeline.run(images(3))
        pipeline.close()
    print(f"opened and closed 50 times: {before - free_bytes()} bytes of GPU memory lost")
    pipeline, batch = new_pipeline(), images(1)
    for _ in range(200):
        pipeline.run(batch)
    started_at = time.perf_counter()
    for _ in range(2000):
        pipeline.run(batch)
    print(f"one call of one image: {(time.perf_counter() - started_at) / 2000 * 1e6:.1f} us")
    pipeline.close()
    print("pipeline: ok")


if __name__ == "__main__":
    main()
