"""The machine: processor, GPU, driver, library versions, commit. Every report and artifact carries it."""

import functools
import os
import platform
import resource
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .cgroups import core_limit, memory_limit

LIBRARIES = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
    "numpy",
)
FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "amx_fp16",
)
AVX512 = {"avx2", "avx512f"}
ONEDNN_LEVELS = {
    "SSE41": set[str](),
    "AVX": set[str](),
    "AVX2": {"avx2"},
    "AVX2_VNNI": {"avx2", "avx_vnni"},
    "AVX2_VNNI_2": {"avx2", "avx_vnni"},
    "AVX512_CORE": AVX512,
    "AVX512_CORE_VNNI": AVX512 | {"avx512_vnni"},
    "AVX512_CORE_BF16": AVX512 | {"avx512_vnni", "avx512_bf16"},
    "AVX512_CORE_FP16": AVX512 | {"avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"},
    "AVX512_CORE_AMX": set(FEATURES) - {"amx_fp16"},
}
"""What each value of ONEDNN_MAX_CPU_ISA leaves of FEATURES; other values leave all.

Source: oneDNN, developer guide, "CPU Dispatcher Control".
"""
ONEDNN_LEVELS |= {  # newer names of the same levels
    "AVX10_1_512": ONEDNN_LEVELS["AVX512_CORE_FP16"],
    "AVX10_1_512_AMX": ONEDNN_LEVELS["AVX512_CORE_AMX"],
}


@dataclass(frozen=True)
class Machine:
    """The machine that a number was measured on."""

    processor: str
    cores: int
    """Cores that this process may use."""
    features: tuple[str, ...]
    """Processor features that matter for matrix arithmetic: avx2, avx512f, avx512_bf16, amx_bf16, ...

    Without those that ONEDNN_MAX_CPU_ISA forbids PyTorch and OpenVINO to use.
    """
    memory_gib: float
    """Memory that this process may use; 0 where the system does not say."""
    gpu: str
    """Name of the first GPU, or empty."""
    driver: str
    """Version of the NVIDIA driver, or empty."""
    system: str
    python: str
    libraries: dict[str, str]
    commit: str
    """Commit of the checkout that rtk runs from, with "+" when files differ from it, or empty."""

    @property
    def summary(self) -> str:
        """The machine in one line, for tables and cards."""
        amx = ", AMX" if any(feature.startswith("amx") for feature in self.features) else ""
        where = f"{self.gpu}, " if self.gpu else ""
        memory = f", {self.memory_gib:.0f} GiB" if self.memory_gib else ""
        return f"{where}{self.processor} ({self.cores} cores{amx}{memory}), {self.system}"

    @property
    def int8_saturates(self) -> bool:
        """Whether int8 kernels add two products of a uint8 and an int8 in 16 bits, which overflow: x86 without VNNI.

        An x86 processor whose features are unknown counts as one of these.
        """
        x86 = self.system.split()[-1].lower() in ("x86_64", "amd64", "i386", "i686")
        return x86 and not set(self.features) & {"avx512_vnni", "avx_vnni", "amx_int8"}


def usable_cores() -> int:
    """Return the number of cores that this process may use: its affinity, or the quota of its container if smaller."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, core_limit() or cores)


def usable_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's; 0 if unknown."""
    installed = system_number("SC_PAGE_SIZE") * system_number("SC_PHYS_PAGES")
    return min(installed, memory_limit() or installed)


def system_number(name: str) -> int:
    """Return a number of os.sysconf; 0 where the system has none of that name."""
    try:
        return max(os.sysconf(name), 0)
    except (AttributeError, ValueError, OSError):
        return 0


def onednn_limit() -> str:
    """Return the highest instruction set that oneDNN may use, a key of ONEDNN_LEVELS; empty if it may use all."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return limit.upper() if limit.upper() in ONEDNN_LEVELS else ""


def peak_memory_gib() -> float:
    """Return the peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


@functools.cache
def this_machine() -> Machine:
    """Describe this machine; takes some milliseconds once, and imports none of the libraries that it lists."""
    processor, features = _processor()
    gpu, driver = _gpu()
    return Machine(
        processor=processor,
        cores=usable_cores(),
        features=features,
        memory_gib=round(usable_memory() / 2**30, 1),
        gpu=gpu,
        driver=driver,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        libraries=_libraries(),
        commit=_commit(),
    )


def _processor() -> tuple[str, tuple[str, ...]]:
    name, flags = platform.processor() or "unknown processor", set[str]()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    usable = ONEDNN_LEVELS.get(onednn_limit(), set(FEATURES))
    return name, tuple(feature for feature in FEATURES if feature in flags & usable)


def _gpu() -> tuple[str, str]:
    answer = _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if not answer:
        return "", ""
    name, _, driver = answer.splitlines()[0].partition(",")
    return name.strip(), driver.strip()


def _libraries() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _commit() -> str:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    commit = _output("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    return commit + ("+" if commit and _output("git", "-C", str(root), "status", "--porcelain", "-uno") else "")


def _output(*command: str) -> str:
    """Return what the command prints; empty when the command is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
