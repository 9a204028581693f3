"""Find out whether TensorRT-RTX runs on this GPU: build engines of a small graph, and record what the runtime says.

rtk is not involved: every message is NVIDIA's. Targets are names of `ComputeCapability` with commas; `default` sets
none. Building needs no GPU, loading and running do. Writes $OUT/rtx_probe.json.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from rtk.core.zoo import zoo_file

try:
    import tensorrt_rtx as trt
except ImportError as error:
    raise SystemExit(f"TensorRT-RTX cannot be imported ({error}); install tensorrt-rtx") from None

GRAPH = zoo_file("resnet20v1-cifar10", ".onnx")
TARGETS = ["default", "CURRENT", "SM80", "SM80,SM86,SM89,SM120,SM121"]
MOST_LINES = 40
OUT = Path(os.environ.get("OUT", "."))


class Messages(trt.ILogger):
    """Keeps TensorRT's messages, except verbose ones."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: Any, text: str) -> None:
        """Keep one message. Called by TensorRT."""
        if severity != trt.ILogger.VERBOSE and len(self.lines) < MOST_LINES:
            self.lines.append(f"{str(severity).removeprefix('Severity.')}: {text[:400]}")


def build(targets: str, words: Messages) -> bytes | None:
    """The plan, or None when the builder fails."""
    builder = trt.Builder(words)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, words)
    assert parser.parse(GRAPH.read_bytes()), [parser.get_error(k).desc() for k in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if targets != "default":
        names = targets.split(",")
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    profile = builder.create_optimization_profile()
    profile.set_shape("images", (1, 32, 32, 3), (64, 32, 32, 3), (256, 32, 32, 3))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return None if plan is None else bytes(plan)


def main() -> None:
    """Read the command line, build for every target, and load each engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=TARGETS)
    words = Messages()
    found: dict[str, Any] = {
        "version": trt.__version__,
        "known": list(trt.ComputeCapability.__members__),
        "engines": [],
    }
    plans = {}
    for targets in parser.parse_args().targets:
        started_at = time.perf_counter()
        engine: dict[str, Any] = {"targets": targets}
        found["engines"].append(engine)
        try:
            plans[targets] = build(targets, words)
        except Exception as error:  # the message is the result
            engine["build_error"] = f"{type(error).__name__}: {error}"
        engine |= {"bytes": len(plans.get(targets) or b""), "build_s": round(time.perf_counter() - started_at, 2)}
        engine["words"], words.lines = words.lines, []
    try:
        runtime = trt.Runtime(words)
    except Exception as error:  # there is no GPU, or TensorRT-RTX does not know it
        runtime, found["runtime_error"] = None, f"{type(error).__name__}: {error}"
    found["runtime_words"], words.lines = words.lines, []
    for engine in found["engines"]:
        plan = plans.get(engine["targets"])
        if runtime is None or plan is None:
            continue
        try:
            engine["validity"] = str(runtime.get_engine_validity(plan))
            opened = runtime.deserialize_cuda_engine(plan)
            engine["deserialised"] = opened is not None
            engine["context"] = opened is not None and opened.create_execution_context() is not None
        except Exception as error:  # the message is the result
            engine["run_error"] = f"{type(error).__name__}: {error}"
        engine["runtime_words"], words.lines = words.lines, []
    (OUT / "rtx_probe.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"TensorRT-RTX {found['version']} knows {', '.join(found['known'])}")
    for line in [found.get("runtime_error", "runtime: made"), *found["runtime_words"][:6]]:
        print(f"  {line}")
    for engine in found["engines"]:
        print(" ".join(f"{key} {value};" for key, value in engine.items() if not key.endswith("words")))
        said = [*engine["words"], *engine.get("runtime_words", [])]
        for line in [one for one in said if not one.startswith("INFO")][:4]:
            print(f"  {line}")


if __name__ == "__main__":
    main()
