"""The state of the machine during a measurement: processors, load, and a GPU's clocks, temperature and power.

The GPU's state comes from NVIDIA's own library (nvidia-ml-py, in the extra gpu); without it that part is empty.
"""

import os
from dataclasses import dataclass
from importlib import import_module, util
from typing import Any

from ...core.errors import BackendError
from ...core.nvidia.driver import gpu_uuid

THROTTLES = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's nvmlClocksEventReasons that cost speed; idling, and clocks set by the user, are not included."""


@dataclass(frozen=True)
class GpuState:
    """The state of one GPU at one moment."""

    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    power_w: float
    throttled_by: tuple[str, ...]

    @property
    def text(self) -> str:
        """For a note below a table."""
        throttled = f", THROTTLED by {' and '.join(self.throttled_by)}" if self.throttled_by else ""
        clocks = f"{self.sm_mhz:,} MHz, memory {self.memory_mhz:,} MHz"
        return f"{clocks}, {self.temperature_c} °C, {self.power_w:.0f} W{throttled}"


@dataclass(frozen=True)
class Moment:
    """The state of the machine before or after measuring."""

    affinity: tuple[int, ...]
    """Processors that this process may run on; empty where the system does not report them."""
    load: float
    """Average number of runnable processes in the last minute, including this one; negative where unknown."""
    gpu: GpuState | None = None

    @property
    def text(self) -> str:
        """For a note below a table."""
        return f"load average {self.load:.2f}" + (f"; GPU {self.gpu.text}" if self.gpu else "")


def this_moment(device: str) -> Moment:
    """Read the state of the machine; `device` (cpu or cuda:N) names the GPU to include, if any."""
    affinity = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0
    gpu = gpu_state(int(device.partition(":")[2] or 0)) if device.startswith("cuda") else None
    return Moment(affinity, round(load, 2), gpu)


def gpu_state(index: int) -> GpuState | None:
    """The state that NVML reports for cuda:`index`; None without nvidia-ml-py, or where the driver does not answer.

    The GPU is found by its identifier: NVML counts all GPUs of the machine, CUDA only those that it may use.
    """
    if util.find_spec("pynvml") is None:
        return None
    nvml: Any = import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        gpu = nvml.nvmlDeviceGetHandleByUUID(gpu_uuid(index))
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
        return GpuState(
            sm_mhz=nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
            memory_mhz=nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
            temperature_c=nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
            power_w=nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
            throttled_by=tuple(reason for bit, reason in THROTTLES.items() if reasons & bit),
        )
    except (nvml.NVMLError, BackendError):
        return None
    finally:
        nvml.nvmlShutdown()


def processors(affinity: tuple[int, ...]) -> str:
    """The numbers as ranges: 0-3, 8."""
    ranges: list[list[int]] = []
    for number in affinity:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)
