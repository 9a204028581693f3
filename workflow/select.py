"""Choose the best backend for a model on this machine, and open the model on it."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ..core.artifacts.parity_cache import parity_is_known
from ..core.errors import ArtifactError, BackendError, RtkError, noted
from ..core.nvidia.driver import gpu_count
from ..core.text import wrapped
from .artifacts import artifact_for, cached_fp32_graph
from .models import ModelFiles, find_model

if TYPE_CHECKING:
    from ..infer.backend import Backend, BackendOptions

_log = logging.getLogger(__name__)

Opened = TypeVar("Opened")


def backends_for(found: ModelFiles, *, device: str = "auto") -> list[str]:
    """The backends that should run a model on this machine, best first: trt if it can run, then openvino or onnx.

    trt is left out for graphs that TensorRT refuses. openvino is chosen only if this graph has shown parity on it on
    this machine. If one cannot be opened, the next one may: some reasons only show then.
    """
    if found.engine:
        return ["trt"]
    graph = found.graph or (cached_fp32_graph(found.checkpoint) if found.checkpoint else None)
    gpu_for_onnx = device != "cpu" and gpu_count() > 0
    may_use_openvino = device == "cpu" or (device == "auto" and not gpu_for_onnx)
    if graph and graph.is_file() and may_use_openvino and parity_is_known(graph, "openvino"):
        on_any_machine = ["openvino", "onnx"]
    else:
        on_any_machine = ["onnx"]
    return ["trt", *on_any_machine] if _trt_can_run(found, device) else on_any_machine


def choose_backend(found: ModelFiles, *, device: str = "auto") -> str:
    """The first of `backends_for`."""
    return backends_for(found, device=device)[0]


def _trt_can_run(found: ModelFiles, device: str) -> bool:
    """Whether this machine has what trt needs, and TensorRT takes this kind of graph."""
    from ..infer.trt.preflight import check_machine

    if device == "cpu":
        return False
    with contextlib.suppress(RtkError):
        check_machine(device=device)
        return found.graph is None or not found.card.for_cpus_only
    return False


def first_that_opens(backends: Sequence[str], open_it: Callable[[str], Opened]) -> Opened:
    """Open the first backend that works, and log why those before it do not. Raises the error of the last one."""
    for name, following in itertools.pairwise(backends):
        try:
            return open_it(name)
        except (BackendError, ArtifactError) as error:
            _log.warning(wrapped(f"--backend auto: {noted(error)}; {following} is used instead"))
    return open_it(backends[-1])


def open_model(
    name: str, *, backend: str = "auto", options: "BackendOptions | None" = None, max_batch: int = 1
) -> "Backend":
    """Open a model by its name on a backend. An engine that is built for it takes batches of `max_batch` or more.

    Raises the errors of find_model, artifact_for and open_backend.
    """
    from ..infer.backend import BackendOptions
    from ..infer.open_backend import open_backend

    found, options = find_model(name), options or BackendOptions()
    names = backends_for(found, device=options.device) if backend == "auto" else [backend]

    def open_on(chosen: str) -> "Backend":
        return open_backend(chosen, artifact_for(chosen, found, max_batch=max_batch, device=options.device), options)

    return first_that_opens(names, open_on)
