"""Presets: what other benchmarks time by default, so that their figures and rtk's can be put side by side.

trtexec (NVIDIA TensorRT, Command-Line Programs and Performance Benchmarking, docs.nvidia.com/deeplearning/tensorrt):
warm-up 200 ms, then at least 3 s and at least 10 iterations. Up to TensorRT 10 copies to and from the device are timed,
and a batch is enqueued while the one before it runs; from TensorRT 11 on the copies are left out, and a CUDA graph is
launched. MLPerf Inference (github.com/mlcommons/inference, loadgen/mlperf.conf): offline, one query of at least 24,576
samples for image classification; single stream, one sample after the other, the 90th percentile of the latency. Both
run for at least ten minutes there, which `--seconds 600` gives.
"""

from dataclasses import dataclass

from ..core.errors import UnknownNameError
from .scopes import Scope


@dataclass(frozen=True)
class Preset:
    """What is timed, for how long, and which figure is the one to compare."""

    name: str
    scope: Scope
    batches: tuple[int, ...]
    """Unless --batch says otherwise."""
    seconds_a_cell: float
    headline: str
    """The figure that is printed elsewhere: images/s, or a percentile of the latency such as p90."""
    words: str
    """What agrees with the original, and what does not."""
    warm_up_s: float = 0.3
    min_calls: int = 0
    min_images: int = 0
    cuda_graphs: bool = False
    fixed_batch: bool = False
    """Whether the original knows no other batch sizes than these."""


PRESETS = {
    one.name: one
    for one in (
        Preset(
            "trtexec-10",
            "stream",
            (1,),
            3.0,
            "images/s",
            "as trtexec of TensorRT 10: copies included, the next batch enqueued while one runs; 200 ms of warm-up, "
            "at least 3 s and 10 calls; its throughput in queries/s times the batch size is images/s here",
            warm_up_s=0.2,
            min_calls=10,
        ),
        Preset(
            "trtexec-11",
            "compute",
            (1,),
            3.0,
            "images/s",
            "as trtexec of TensorRT 11: copies left out, the host waits for every batch; 200 ms of warm-up, at least "
            "3 s and 10 calls; CUDA graphs where the backend has them (TensorRT-RTX)",
            warm_up_s=0.2,
            min_calls=10,
            cuda_graphs=True,
        ),
        Preset(
            "mlperf-offline",
            "stream",
            (256,),
            3.0,
            "images/s",
            "after MLPerf's offline scenario: at least 24,576 samples, all of them there from the start; MLPerf itself "
            "wants ten minutes (--seconds 600) and its own load generator",
            min_images=24_576,
        ),
        Preset(
            "mlperf-singlestream",
            "sync",
            (1,),
            3.0,
            "p90",
            "after MLPerf's single-stream scenario: one image after the other, the 90th percentile of the latency; "
            "MLPerf itself wants ten minutes (--seconds 600) and its own load generator",
            fixed_batch=True,
        ),
    )
}


def preset_named(name: str) -> Preset:
    """The preset of that name. Raises UnknownNameError, which lists the known ones."""
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]
