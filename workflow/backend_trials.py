"""Trials of all backends on this machine, each in its own process, so a crash or a hang does no harm."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..core.errors import RtkError
from ..core.nvidia.driver import gpu_count
from ..core.text import one_line

TRIAL_TIMEOUT_S = 120.0
GPU_ONLY = ("trt",)
CPU_ONLY = ("openvino",)


@dataclass(frozen=True)
class Trial:
    """The result of one backend on one device."""

    backend: str
    device: str
    works: bool
    words: str
    """What ran the model, or the reason why it does not run and what to do."""


def trials_here(backends: Sequence[str]) -> list[tuple[str, str]]:
    """List the trials: each backend on the CPU and the first GPU; a GPU-only backend also without a GPU."""
    on_cpu = [(name, "cpu") for name in backends if name not in GPU_ONLY]
    on_gpu = [(name, "cuda:0") for name in backends if name not in CPU_ONLY and (gpu_count() or name in GPU_ONLY)]
    return on_cpu + on_gpu


def run_trial_in_subprocess(backend: str, device: str) -> Trial:
    """Run run_trial in another process, for TRIAL_TIMEOUT_S at most."""
    command = [sys.executable, "-m", "rtk", "doctor", "--try", backend, "--device", device]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return Trial(backend, device, False, f"no answer within {TRIAL_TIMEOUT_S:.0f} s")
    try:
        return Trial(**json.loads(done.stdout.strip().splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no error message"])[-1]
        return Trial(backend, device, False, f"the process ended with exit code {done.returncode}: {last}")


def run_trial(backend: str, device: str) -> Trial:
    """Open the default model of the zoo on a backend and run it on generated images."""
    import numpy as np

    from ..core.probe import probe_images
    from ..core.zoo import DEFAULT
    from ..infer.backend import BackendOptions
    from .select import open_model

    try:
        with open_model(DEFAULT, backend=backend, options=BackendOptions(device=device)) as opened:
            logits_NK = opened(probe_images(8, opened.card.input))
            works = logits_NK.shape == (8, len(opened.card.classes)) and bool(np.isfinite(logits_NK).all())
            return Trial(backend, device, works, opened.runs_on if works else f"wrong output from {opened.runs_on}")
    except RtkError as error:
        return Trial(backend, device, False, one_line(error))


def json_from_trial(trial: Trial) -> str:
    """Return the line that the process of a trial prints."""
    return json.dumps(asdict(trial))
