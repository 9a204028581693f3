"""Measure one step of rtk's training in milliseconds, by network and compiler setting: train_speed.py ARCH...

It uses random images, so it needs no data set. Writes $OUT/train_speed.json. Exit code 1: nothing could be measured.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rtk.core.data.datasets import Split
from rtk.train.config import Compile, TrainConfig
from rtk.train.throughput import endless_steps
from torch import nn

OUT = Path(os.environ.get("OUT", "."))
STATIC = "on, code for each size"
VARIANTS: dict[str, Compile] = {name: name for name in ("off", "cudagraphs", "on", "reduce-overhead")} | {STATIC: "on"}
"""The value of --compile by the name of a row. On a GPU `on` makes one code for all image sizes."""
TRAIN_IMAGES = 50_000


def measure(arch: str, variant: str, device: str, seconds: float, *, size: int) -> dict[str, Any]:
    """One row of the table."""
    pixels = np.random.default_rng(0)
    split = Split(pixels.integers(0, 256, (5_000, size, size, 3), dtype=np.uint8), pixels.integers(0, 10, 5_000))
    original = nn.Module.compile
    torch._dynamo.reset()
    started_at = time.perf_counter()
    if variant == STATIC:
        nn.Module.compile = lambda self, **_: original(self, dynamic=False)  # type: ignore[method-assign]
    try:
        config = TrainConfig(arch, device=device, compile=VARIANTS[variant])
        _, _, words, steps = endless_steps(config, split)
        images = [next(steps) for _ in range(4)]
        synchronise(device)
        ready_s = time.perf_counter() - started_at
        count, started_at = 0, time.perf_counter()
        while not count or (time.perf_counter() - started_at < seconds and count < 400):
            next(steps)
            count += 1
        synchronise(device)
        step_s = (time.perf_counter() - started_at) / count
    finally:
        nn.Module.compile = original  # type: ignore[method-assign]
    return {
        "arch": arch,
        "variant": variant,
        "words": words,
        "ready_s": round(ready_s, 1),
        "ms_a_step": round(1e3 * step_s, 3),
        "images_a_step": images[-1],
        "epoch_s": round(TRAIN_IMAGES / images[-1] * step_s, 2),
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
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row, without preparation")
    parser.add_argument("--size", type=int, default=32, help="edge of the images")
    asked = parser.parse_args()
    rows = []
    for arch in asked.arch:
        for variant in asked.variants:
            try:
                row = measure(arch, variant, asked.device, asked.seconds, size=asked.size)
                print(
                    f"{arch:13} {variant:23} {row['ms_a_step']:9.3f} ms a step, {row['epoch_s']:8.2f} s an epoch, "
                    f"ready after {row['ready_s']} s ({row['words']})",
                    flush=True,
                )
            except Exception as error:  # a variant that fails is a result; the others still run
                row = {"arch": arch, "variant": variant, "error": f"{type(error).__name__}: {str(error)[:400]}"}
                print(f"{arch:13} {variant:23} {row['error'][:300]}", flush=True)
            rows.append(row)
            (OUT / "train_speed.json").write_text(json.dumps(rows, indent=1) + "\n")
    raise SystemExit(all("error" in row for row in rows))


if __name__ == "__main__":
    main()
