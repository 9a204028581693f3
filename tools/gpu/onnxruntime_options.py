"""Measure ONNX Runtime's CUDA provider with several of its options, and that the answers stay: which are the fastest?

Writes JSON to $OUT: images a second from memory of the GPU and from the host, by batch.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from rtk.core.data.open_dataset import open_dataset
from rtk.core.paths import cache_path
from rtk.core.zoo import zoo_file
from rtk.infer import onnx_backend
from rtk.infer.backend import BackendOptions
from rtk.infer.open_backend import open_backend
from smoke import images_per_s

OUT = Path(os.environ.get("OUT", "."))
OPTIONS: dict[str, dict[str, str]] = {
    "as rtk": {},
    "defaults": {"prefer_nhwc": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"},
    "nhwc": {"prefer_nhwc": "1"},
    "heuristic": {"cudnn_conv_algo_search": "HEURISTIC"},
    "nhwc heuristic": {"prefer_nhwc": "1", "cudnn_conv_algo_search": "HEURISTIC"},
    "fused": {"fuse_conv_bias": "1"},
    "nhwc fused": {"prefer_nhwc": "1", "fuse_conv_bias": "1"},
    "cuda graph": {"enable_cuda_graph": "1"},
    "nhwc cuda graph": {"prefer_nhwc": "1", "enable_cuda_graph": "1"},
}


def main() -> None:
    """Read the command line and measure every precision, option and batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet20v1-cifar10")
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--batches", default="64,1024")
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", default="onnxruntime_options.json", help="name of the file in $OUT")
    asked = parser.parse_args()
    images_NHWC = np.ascontiguousarray(open_dataset("cifar10").split("test").head(4096).images_NHWC)
    original = onnx_backend._providers
    rows = []
    for precision in asked.precisions.split(","):
        graph = zoo_file(asked.model, ".onnx")
        if precision != "fp32":
            graph = cache_path("payload", f"{asked.model}.{precision}.onnx")
        truth_NK = None
        for name, options in OPTIONS.items():

            def providers(device: str, graph: Any, options: dict[str, str] = options) -> Any:
                found = original(device, graph)
                return [(one[0], {**one[1], **options}) if isinstance(one, tuple) else one for one in found]

            row: dict[str, Any] = {"precision": precision, "options": name}
            rows.append(row)
            onnx_backend._providers = providers
            try:
                for batch in map(int, asked.batches.split(",")):
                    with open_backend("onnx", graph, BackendOptions(device=asked.device)) as backend:
                        mine = images_NHWC[:batch]
                        row[f"call {batch}"] = images_per_s(lambda: backend(mine), batch, asked.seconds)  # noqa: B023
                        resident = backend.resident(images_NHWC)
                        if resident is not None and "cuda graph" not in name:
                            run = resident.run
                            row[f"resident {batch}"] = images_per_s(lambda: run(0, batch), batch, asked.seconds)  # noqa: B023
                            resident.close()
                        if batch == max(map(int, asked.batches.split(","))):
                            logits_NK = backend(mine)
                            truth_NK = logits_NK if truth_NK is None else truth_NK
                            row["largest_difference"] = round(float(np.abs(logits_NK - truth_NK).max()), 6)
            except Exception as error:  # a refusal is a result
                row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
            finally:
                onnx_backend._providers = original
            print(json.dumps(row), flush=True)
            (OUT / asked.out).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
