"""Inference without rtk, measured in the same run: torch.compile, and the loop that a user writes first.

The first baseline, eager PyTorch, is the torch backend itself. All of them run a checkpoint in fp32.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.environment import use_writable_compiler_folders
from ...core.errors import BackendError
from ...core.models.own_code import logits_of
from ...infer.backend import BackendOptions, Resident
from ...infer.torch_backend import TorchBackend

COMPILERS = ("c++", "g++", "clang++")


class CompiledTorch(TorchBackend):
    """The checkpoint's model after torch.compile with its defaults: compiled for the first batch size, then for any."""

    name = "torch.compile"

    def __init__(self, checkpoint: Path, options: BackendOptions) -> None:
        """Raises BackendError on a CPU without a C++ compiler."""
        super().__init__(checkpoint, options)
        if self.device == "cpu" and not any(map(shutil.which, COMPILERS)):
            raise BackendError(f"torch.compile: needs a C++ compiler on a CPU; found none of {', '.join(COMPILERS)}")
        use_writable_compiler_folders()
        self._model = torch.compile(self._model)  # type: ignore[assignment]
        self.runs_on = self.runs_on.replace("eager", "torch.compile")


class PlainLoop(TorchBackend):
    """The loop of tutorials: each image becomes a float tensor, is normalised on the host, stacked, copied and run.

    The network is the checkpoint's; scaling and normalisation are the loop's own.
    """

    name = "plain loop"

    def __init__(self, checkpoint: Path, options: BackendOptions) -> None:
        super().__init__(checkpoint, options)
        if not self.card.preprocessing.is_plain:
            raise BackendError(
                f"plain loop: it can only scale and normalise, but the model has {self.card.preprocessing.to_text()}"
            )
        self._mean_C11 = torch.tensor(self.card.preprocessing.mean)[:, None, None]
        self._deviation_C11 = torch.tensor(self.card.preprocessing.deviation)[:, None, None]
        self._network = self._model.network
        self.runs_on = self.runs_on.replace("eager", "eager, image by image on the host")

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        tensors = []
        for image_HWC in images_NHWC:
            tensor_CHW = torch.from_numpy(image_HWC).permute(2, 0, 1).float() / 255
            tensors.append((tensor_CHW - self._mean_C11) / self._deviation_C11)
        with self._settings(), torch.no_grad():
            logits_NK = logits_of(self._network(torch.stack(tensors).to(self._torch_device)))
        return logits_NK.cpu().numpy()

    def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident | None:
        """None: its arithmetic is the same as that of the torch backend."""
        return None


BASELINES = (CompiledTorch, PlainLoop)
