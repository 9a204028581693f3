"""Compare the answers of each backend on a test split with those of PyTorch on the CPU, and measure a first rate.

Writes $OUT/smoke.json. A backend that refuses to run (BackendError) is a result; another error gives exit code 1.
"""

import argparse
import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rtk.bench.baselines.inference import CompiledTorch
from rtk.bench.parity.compare import all_logits, compare
from rtk.core.data.open_dataset import open_dataset
from rtk.core.errors import BackendError
from rtk.core.paths import cache_path
from rtk.core.zoo import zoo_file
from rtk.infer.backend import Backend, BackendOptions
from rtk.infer.open_backend import open_backend
from rtk.workflow.artifacts import cached_graph

OUT = Path(os.environ.get("OUT", "."))


def openers(model: str, device: str, precisions: list[str]) -> dict[str, Callable[[], Backend]]:
    """How to open each backend. Graphs of other precisions are those of the payload, or else exported."""
    checkpoint, where = zoo_file(model, ".pt"), BackendOptions(device=device)

    def graph(precision: str) -> Path:
        in_payload = cache_path("payload", f"{model}.{precision}.onnx")
        if in_payload.is_file():
            return in_payload
        return cached_graph(checkpoint, precision=precision, int8_flavor="tensorrt", dataset=open_dataset("cifar10"))

    return {
        "torch": lambda: open_backend("torch", checkpoint, where),
        "onnx": lambda: open_backend("onnx", zoo_file(model, ".onnx"), where),
        **{f"onnx {p}": lambda p=p: open_backend("onnx", graph(p), where) for p in precisions},
        "torch.compile": lambda: CompiledTorch(checkpoint, where),
    }


def images_per_s(call: Callable[[], Any], count: int, seconds: float) -> int:
    """Images per second, by the median call within that time, after a warm-up. Every call waits for its answer."""
    for _ in range(3):
        call()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 500):
        started_at = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_at)
    return round(count / float(np.median(times)))


def main() -> None:
    """Read the command line and check every backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet20v1-cifar10")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batches", default="1,256,4096")
    parser.add_argument("--precisions", default="fp16,bf16,int8")
    parser.add_argument("--seconds", type=float, default=0.5, help="a cell")
    parser.add_argument("--backends", default="", help="some of them, with commas; default: all")
    asked = parser.parse_args()

    split = open_dataset(asked.dataset).split("test").head(asked.images)
    with open_backend("torch", zoo_file(asked.model, ".pt"), BackendOptions(device="cpu")) as reference:
        truth_NK = all_logits(reference, split.images_NHWC)
    rows: list[dict[str, Any]] = []
    faults = 0
    known = openers(asked.model, asked.device, asked.precisions.split(","))
    for label in asked.backends.split(",") if asked.backends else known:
        opened = known[label]
        row: dict[str, Any] = {"backend": label}
        rows.append(row)
        started_at = time.perf_counter()
        try:
            with opened() as backend:
                row |= {"runs_on": backend.runs_on, "ready_s": round(time.perf_counter() - started_at, 2)}
                started_at = time.perf_counter()
                found_NK = all_logits(backend, split.images_NHWC)
                row["all_images_s"] = round(time.perf_counter() - started_at, 2)
                parity = compare(label, truth_NK, found_NK, split.labels_N)
                row |= {
                    "images": len(split),
                    "agreeing": parity.agreeing,
                    "correct": parity.candidate_correct,
                    "reference_correct": parity.reference_correct,
                    "largest_difference": round(parity.largest_difference, 6),
                }
                resident = backend.resident(np.ascontiguousarray(split.images_NHWC[:4096]))
                for batch in map(int, asked.batches.split(",")):
                    batch_NHWC = split.images_NHWC[:batch]
                    row[f"call {batch}"] = images_per_s(lambda: backend(batch_NHWC), batch, asked.seconds)  # noqa: B023
                    if resident is not None:
                        row[f"resident {batch}"] = images_per_s(
                            lambda: resident.run(0, batch),  # noqa: B023
                            batch,
                            asked.seconds,
                        )
                if resident is not None:
                    resident.close()
        except BackendError as error:
            faults += "runs_on" in row  # it opened, and then failed
            row["error"] = str(error)
        except Exception as error:  # the other backends still run
            faults += 1
            row["error"] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        (OUT / "smoke.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("backend        agree  correct (of)     largest   images a second: batch, from the host | on the GPU")
    for row in rows:
        if "agreeing" in row:
            counts = f"{row['agreeing']:6}  {row['correct']:6} ({row['reference_correct']})"
            counts += f"  {row['largest_difference']:9.6f}"
            rates = [f"{b}: {row[f'call {b}']:,} | {row.get(f'resident {b}', 0):,}" for b in asked.batches.split(",")]
            print(f"{row['backend']:13} {counts}   {'; '.join(rates)}")
        else:
            print(f"{row['backend']:13} {row.get('error', '')[:300]}")
    raise SystemExit(min(faults, 1))


if __name__ == "__main__":
    main()
