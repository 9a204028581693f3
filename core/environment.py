"""What rtk sets in the environment for the libraries that it loads. What the user has set stays as it is.

`import rtk` calls `switch_off_telemetry`, so that every process passes there before a library is loaded: commands,
programs that use the Python API, decoding processes, Ray's actors. Those two variables stay, because libraries may read
them at any time; the others are set during a call only, except in the process of a command.
"""

import contextlib
import getpass
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import OutputError
from .paths import cache_path, can_write, home_dir
from .process_settings import set_in_environment

OPENVINO_TELEMETRY = "openvino_telemetry"
"""The package by which OpenVINO sends its statistics. OpenVINO works without it."""


def switch_off_telemetry() -> None:
    """Set the switches of ONNX Runtime and Ray. ONNX Runtime reads its one while it is imported."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextlib.contextmanager
def without_openvino_telemetry() -> Iterator[None]:
    """While OpenVINO is imported in the block, it finds its telemetry package missing, and does without it.

    Its only other switch is a file in the home folder, which not every user has or wants.
    """
    nothing = object()
    before = sys.modules.get(OPENVINO_TELEMETRY, nothing)
    sys.modules[OPENVINO_TELEMETRY] = None  # type: ignore[assignment]  # import then raises ImportError
    try:
        yield
    finally:
        if before is nothing:
            del sys.modules[OPENVINO_TELEMETRY]
        else:
            sys.modules[OPENVINO_TELEMETRY] = before  # type: ignore[assignment]


def use_writable_matplotlib_folder() -> None:
    """Before Matplotlib is imported: name a folder for its fonts if it would find none, and complain."""
    home = home_dir()
    configured = os.environ.get("XDG_CONFIG_HOME") or (home and home / ".config")
    if "MPLCONFIGDIR" not in os.environ and not (configured and can_write(Path(configured) / "matplotlib")):
        with contextlib.suppress(OutputError):  # then Matplotlib complains itself
            folder = cache_path("matplotlib")
            if can_write(folder):
                set_in_environment("MPLCONFIGDIR", str(folder))


def use_writable_compiler_folders() -> None:
    """Before torch.compile: name folders for a user without a name, or without a home, where its own would fail."""
    with contextlib.suppress(OutputError, OSError):  # then torch.compile reports its own problem
        try:
            getpass.getuser()
        except (KeyError, OSError):
            folder = Path(tempfile.gettempdir(), f"torchinductor_uid_{os.getuid()}")
            set_in_environment("TORCHINDUCTOR_CACHE_DIR", str(folder))
        home = home_dir()
        if home is None or not os.access(home, os.W_OK):
            set_in_environment("TRITON_CACHE_DIR", str(cache_path("triton")))
