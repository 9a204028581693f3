"""Open a backend, run it and close it, many times: does memory of the GPU stay lost? open_close.py BACKEND [TIMES].

Stops after the time limit, and prints how often that was, and the free memory before and after.
"""

import argparse
import gc
import time

from cuda.bindings import runtime as cuda
from rtk.core.probe import probe_images
from rtk.core.zoo import DEFAULT, zoo_file
from rtk.infer.backend import BackendOptions
from rtk.infer.open_backend import open_backend
from rtk.workflow.artifacts import artifact_for
from rtk.workflow.models import find_model


def free_bytes() -> int:
    """Free memory of the GPU in bytes, as the driver reports it."""
    gc.collect()
    code, free, _ = cuda.cudaMemGetInfo()
    assert int(code) == 0, code
    return int(free)


def main() -> None:
    """Read the command line; exit code 1 if memory is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend")
    parser.add_argument("times", nargs="?", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds")
    asked = parser.parse_args()
    artifact = zoo_file(DEFAULT, ".onnx")
    if asked.backend == "trt":
        artifact = artifact_for("trt", find_model(str(artifact)), max_batch=64, device="cuda:0")
    seen, started_at = list[int](), time.perf_counter()
    for number in range(asked.times):
        with open_backend(asked.backend, artifact, BackendOptions(device="cuda:0")) as backend:
            backend(probe_images(64, backend.card.input))
        if number % max(1, asked.times // 100) == 4:
            seen.append(free_bytes())
        if time.perf_counter() - started_at > asked.limit:
            break
    lost = seen[0] - free_bytes()
    taken_s = time.perf_counter() - started_at
    print(f"{asked.backend}: opened and closed {number + 1} times in {taken_s:.1f} s; {lost} bytes of memory lost")
    print("free MiB on the way:", *(value >> 20 for value in seen[:: max(1, len(seen) // 20)]))
    raise SystemExit(lost > 8 << 20)


if __name__ == "__main__":
    main()
