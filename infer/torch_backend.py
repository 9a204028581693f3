"""The torch backend: a checkpoint in PyTorch, fp32 without TF32. It is the reference for all other backends.

TF32 and the number of threads are settings of the whole process. A command sets them for good; in a program that uses
rtk as a library they are set during a call only.
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.artifacts.checkpoint import load_checkpoint
from ..core.errors import BackendError
from ..core.machine import usable_cores
from ..core.models.full_precision import use_full_precision
from ..core.models.model import exact_logits, tensor_from_images
from ..core.models.rounded import rounded_logits
from ..core.process_settings import change, process_is_owned, settings_put_back
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
        self._threads = options.threads
        if process_is_owned():
            self._set()
            if device == "cpu":
                keep_freed_memory()
        loaded = load_checkpoint(checkpoint)
        self.card = loaded.card
        self._torch_device = torch.device(device)
        self._model = loaded.model().to(self._torch_device)
        self.device = "cpu" if device == "cpu" else f"cuda:{self._torch_device.index or 0}"
        with self._settings():
            self.runs_on = f"PyTorch {torch.__version__}, eager, {_hardware(self._torch_device)}"

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """Compute with this backend's threads, and without TF32, inside the block.

        Without --threads: PyTorch's own number, but it knows no quotas of containers.
        """
        if process_is_owned():  # the constructor has set them
            yield
            return
        with settings_put_back():
            self._set()
            yield

    def _set(self) -> None:
        threads = self._threads or min(torch.get_num_threads(), usable_cores())
        change(torch.get_num_threads, torch.set_num_threads, threads)
        use_full_precision()

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        with self._settings(), torch.inference_mode():
            logits_NK = self._model(tensor_from_images(images_NHWC).to(self._torch_device))
            result: NDArray[np.float32] = logits_NK.cpu().numpy()
        return result

    def _rounding(self, images_NHWC: NDArray[np.uint8]) -> float:
        """Return the largest difference of the logits from those in fp64."""
        with self._settings():
            return float(np.abs(self(images_NHWC) - exact_logits(self._model, images_NHWC)).max())

    def _rounded(self, images_NHWC: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
        with self._settings():
            return rounded_logits(self._model, images_NHWC, TORCH_TYPES[precision])

    def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident | None:
        """Copy the images to the GPU; None on the CPU."""
        return None if self.device == "cpu" else _OnGpu(self._model, images_NHWC, self._torch_device)

    def _free(self) -> None:
        """Drop the model."""
        vars(self).pop("_model", None)


class _OnGpu(Resident):
    def __init__(self, model: torch.nn.Module, images_NHWC: NDArray[np.uint8], device: torch.device) -> None:
        self._model, self._device = model, device
        self._images_NHWC = tensor_from_images(images_NHWC).to(device)

    def run(self, start: int, count: int) -> float:
        with settings_put_back(), torch.inference_mode(), torch.cuda.device(self._device):
            use_full_precision()
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
