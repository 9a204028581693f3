"""Build an engine of the zoo's default model with each installed TensorRT, run it, and compare with PyTorch.

python -m rtk.tools.gpu_engines OUT [--build-only] writes OUT/engine.json. A refusal, because this machine has no such
TensorRT or its GPU is not supported, is a result too.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..cli.options import run_module
from ..core.errors import BackendError, OtherGpuError, RtkError, UnavailableError
from ..core.files import temporary_folder
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

IMAGES = 256


def check_engines(
    out: Path,
    build_only: Annotated[bool, typer.Option("--build-only", help="Build what needs no GPU; run nothing.")] = False,
) -> None:
    """Build an engine with each installed TensorRT, run it, and compare its answers with PyTorch's.

    A refusal is a result. Raises BackendError if an engine fails otherwise, or gives other answers.
    """
    out.mkdir(parents=True, exist_ok=True)
    with temporary_folder(None) as built_in:  # engines run on this machine only: they are no result to keep
        results = _results(built_in, build_only=build_only)
    found = {
        "machine": asdict(this_machine()),
        "gpus": [asdict(gpu(k)) for k in range(gpu_count())],
        "engines": results,
    }
    (out / "engine.json").write_text(json_text(found, indent=1, default=str) + "\n")
    for one in results:
        if "error" in one:
            raise BackendError(f"{one['flavor']}: an engine failed: {one['error']}")
        if one.get("same_answers", IMAGES) != IMAGES:
            raise BackendError(f"{one['flavor']}: {one['same_answers']} of {IMAGES} answers are those of PyTorch")


def _results(built_in: Path, *, build_only: bool) -> list[dict[str, object]]:
    reference = open_backend("torch", zoo_file(DEFAULT, ".pt"), BackendOptions(device="cpu"))
    images_NHWC = probe_images(IMAGES, reference.card.input)
    expected_NK = reference(images_NHWC)
    results: list[dict[str, object]] = []
    for flavor in FLAVORS.values():
        for targets in ((), DEFAULT_TARGETS) if flavor.builds_without_gpu else ((),):
            if build_only and not targets:
                continue
            result: dict[str, object] = {"flavor": flavor.name, "targets": list(targets) or "this GPU"}
            try:
                name = "-".join((flavor.name, *targets)) or flavor.name
                config = EngineConfig(
                    zoo_file(DEFAULT, ".onnx"), out=built_in / name, flavor=flavor.name, targets=targets, cache=False
                )
                built = engine_from_onnx(config)
                result |= {"version": built.info.version, "build_s": built.info.build_s}
                if not build_only:
                    with open_backend("trt", built.path, BackendOptions(device="cuda:0", steady=True)) as opened:
                        logits_NK = opened(images_NHWC)
                        result |= {"runs_on": opened.runs_on, "largest": float(np.abs(logits_NK - expected_NK).max())}
                        result["same_answers"] = int((logits_NK.argmax(1) == expected_NK.argmax(1)).sum())
            except (UnavailableError, OtherGpuError) as refusal:
                result["refused"] = str(refusal)
            except RtkError as error:
                result["error"] = str(error)
            results.append(result)
            print(json_text(result), flush=True)
    return results


if __name__ == "__main__":
    run_module(check_engines)
