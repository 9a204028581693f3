"""The torch backend: a checkpoint in PyTorch, fp32 without TF32. It is the reference for all other backends."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.artifacts.checkpoint import load_checkpoint
from ..core.errors import BackendError
from ..core.machine import usable_cores
from ..core.models.model import exact_logits, tensor_from_images
from ..core.models.rounded import rounded_logits
from .backend import Backend, BackendOptions, Resident

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h

KEPT_BYTES = 512 * 2**20
"""Largest amount of free memory that glibc keeps at the end of the heap."""

TORCH_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

LARGEST_BLOCK = 32 * 2**20
"""Larger blocks still come from the system each time: glibc accepts no larger number here."""


class TorchBackend(Backend):
    """Runs the checkpoint's model eagerly."""

    name = "torch"

    def __init__(self, checkpoint: Path, options: BackendOptions) -> None:
        device = options.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendError(
                f"torch: --device {device}: this PyTorch ({torch.__version__}) finds no CUDA GPU; "
                "use --device cpu, or see: rtk doctor"
            )
        if device.startswith("cuda:") and int(device[5:]) >= torch.cuda.device_count():
            raise BackendError(
                f"torch: --device {device}: this machine has {torch.cuda.device_count()} CUDA GPU(s), numbered from 0"
            )
        # Without --threads: PyTorch's own number, but it knows no quotas of containers.
        torch.set_num_threads(options.threads or min(torch.get_num_threads(), usable_cores()))
        if device == "cpu":
            keep_freed_memory()
        else:
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        loaded = load_checkpoint(checkpoint)
        self.card = loaded.card
        self._torch_device = torch.device(device)
        self._model = loaded.model().to(self._torch_device)
        self.device = "cpu" if device == "cpu" else f"cuda:{self._torch_device.index or 0}"
        self.runs_on = f"PyTorch {torch.__version__}, eager, {_hardware(self._torch_device)}"

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits_NK = self._model(tensor_from_images(images_NHWC).to(self._torch_device))
        result: NDArray[np.float32] = logits_NK.cpu().numpy()
        return result

    def _rounding(self, images_NHWC: NDArray[np.uint8]) -> float:
        """Return the largest difference of the logits from those in fp64."""
        return float(np.abs(self(images_NHWC) - exact_logits(self._model, images_NHWC)).max())

    def _rounded(self, images_NHWC: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        return rounded_logits(self._model, images_NHWC, TORCH_TYPES[precision])

    def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident | None:
        """Copy the images to the GPU; None on the CPU."""
        return None if self.device == "cpu" else _OnGpu(self._model, images_NHWC, self._torch_device)

    def close(self) -> None:
        """Drop the model."""
        self._model = torch.nn.Identity()  # type: ignore[assignment]


class _OnGpu(Resident):
    def __init__(self, model: torch.nn.Module, images_NHWC: NDArray[np.uint8], device: torch.device) -> None:
        self._model, self._device = model, device
        self._images_NHWC = tensor_from_images(images_NHWC).to(device)

    def run(self, start: int, count: int) -> float:
        with torch.inference_mode(), torch.cuda.device(self._device):
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            self._model(self._images_NHWC[start : start + count])
            ended.record()
            ended.synchronize()
            return began.elapsed_time(ended) / 1e3


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} {'thread' if torch.get_num_threads() == 1 else 'threads'}"


def keep_freed_memory() -> None:
    """Let glibc keep the memory that large tensors free, for the rest of the process. Other C libraries are unchanged.

    By default glibc may return large blocks to the system, depending on the layout of the heap. The system then
    provides zeroed pages again. This takes much of the time of eager PyTorch on a CPU, in some processes more than in
    others.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
