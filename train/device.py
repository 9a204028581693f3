"""Where and how a training computes: device, precision, compilation, determinism."""

import math
import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..core.environment import use_writable_compiler_folders
from ..core.errors import BackendError
from ..core.machine import this_machine, usable_cores
from ..core.models.full_precision import use_full_precision
from ..core.process_settings import change, change_attribute, set_in_environment
from .config import Compile, Precision


@dataclass(frozen=True)
class Compiler:
    """What a value of --compile does."""

    settings: dict[str, Any] | None
    """The arguments of torch.compile, which needs a C++ compiler, and on a GPU triton; None: it is not called."""
    on_gpu_only: bool
    records_steps: bool = False
    """Whether steps are recorded as CUDA graphs: see recorded_steps.py."""


COMPILERS: dict[str, Compiler] = {
    "on": Compiler({}, on_gpu_only=False),
    "reduce-overhead": Compiler({"mode": "reduce-overhead"}, on_gpu_only=True),
    "cudagraphs": Compiler(None, on_gpu_only=True, records_steps=True),
    "on+cudagraphs": Compiler({}, on_gpu_only=True, records_steps=True),
}
"""By the value of --compile."""


@dataclass(frozen=True)
class Compilation:
    """What was done to make the steps of a training faster."""

    description: str
    compiled: bool = False
    records_steps: bool = False
    """Whether the trainer is to record its steps."""


RECORDED = "steps recorded as CUDA graphs"
COMPILED_STEPS = 2_000
"""`--compile auto` calls torch.compile only for runs of at least this many steps.

Compiling the forward and backward pass of resnet20v1 took 65 s of processor time for images of 16 pixels and 48 s more
for 32 (one rough measurement: PyTorch 2.13, g++, an AMD EPYC without AMX, where it gains nothing); 500 images for one
epoch were seen to take 3 minutes instead of 1:14. What a step gains with AMX was not measured beside it, so this is an
estimate: 2,000 steps must gain 50 ms each to pay back 100 s.
"""
ON_A_GPU: Compile = "cudagraphs"
"""What `--compile auto` does on a GPU with a single process.

On an NVIDIA H100 (PyTorch 2.11, 16 cores; bench/results/gpu) it makes a step of resnet20v1 5 times as fast and one of
resnet56v1 6 times, and recording takes less than a second. With torch.compile as well, a step is faster still, but the
first one comes after 40 to 100 s.
"""


@dataclass(frozen=True)
class Arithmetic:
    """The device and precision chosen for this machine."""

    device: torch.device
    autocast: torch.dtype | None
    """The type that convolutions compute in; None for fp32."""

    @property
    def precision(self) -> str:
        """The precision by its name in options: bf16 or fp32."""
        return "bf16" if self.autocast == torch.bfloat16 else "fp32"


def choose_arithmetic(device: str, precision: Precision) -> Arithmetic:
    """Choose device and precision. Raises BackendError if the requested device is missing."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendError(
            f"--device {device}: this PyTorch ({torch.__version__}) finds no CUDA GPU; "
            "use --device cpu, or see: rtk doctor"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = min(torch.get_num_threads(), usable_cores())  # PyTorch knows no quotas of containers
    change(torch.get_num_threads, torch.set_num_threads, threads)
    chosen = torch.device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        if chosen.index >= torch.cuda.device_count():
            raise BackendError(
                f"--device {device}: this machine has {torch.cuda.device_count()} CUDA GPU(s), numbered from 0"
            )
        # Page-locked memory, events and streams belong to the current device.
        change(torch.cuda.current_device, torch.cuda.set_device, chosen.index)
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    return Arithmetic(chosen, torch.bfloat16 if precision == "bf16" else None)


def compile_network(
    network: nn.Module, arithmetic: Arithmetic, mode: Compile, *, steps: float = math.inf, alone: bool = True
) -> Compilation:
    """Compile the network in place if `mode` asks for it and it works here; return what was done.

    With `auto`, it is compiled only where that helps, in a run of enough `steps`: of all its steps, so that a resumed
    run computes as before. `alone`: the training has a single process. Raises BackendError if `mode` is a compiler that
    does not work here.
    """
    if mode == "off":
        return Compilation("not compiled")
    on_gpu = arithmetic.device.type == "cuda"
    name = mode if mode != "auto" else ON_A_GPU if on_gpu and alone else "on"
    compiler = COMPILERS[name]
    if compiler.settings is None and on_gpu and alone:
        return Compilation(f"not compiled, {RECORDED}", records_steps=True)
    if compiler.on_gpu_only and not on_gpu:
        raise BackendError(f"--compile {mode}: CUDA graphs need a GPU, this training runs on a CPU; use --compile on")
    if compiler.records_steps and not alone:
        raise BackendError(f"--compile {mode}: steps of several processes cannot be recorded; use --compile on")
    helps = on_gpu or "amx_bf16" in this_machine().features
    if mode == "auto" and not helps:
        return Compilation("not compiled (no gain on this processor)")
    if mode == "auto" and steps < COMPILED_STEPS:
        return Compilation("not compiled (too short a run)")
    assert compiler.settings is not None
    problem = _compile_problem(arithmetic.device, compiler.settings)
    if problem and mode != "auto":
        raise BackendError(f"--compile {mode}: torch.compile {problem}")
    if problem:
        return Compilation(f"not compiled (torch.compile {problem})")
    network.compile(**compile_settings(compiler.settings, on_gpu=on_gpu))
    detail = f", {RECORDED}" if compiler.records_steps else "" if name == "on" else f" ({name})"
    return Compilation(f"compiled{detail}", compiled=True, records_steps=compiler.records_steps)


def compile_settings(settings: dict[str, Any], *, on_gpu: bool) -> dict[str, Any]:
    """The arguments of torch.compile.

    A recipe has a few image sizes. On a CPU, code for each of them is faster. On a GPU one code serves all sizes: to
    compile takes long, and a step is hundreds of small kernels (355 operations for resnet20v1), whose number does not
    depend on the size.
    """
    return {"dynamic": on_gpu, **settings}


def make_deterministic(arithmetic: Arithmetic, *, strict: bool) -> None:
    """Disable TF32 until `settings_put_back` ends; with `strict`, allow only operations that repeat bit by bit."""
    if arithmetic.device.type == "cuda":
        use_full_precision()
        change_attribute(torch.backends.cudnn, "benchmark", not strict)
    if strict:
        set_in_environment("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        change(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True)


def peak_gpu_memory_gib() -> float:
    """The peak memory of tensors on the current GPU, in GiB; 0 if no GPU is in use."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else 0.0


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # With avx512_bf16 but no AMX, bf16 still trains resnet20v1 1.6 times as fast as fp32; without both, far slower.
    return bool({"amx_bf16", "avx512_bf16"} & set(this_machine().features))


def _compile_problem(device: torch.device, settings: dict[str, Any]) -> str:
    """What torch.compile lacks on this machine, or its error message; empty if it works."""
    commands = filter(None, (os.environ.get("CXX"), "g++", "clang++"))
    if not any(map(shutil.which, commands)):
        return "needs a C++ compiler"
    if device.type == "cuda" and find_spec("triton") is None:
        return "needs triton"
    use_writable_compiler_folders()
    try:  # the smallest possible function: this tests the compilers, their headers and the device
        torch.compile(_squares, **settings)(torch.ones(4, device=device, requires_grad=True)).backward()
    except Exception as error:
        return f"fails here: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return ""


def _squares(values: Tensor) -> Tensor:
    return (values * values).sum()
