"""The call that opens a session of ONNX Runtime on a GPU, seen on a machine without one."""

from dataclasses import dataclass, field

import onnxruntime
import pytest
from rtk.infer import onnx_backend


@dataclass
class CudaSession:
    """ONNX Runtime with a CUDA provider whose sessions do not open: each raises RuntimeError("not here")."""

    gpus: int = 1
    arguments: dict[str, object] = field(default_factory=dict)
    """What the last session was to be opened with, without the graph and the settings."""
    entries: dict[str, str] = field(default_factory=dict)
    """The entries of its settings that rtk relies on on a GPU, by their name without "session."."""

    def use(self, monkeypatch: pytest.MonkeyPatch) -> "CudaSession":
        """Put it in the place of ONNX Runtime's sessions, and return it."""
        monkeypatch.setattr(onnxruntime, "InferenceSession", self._open)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
        monkeypatch.setattr(onnx_backend, "gpu_count", lambda: self.gpus)
        monkeypatch.setattr(onnx_backend, "_missing_library", lambda: "")
        return self

    def _open(self, graph: object, settings: onnxruntime.SessionOptions, **arguments: object) -> None:
        self.arguments = arguments
        self.entries = {
            name: settings.get_session_config_entry(f"session.{name}")
            for name in ("disable_quant_qdq", "disable_cpu_ep_fallback")
        }
        raise RuntimeError("not here")
