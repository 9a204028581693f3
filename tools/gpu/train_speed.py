"""Measure one step of rtk's training in milliseconds, by network and compiler setting: train_speed.py ARCH...

It uses random images, so it needs no data set. Beside each time stand the kernels of a step and the time that they
take on the GPU: the rest is the host's. Writes $OUT/train_speed.json. Exit code 1: nothing could be measured.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rtk.core.data.datasets import Split
from rtk.train.config import Compile, TrainConfig
from rtk.train.throughput import endless_steps
from torch import nn

OUT = Path(os.environ.get("OUT", "."))
EACH_SIZE = ", code for each size"
MODES: tuple[Compile, ...] = ("off", "cudagraphs", "on", "on+cudagraphs", "reduce-overhead")
VARIANTS: dict[str, Compile] = {name: name for name in MODES} | {
    f"{name}{EACH_SIZE}": name for name in MODES if name not in ("off", "cudagraphs")
}
"""The value of --compile by the name of a row. On a GPU rtk makes one code for all image sizes."""
TRAIN_IMAGES = 50_000
IMAGES = 20_000
"""Random images: an epoch of several hundred steps."""
PROFILED_STEPS, KERNELS = 5, 12


def measure(arch: str, variant: str, device: str, seconds: float, *, size: int, precision: str) -> dict[str, Any]:
    """One row of the table."""
    pixels = np.random.default_rng(0)
    split = Split(pixels.integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8), pixels.integers(0, 10, IMAGES))
    original = nn.Module.compile
    torch._dynamo.reset()
    started_at = time.perf_counter()
    if variant.endswith(EACH_SIZE):
        nn.Module.compile = lambda self, **settings: original(  # type: ignore[method-assign]
            self, **{**settings, "dynamic": False}
        )
    try:
        config = TrainConfig(arch, device=device, compile=VARIANTS[variant], precision=precision)  # type: ignore[arg-type]
        _, _, words, steps = endless_steps(config, split)
        images = [next(steps) for _ in range(8)]  # a step is recorded after some others
        synchronise(device)
        ready_s = time.perf_counter() - started_at
        count, started_at = 0, time.perf_counter()
        while not count or (time.perf_counter() - started_at < seconds and count < 600):
            next(steps)
            count += 1
        host_s = (time.perf_counter() - started_at) / count
        synchronise(device)
        step_s = (time.perf_counter() - started_at) / count
        kernels = profiled(steps, device)
    finally:
        nn.Module.compile = original  # type: ignore[method-assign]
    return {
        "arch": arch,
        "variant": variant,
        "words": words,
        "ready_s": round(ready_s, 1),
        "ms_a_step": round(1e3 * step_s, 3),
        "host_ms": round(1e3 * host_s, 3),
        "images_a_step": images[-1],
        "epoch_s": round(TRAIN_IMAGES / images[-1] * step_s, 2),
        **kernels,
    }


def profiled(steps: Iterator[int], device: str) -> dict[str, Any]:
    """The kernels of a step, their milliseconds, and the longest ones; nothing without a GPU."""
    if not device.startswith("cuda"):
        return {}
    activities = [torch.profiler.ProfilerActivity.CUDA]
    try:
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(PROFILED_STEPS):
                next(steps)
            torch.cuda.synchronize()
        rows = [row for row in profile.key_averages() if row.self_device_time_total > 0]
    except Exception as error:  # without the profiler the times are still worth having
        return {"profile_error": f"{type(error).__name__}: {error}"}
    rows.sort(key=lambda row: -row.self_device_time_total)
    share = 1e-3 / PROFILED_STEPS
    return {
        "gpu_ms": round(sum(row.self_device_time_total for row in rows) * share, 3),
        "kernels": round(sum(row.count for row in rows) / PROFILED_STEPS),
        "longest": [(row.key[:90], round(row.self_device_time_total * share, 4), row.count) for row in rows[:KERNELS]],
    }


def synchronise(device: str) -> None:
    """Wait for the GPU, if there is one, because steps are asynchronous."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    """Read the command line and measure every network and variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arch", nargs="+")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each row, without preparation")
    parser.add_argument("--size", type=int, default=32, help="edge of the images")
    parser.add_argument("--out", default="train_speed.json", help="name of the file in $OUT")
    asked = parser.parse_args()
    rows = []
    for arch in asked.arch:
        for variant in asked.variants:
            try:
                row = measure(arch, variant, asked.device, asked.seconds, size=asked.size, precision=asked.precision)
                print(
                    f"{arch:10} {variant:33} {row['ms_a_step']:7.3f} ms (host {row['host_ms']:.3f}, "
                    f"kernels {row.get('gpu_ms', 0):.3f} in {row.get('kernels', 0)}), {row['epoch_s']:.2f} s an epoch; "
                    f"ready {row['ready_s']} s ({row['words']})",
                    flush=True,
                )
            except Exception as error:  # a variant that fails is a result; the others still run
                row = {"arch": arch, "variant": variant, "error": f"{type(error).__name__}: {str(error)[:400]}"}
                print(f"{arch:10} {variant:33} {row['error'][:300]}", flush=True)
            rows.append(row)
            (OUT / asked.out).write_text(json.dumps(rows, indent=1) + "\n")
    raise SystemExit(all("error" in row for row in rows))


if __name__ == "__main__":
    main()
