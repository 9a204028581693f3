"""EngineConfig and Int8Config: how an engine is built and how a graph is quantised. Loads no TensorRT and no ONNX."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..core.errors import UnknownNameError, UsageError
from ..core.machine import this_machine
from ..core.nvidia.flavor import AUTO, flavor_named

HARDWARE_COMPATIBILITY = ("none", "ampere-plus", "same-compute-capability")
DEFAULT_OPT_BATCH = 64

Int8Flavor = Literal["tensorrt", "cpu", "openvino"]
INT8_FLAVORS: tuple[Int8Flavor, ...] = ("tensorrt", "cpu", "openvino")
Method = Literal["minmax", "percentile-99.99", "percentile-99.999", "mse", "mse-each-end"]
METHODS: tuple[Method, ...] = ("minmax", "percentile-99.99", "percentile-99.999", "mse", "mse-each-end")
"""How the range of an activation is chosen. Which method is best depends on the network: `auto` tries all."""
WeightBits = Literal["auto", "7", "8"]
WEIGHT_BITS: tuple[WeightBits, ...] = ("auto", "7", "8")
FEWEST_CALIBRATION_IMAGES = 32
ENOUGH_CALIBRATION_IMAGES = 500
"""With fewer images a warning says that the ranges are less certain."""


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is built."""

    graph: Path
    """An ONNX file that rtk exported; its precision is the precision of the engine."""
    out: Path | None = None
    """Folder for the engine and the JSON beside it; default: the folder of the graph."""
    name: str | None = None
    """Stem of these files; default: that of the graph."""
    flavor: str = AUTO
    """auto, tensorrt or tensorrt-rtx."""
    precision: str | None = None
    """The precision that the engine must have; default: the precision in the card of the graph."""
    max_batch: int = 1024
    opt_batch: int | None = None
    """Batch size that TensorRT optimises for; default: 64, or max_batch if that is smaller."""
    device: int = 0
    """Index of the GPU to build on, if the machine has GPUs."""
    targets: tuple[str, ...] = ()
    """Compute capabilities to build for, such as 8.9; tensorrt-rtx only. Default: the GPU of this machine; on a machine
    without a GPU, DEFAULT_TARGETS of export/trt/hardware.py."""
    workspace_mib: int | None = None
    """Limit on the scratch memory of one layer, in MiB; default: TensorRT's own limit."""
    hardware_compatibility: str = "none"
    """none, ampere-plus or same-compute-capability; tensorrt only."""
    cache: bool = True
    """Use the engine in the cache if there is one, and store a new engine there."""

    def __post_init__(self) -> None:
        if self.flavor != AUTO:
            flavor_named(self.flavor)
        if self.max_batch < 1:
            raise UsageError(f"--max-batch {self.max_batch}: expected at least 1")
        if self.opt_batch is not None and not 1 <= self.opt_batch <= self.max_batch:
            raise UsageError(f"--opt-batch {self.opt_batch}: expected 1 to --max-batch, {self.max_batch}")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"--workspace-mib {self.workspace_mib}: expected at least 1")
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITY:
            known = ", ".join(HARDWARE_COMPATIBILITY)
            raise UsageError(f"--hardware-compatibility {self.hardware_compatibility}: unknown; known: {known}")
        if self.targets and self.flavor == "tensorrt":
            raise UsageError(
                "--target: only tensorrt-rtx builds for named compute capabilities, tensorrt builds for the GPU of "
                "this machine; use --flavor tensorrt-rtx"
            )

    @property
    def optimal_batch(self) -> int:
        """The batch size that TensorRT optimises for."""
        return self.opt_batch or min(DEFAULT_OPT_BATCH, self.max_batch)


@dataclass(frozen=True)
class Int8Config:
    """How a checkpoint is quantised."""

    flavor: Int8Flavor = "tensorrt"
    """Target runtime: tensorrt; cpu for ONNX Runtime, also fast on OpenVINO; openvino for OpenVINO alone."""
    method: Method | Literal["auto"] = "auto"
    """auto uses the method that is best on the held-out images."""
    weight_bits: WeightBits = "auto"
    """Bits of the weights. x86 processors without VNNI overflow in int8 unless the weights have only 7 bits. auto: 7
    for a CPU flavor on such a processor, otherwise 8."""
    keep_fp32: tuple[str, ...] = ()
    """Layers that stay in fp32, by the names that `explain` lists."""
    calibration_images: int = 1_000
    """Number of training images that activation ranges are measured on."""

    def __post_init__(self) -> None:
        if self.flavor not in INT8_FLAVORS:
            raise UnknownNameError("int8 flavor", self.flavor, INT8_FLAVORS)
        if self.method not in ("auto", *METHODS):
            raise UnknownNameError("calibration method", self.method, ("auto", *METHODS))
        if self.weight_bits not in WEIGHT_BITS:
            raise UnknownNameError("number of weight bits", self.weight_bits, WEIGHT_BITS)
        if self.weight_bits == "7" and self.flavor == "tensorrt":
            raise UsageError("--int8-weight-bits 7: for CPUs only; use it with --int8-flavor cpu or openvino")
        if self.calibration_images < FEWEST_CALIBRATION_IMAGES:
            raise UsageError(
                f"--calibration-images {self.calibration_images}: expected at least {FEWEST_CALIBRATION_IMAGES}"
            )

    @property
    def bits(self) -> int:
        """Bits of the weights; `auto` depends on this machine's processor."""
        if self.weight_bits != "auto":
            return int(self.weight_bits)
        return 7 if self.flavor != "tensorrt" and this_machine().int8_saturates else 8
