"""Build TensorRT engines from graphs: one flow for TensorRT 10, TensorRT 11 and TensorRT-RTX.

The network is strongly typed, so the graph alone decides the precision. rtk counts the data types of the built layers
and reports them. The build needs no torch. The engine file holds TensorRT's own bytes; the JSON file beside it
describes them.
"""

import contextlib
import hashlib
import logging
import shutil
import time
import traceback
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...core.artifacts.engine import (
    SUFFIX,
    EngineInfo,
    PrecisionAsBuilt,
    Profile,
    network_name,
    read_engine_info,
    read_plan,
    write_engine,
)
from ...core.artifacts.engine_cache import cache_engine, engine_folder, engine_key, find_engine
from ...core.artifacts.graph import load_graph
from ...core.card import ModelCard, engine_card
from ...core.errors import ArtifactError, BackendError, UnavailableError
from ...core.files import made_by_one, make_folder
from ...core.library_errors import reason_of
from ...core.machine import this_machine
from ...core.nvidia.driver import UsingGpu
from ...core.nvidia.flavor import Flavor, LogLines, choose_flavor, collected_errors, logger_of
from ...core.nvidia.layer_types import layers_of_engine, precision_of_network
from ...core.nvidia.validity import refusal_of
from ...core.own_sources import sources_sha256
from ...core.paths import only_a_cache
from ...core.text import wrapped
from ..config import EngineConfig
from .build_progress import BuildProgress, monitor_for
from .builder_settings import builder_settings, save_timing_cache, use_timing_cache
from .hardware import Hardware, hardware_for
from .parse import network_from_onnx

_log = logging.getLogger(__name__)

RECIPE = ("export/trt", "core/nvidia")
"""The folders whose code decides which engine the same options give; its hash is part of the key in the cache."""


@dataclass(frozen=True)
class BuiltEngine:
    """An engine on disk."""

    path: Path
    info: EngineInfo
    cached: bool
    """True if the engine comes from the cache and nothing was built."""


@dataclass(frozen=True)
class _Request:
    """An engine that is wanted, with everything that its key in the cache is made of."""

    config: EngineConfig
    flavor: Flavor
    hardware: Hardware
    card: ModelCard
    content: bytes
    """The graph's file."""
    options: dict[str, Any]

    @cached_property
    def graph_sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def key(self) -> str:
        return engine_key(
            graph_sha256=self.graph_sha256,
            opt_batch=self.config.optimal_batch,
            max_batch=self.config.max_batch,
            flavor=self.flavor.name,
            version=self.flavor.version(),
            hardware=self.hardware.key,
            options=self.options,
        )


def engine_from_onnx(config: EngineConfig) -> BuiltEngine:
    """Build a TensorRT engine for batches of 1 to config.max_batch, or take it from the cache.

    The graph decides the precision. The JSON beside the engine names the GPU model, or the compute capabilities, and
    the TensorRT version that it runs on. Files are written whole or not at all. A cache that cannot be written is
    logged in one line.

    Raises ArtifactError with TensorRT's own words if the parser or the builder refuses the graph, and if the requested
    precision is missing; BackendError if TensorRT or the GPU is missing; UsageError for options that the flavour lacks;
    OutputError.
    """
    request = _request(config)
    path = (config.out or config.graph.parent) / f"{config.name or config.graph.stem}{SUFFIX}"
    cached = _find(request) if config.cache else None
    if cached is not None:
        plan, info = read_plan(cached.path, cached.info), cached.info
    else:
        plan, info = _build_engine(request)
        if config.cache:
            with only_a_cache("the engine is"):
                cache_engine(request.key, config.graph.stem, plan, info)
    make_folder(path.parent)
    write_engine(path, plan, info)
    return BuiltEngine(path, info, cached=cached is not None)


def engine_in_cache(config: EngineConfig) -> BuiltEngine:
    """Build an engine into the cache, or find it there, and return its path in the cache.

    Of several processes that need the same engine, one builds it, and the others wait. `out` and `cache` of the config
    have no effect. Raises the errors of engine_from_onnx.
    """
    request = _request(config)
    found = _find(request)
    if found is not None:
        return found
    with made_by_one(engine_folder(request.key)):
        found = _find(request)  # another process may just have built it
        if found is not None:
            return found
        plan, info = _build_engine(request)
        return BuiltEngine(cache_engine(request.key, config.graph.stem, plan, info), info, cached=False)


def _request(config: EngineConfig) -> _Request:
    flavor = choose_flavor(config.flavor)
    hardware = hardware_for(config, flavor)
    card = engine_card(load_graph(config.graph)[1])
    options = {
        "recipe": sources_sha256(*RECIPE)[:12],
        "workspace_mib": config.workspace_mib,
        "hardware_compatibility": config.hardware_compatibility,
        "tf32": False,
    }
    return _Request(config, flavor, hardware, card, config.graph.read_bytes(), options)


def _find(request: _Request) -> BuiltEngine | None:
    """Return the engine in the cache, or None. Raises ArtifactError if it lacks the requested precision.

    find_engine has checked that graph, profile, flavour, version and hardware are those of the request.
    """
    found = find_engine(request.key)
    if found is None:
        return None
    info = read_engine_info(found)
    if info.card != request.card:
        _log.warning(wrapped(f"{found}: its JSON has another card than {request.config.graph}; it is built again"))
        shutil.rmtree(found.parent, ignore_errors=True)
        return None
    _check_precision(request.config, request.card, info.precision)
    return BuiltEngine(found, info, cached=True)


def _build_engine(request: _Request) -> tuple[bytes, EngineInfo]:
    """Build, and return the plan and its description."""
    config, flavor, hardware, card = request.config, request.flavor, request.hardware, request.card
    name = network_name(card, request.graph_sha256)
    plan, precision, build_s = _build(config, flavor, hardware, request.content, name, card)
    return plan, EngineInfo(
        card=card,
        flavor=flavor.name,
        version=flavor.version(),
        cuda=str(flavor.cuda_major or ""),
        gpu=hardware.gpu.name if hardware.gpu else "",
        compute_capability=hardware.gpu.compute_capability if hardware.gpu else "",
        targets=hardware.targets,
        profile=Profile(config.optimal_batch, config.max_batch),
        precision=precision,
        graph_sha256=request.graph_sha256,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        build_s=round(build_s, 3),
        options=request.options,
        machine=this_machine().summary,
    )


def _build(
    config: EngineConfig, flavor: Flavor, hardware: Hardware, content: bytes, name: str, card: ModelCard
) -> tuple[bytes, PrecisionAsBuilt, float]:
    """Return the plan, its precision and the build time in seconds. Builds on the GPU of `hardware`, if it names one.

    `name`: the name of the TensorRT network.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(collected_errors())
        if hardware.gpu is not None:
            stack.enter_context(UsingGpu(hardware.gpu.index))
        try:
            plan, precision, build_s = _built(config, flavor, hardware, content, name, card, log)
            if hardware.gpu is not None:
                precision = _inspected(flavor, plan, precision, config, log)
        except BaseException as error:  # a traceback would keep TensorRT's objects past the GPU's context
            traceback.clear_frames(error.__traceback__)
            raise
    return plan, precision, build_s


def _built(
    config: EngineConfig,
    flavor: Flavor,
    hardware: Hardware,
    content: bytes,
    name: str,
    card: ModelCard,
    log: LogLines,
) -> tuple[bytes, PrecisionAsBuilt, float]:
    trt = flavor.load()
    logger = logger_of(trt)
    progress = BuildProgress()
    started_at = time.perf_counter()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # the bindings raise it if the constructor returns nothing
        raise BackendError(f"{flavor.name}: the builder does not start: {log.reason(reason_of(error))}") from error
    network, parser = network_from_onnx(trt, builder, logger, content, source=config.graph)
    network.name = name
    precision = precision_of_network(network)
    _check_precision(config, card, precision)
    settings = builder_settings(trt, builder, config, hardware, card)
    settings.progress_monitor = monitor = monitor_for(trt, progress)
    timings = use_timing_cache(settings, flavor, hardware) if flavor.has_timing_cache else None
    with progress.shown():
        memory = builder.build_serialized_network(network, settings)
    if memory is None:
        raise ArtifactError(f"{config.graph}: {flavor.name} cannot build an engine: {log.reason('it gives no reason')}")
    if timings is not None:
        save_timing_cache(settings, timings)
    plan = bytes(memory)
    build_s = time.perf_counter() - started_at
    del monitor, memory, settings, parser, network, builder  # in this order, while the GPU is current
    return plan, precision, build_s


def _check_precision(config: EngineConfig, card: ModelCard, found: PrecisionAsBuilt) -> None:
    """Raise ArtifactError if no convolution or matrix product has the requested precision; for fp32, all must have."""
    requested = config.precision or card.precision
    if requested not in found.products or (requested == "fp32" and len(found.products) > 1):
        counts = ", ".join(f"{count} {name}" for name, count in found.products.items()) or "none"
        raise ArtifactError(
            f"{config.graph}: {requested} was requested, but its convolutions and matrix products are: {counts}; "
            f"export the checkpoint again: rtk export CHECKPOINT --trt --precision {requested}"
        )


def _inspected(
    flavor: Flavor, plan: bytes, precision: PrecisionAsBuilt, config: EngineConfig, log: LogLines
) -> PrecisionAsBuilt:
    """Load the engine on this GPU and add the layers that TensorRT's engine inspector reports."""
    trt = flavor.load()
    runtime = trt.Runtime(logger_of(trt))
    refusal = refusal_of(trt, runtime, plan) if flavor.checks_engines else None
    if refusal is not None and "UNSUPPORTED_CC" in refusal:
        raise UnavailableError(
            f"{config.graph}: {flavor.name} {flavor.version()} does not support this GPU (UNSUPPORTED_CC); install the "
            "regular TensorRT and build with --flavor tensorrt, or use --backend onnx"
        )
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(
            f"{config.graph}: the engine was built, but does not load on this machine: "
            f"{log.reason('TensorRT gives no reason')}"
        )
    layers = layers_of_engine(engine, trt)
    return replace(precision, layers=layers, inspected=True) if layers else precision
