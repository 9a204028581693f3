"""rtk bench with the int8 graph of the payload: the training images that calibrate it are not on this machine.

The graph is the one that rtk exports for a GPU, made where the payload was built. Arguments: those of rtk. The options
in ONNXRUNTIME_OPTIONS ("name=value name=value") are given to ONNX Runtime's CUDA provider besides rtk's.
"""

import os
from pathlib import Path
from typing import Any

from rtk.cli.app import main
from rtk.core.paths import cache_path
from rtk.infer import onnx_backend
from rtk.workflow import artifacts

exported, providers = artifacts.cached_graph, onnx_backend._providers
more = dict(one.split("=", 1) for one in os.environ.get("ONNXRUNTIME_OPTIONS", "").split())


def cached_graph(checkpoint: Path, **options: Any) -> Path:
    """The graph of the payload for int8, else what rtk exports."""
    graph = cache_path("payload", f"{checkpoint.stem}.{options.get('precision', 'fp32')}.onnx")
    return graph if options.get("precision") == "int8" and graph.is_file() else exported(checkpoint, **options)


def providers_with_more(device: str, graph: Any) -> Any:
    """rtk's providers, with the other options."""
    return [(one[0], {**one[1], **more}) if isinstance(one, tuple) else one for one in providers(device, graph)]


if __name__ == "__main__":
    onnx_backend._providers = providers_with_more
    artifacts.cached_graph = cached_graph
    main()
