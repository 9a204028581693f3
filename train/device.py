"""Where and how a training computes: device, precision, compilation, determinism."""

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from ..core.environment import use_writable_compiler_folders
from ..core.errors import BackendError
from ..core.machine import this_machine, usable_cores
from .config import Compile, Precision


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
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))  # PyTorch knows no quotas of containers
    chosen = torch.device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        if chosen.index >= torch.cuda.device_count():
            raise BackendError(
                f"--device {device}: this machine has {torch.cuda.device_count()} CUDA GPU(s), numbered from 0"
            )
        torch.cuda.set_device(chosen)  # page-locked memory, events and streams belong to the current device
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    return Arithmetic(chosen, torch.bfloat16 if precision == "bf16" else None)


def compile_network(network: nn.Module, arithmetic: Arithmetic, mode: Compile) -> str:
    """Compile the network in place if `mode` asks for it and it works here; return a description of what was done.

    With `auto`, it is compiled only where that was measured to help. Raises BackendError if `mode` is on and
    compilation does not work.
    """
    if mode == "off":
        return "not compiled"
    helps = arithmetic.device.type == "cuda" or "amx_bf16" in this_machine().features
    if mode == "auto" and not helps:
        return "not compiled (no gain on this processor)"
    problem = _compile_problem(arithmetic.device)
    if problem and mode == "on":
        raise BackendError(f"--compile on: torch.compile {problem}")
    if problem:
        return f"not compiled (torch.compile {problem})"
    network.compile(dynamic=False)  # a recipe has only a few image sizes: separate code for each is faster
    return "compiled"


def make_deterministic(arithmetic: Arithmetic, *, strict: bool) -> None:
    """Disable TF32 for the rest of the process; with `strict`, allow only operations that repeat bit by bit."""
    if arithmetic.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = not strict
    if strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def peak_gpu_memory_gib() -> float:
    """The peak memory of tensors on the current GPU, in GiB; 0 if no GPU is in use."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else 0.0


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # With avx512_bf16 but no AMX, bf16 still trains resnet20v1 1.6 times as fast as fp32; without both, far slower.
    return bool({"amx_bf16", "avx512_bf16"} & set(this_machine().features))


def _compile_problem(device: torch.device) -> str:
    """What torch.compile lacks on this machine, or its error message; empty if it works."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name):
        return "needs a C++ compiler"
    if device.type == "cuda" and find_spec("triton") is None:
        return "needs triton"
    use_writable_compiler_folders()
    try:  # the smallest possible function: this tests the compilers, their headers and the device
        torch.compile(_squares)(torch.ones(4, device=device, requires_grad=True)).backward()
    except Exception as error:
        return f"fails here: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return ""


def _squares(values: Tensor) -> Tensor:
    return (values * values).sum()
