"""Run everything that needs a GPU, in steps of under ten minutes: python -m rtk.tools.gpu_checks OUT [STEP...].

Each step is a process of its own, writes its raw results below OUT and prints a short table. If something is missing
(TensorRT, pytest, a second GPU), the step reports it and the next step runs.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..cli.options import ENDED_BY_CTRL_C, INTERRUPTED

STEP_TIMEOUT_S = 570
BATCHES = "1,8,64,256,1024,4096"
TRAINED = ("resnet20v1", "resnet56v1", "resnet56v2", "resnet110v2")


def steps(out: Path) -> dict[str, list[str]]:
    """The command line of every step, the most important results first."""
    rtk = [sys.executable, "-m", "rtk"]
    here = [sys.executable, "-m", "rtk.tools.gpu_checks", str(out)]
    return {
        "doctor": [*rtk, "doctor", "--json"],
        "engine": [*here, "--engine"],
        "tests": [sys.executable, "-m", "pytest", "-m", "gpu", "-q", str(Path(__file__).parent.parent / "tests")],
        "bench": [*rtk, "bench", "--batch", BATCHES, "--seconds", "120", "--report", str(out / "bench")],
        **{f"train-{arch}": [*rtk, "bench-train", arch, "--device", "cuda", "--seconds", "40"] for arch in TRAINED},
    }


def run_steps(out: Path, chosen: Sequence[str]) -> int:
    """Run the chosen steps, or all, and return how many failed. Raises KeyboardInterrupt when Ctrl-C stops one."""
    known = steps(out)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        print(f"rtk: step {unknown[0]!r} is unknown; known: {', '.join(known)}", file=sys.stderr)
        return len(unknown)
    out.mkdir(parents=True, exist_ok=True)
    summary = []
    for name in chosen or known:
        started_at = time.monotonic()
        try:
            done = subprocess.run(known[name], capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False)
            code, text = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            code, text = 124, f"stopped after {STEP_TIMEOUT_S} s\n"
        (out / f"{name}.txt").write_text(text)
        if code in ENDED_BY_CTRL_C:
            raise KeyboardInterrupt
        summary.append((name, "ok" if code == 0 else f"exit code {code}", f"{time.monotonic() - started_at:.0f} s"))
        print(f"\n== {name} ==\n{text[-4000:]}", flush=True)
    print()
    for name, ended, took in summary:
        print(f"{name:18} {ended:14} {took:>6}")
    return sum(ended != "ok" for _, ended, _ in summary)


def check_engines(out: Path) -> None:
    """Build an engine of the zoo's default model with each installed TensorRT, run it, and compare with PyTorch."""
    import numpy as np

    from ..core.errors import RtkError
    from ..core.json_text import json_text
    from ..core.machine import this_machine
    from ..core.nvidia.driver import gpu, gpu_count
    from ..core.nvidia.flavor import FLAVORS
    from ..core.probe import probe_images
    from ..core.zoo import DEFAULT, zoo_file
    from ..export.config import EngineConfig
    from ..export.trt.build import engine_from_onnx
    from ..export.trt.hardware import DEFAULT_TARGETS
    from ..infer.backend import BackendOptions
    from ..infer.open_backend import open_backend

    reference = open_backend("torch", zoo_file(DEFAULT, ".pt"), BackendOptions(device="cpu"))
    images_NHWC = probe_images(256, reference.card.input)
    expected_NK = reference(images_NHWC)
    results = []
    for flavor in FLAVORS.values():
        for targets in ((), DEFAULT_TARGETS) if flavor.builds_without_gpu else ((),):
            result: dict[str, object] = {"flavor": flavor.name, "targets": list(targets) or "this GPU"}
            try:
                name = "-".join((flavor.name, *targets)) or flavor.name
                config = EngineConfig(
                    zoo_file(DEFAULT, ".onnx"), out=out / name, flavor=flavor.name, targets=targets, cache=False
                )
                built = engine_from_onnx(config)
                result |= {"version": built.info.version, "build_s": built.info.build_s}
                with open_backend("trt", built.path, BackendOptions(device="cuda:0")) as opened:
                    logits_NK = opened(images_NHWC)
                    result |= {"runs_on": opened.runs_on, "largest": float(np.abs(logits_NK - expected_NK).max())}
                    result["same_answers"] = int((logits_NK.argmax(1) == expected_NK.argmax(1)).sum())
            except RtkError as error:
                result["error"] = str(error)
            results.append(result)
            print(json_text(result), flush=True)
    found = {
        "machine": asdict(this_machine()),
        "gpus": [asdict(gpu(k)) for k in range(gpu_count())],
        "engines": results,
    }
    (out / "engine.json").write_text(json_text(found, indent=1, default=str) + "\n")


def main() -> None:
    """Read the command line."""
    words = sys.argv[1:]
    if not words or words[0].startswith("-"):
        print(f"usage: python -m rtk.tools.gpu_checks OUT [{'|'.join(steps(Path()))}]...", file=sys.stderr)
        sys.exit(2)
    out = Path(words[0])
    if words[1:] == ["--engine"]:
        out.mkdir(parents=True, exist_ok=True)
        check_engines(out)
        return
    try:
        sys.exit(min(run_steps(out, words[1:]), 1))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
