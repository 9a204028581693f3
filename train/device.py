"""Where and how the arithmetic of a training runs: device, precision, compilation, determinism."""

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from ..core.errors import BackendError
from ..core.machine import this_machine
from .config import Compile, Precision


@dataclass(frozen=True)
class Arithmetic:
    """What was decided for this machine."""

    device: torch.device
    autocast: torch.dtype | None
    """The type that convolutions compute in, or None for fp32."""

    @property
    def precision(self) -> str:
        """As users call it."""
        return "bf16" if self.autocast == torch.bfloat16 else "fp32"


def choose_arithmetic(device: str, precision: Precision) -> Arithmetic:
    """Decide on device and precision. Raises BackendError when the device that was asked for is not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendError(f"--device {device}: this PyTorch ({torch.__version__}) finds no CUDA GPU")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        if chosen.index >= torch.cuda.device_count():
            raise BackendError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA GPU(s)")
        torch.cuda.set_device(chosen)  # page-locked memory, events and streams are the current device's
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    return Arithmetic(chosen, torch.bfloat16 if precision == "bf16" else None)


def compiled(network: nn.Module, arithmetic: Arithmetic, wish: Compile) -> str:
    """Compile the network, in place, where that is wished for, helps and works; say in words what was done.

    Raises BackendError when compilation was asked for and does not work.
    """
    if wish == "off":
        return "not compiled"
    helps = arithmetic.device.type == "cuda" or "amx_bf16" in this_machine().features
    if wish == "auto" and not helps:
        return "not compiled (no gain on this processor)"
    lacking = _compiler_lacking(arithmetic.device)
    if lacking and wish == "on":
        raise BackendError(f"--compile on: torch.compile {lacking}")
    if lacking:
        return f"not compiled (torch.compile {lacking})"
    network.compile(dynamic=False)  # a recipe has a handful of image sizes: code of its own for each is faster
    return "compiled"


def be_deterministic(arithmetic: Arithmetic, *, everywhere: bool) -> None:
    """fp32 without TF32, and with `everywhere` only operations that repeat bit by bit, for the rest of the process."""
    if arithmetic.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = not everywhere
    if everywhere:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def peak_gpu_memory_gib() -> float:
    """The most that tensors have held of the GPU in use so far, in GiB; 0 where none is."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else 0.0


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # With avx512_bf16 and no AMX, bf16 still trains resnet20v1 1.6 times as fast as fp32; without either, far slower.
    return bool({"amx_bf16", "avx512_bf16"} & set(this_machine().features))


def _compiler_lacking(device: torch.device) -> str:
    """What torch.compile needs and does not find, or what it says when it fails; nothing where it works."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name):
        return "needs a C++ compiler"
    if device.type == "cuda" and find_spec("triton") is None:
        return "needs triton"
    try:  # as small as can be: it is the compilers, their headers and this device that are tried
        torch.compile(_squares)(torch.ones(4, device=device, requires_grad=True)).backward()
    except Exception as error:
        return f"fails here: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return ""


def _squares(values: Tensor) -> Tensor:
    return (values * values).sum()
