"""From a graph to a TensorRT engine: one flow for TensorRT 10, TensorRT 11 and TensorRT-RTX.

The network is strongly typed, so that the graph alone decides the precision; what came out is counted and told. No
torch is needed. The engine's bytes are TensorRT's own; what it is stands in the JSON beside it.
"""

import contextlib
import hashlib
import time
from dataclasses import dataclass, replace
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
from ...core.artifacts.engine_cache import TIMINGS, cache_engine, engine_key, find_engine
from ...core.artifacts.graph import load_graph
from ...core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ...core.card import ModelCard
from ...core.errors import ArtifactError, BackendError, UsageError
from ...core.files import make_folder, write_whole
from ...core.machine import this_machine
from ...core.nvidia.driver import Gpu, gpu, gpu_count, no_gpu_reason, using_gpu
from ...core.nvidia.flavor import Flavor, LogLines, choose_flavor, collected_errors, logger_of
from ...core.nvidia.layer_types import layers_of_engine, precision_of_network
from ...core.paths import cache_dir
from ...core.text import one_line
from ..config import EngineConfig
from .build_progress import BuildProgress, monitor_of

DEFAULT_TARGETS = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""For a build without a GPU: all that TensorRT-RTX 1.7 knows, Ampere to Blackwell, but Turing (7.5), for which it has
no fp32 and no int8 matrix product; all five cost 0.1 s and 20 bytes more than one."""
RECIPE = 1
"""Goes into the cache's key: raise it when this file builds otherwise from the same options."""
MIB = 2**20


@dataclass(frozen=True)
class BuiltEngine:
    """An engine on disk."""

    path: Path
    info: EngineInfo
    cached: bool
    """True when it was in the cache and nothing was built."""


@dataclass(frozen=True)
class Hardware:
    """What an engine is built for: the GPU that it is built on, or compute capabilities."""

    gpu: Gpu | None
    targets: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Its part of the cache's key."""
        return self.targets if self.gpu is None else (self.gpu.name, self.gpu.compute_capability)


def engine_from_onnx(config: EngineConfig) -> BuiltEngine:
    """Build a TensorRT engine for batches of 1 to config.max_batch, or take it from the cache.

    Precision comes from the graph. The engine runs on the GPU model, or the compute capabilities, and the TensorRT
    version that are named in the JSON beside it. Raises ArtifactError with the parser's or the builder's own words
    when the graph is refused or the precision asked for is absent, BackendError when TensorRT or the GPU is missing,
    UsageError for options that the flavour lacks, OutputError. Files appear whole or not at all.
    """
    flavor = choose_flavor(config.flavor)
    hardware = _hardware(config, flavor)
    _, card = load_graph(config.graph)
    content = config.graph.read_bytes()
    graph_sha256 = hashlib.sha256(content).hexdigest()
    options = {
        "recipe": RECIPE,
        "workspace_mib": config.workspace_mib,
        "hardware_compatibility": config.hardware_compatibility,
        "version_compatible": config.version_compatible,
        "tf32": False,
    }
    path = (config.out or config.graph.parent) / f"{config.graph.stem}{SUFFIX}"
    key = engine_key(
        graph_sha256=graph_sha256,
        opt_batch=config.fastest_at,
        max_batch=config.max_batch,
        flavor=flavor.name,
        version=flavor.version(),
        hardware=hardware.key,
        options=options,
    )
    kept = find_engine(key) if config.cache else None
    if kept is not None:
        info = read_engine_info(kept)
        _check_precision(config, card, info.precision)
        write_engine(_in_folder(path), read_plan(kept, info), info)
        return BuiltEngine(path, info, cached=True)

    plan, precision, build_s = _build(config, flavor, hardware, content, network_name(card, graph_sha256), card)
    info = EngineInfo(
        card=card,
        flavor=flavor.name,
        version=flavor.version(),
        cuda=str(flavor.cuda_major or ""),
        gpu=hardware.gpu.name if hardware.gpu else "",
        compute_capability=hardware.gpu.compute_capability if hardware.gpu else "",
        targets=hardware.targets,
        profile=Profile(config.fastest_at, config.max_batch),
        precision=precision,
        graph_sha256=graph_sha256,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        build_s=round(build_s, 3),
        options=options,
        machine=this_machine().summary,
    )
    if config.cache:
        cache_engine(key, config.graph.stem, plan, info)
    write_engine(_in_folder(path), plan, info)
    return BuiltEngine(path, info, cached=False)


def _hardware(config: EngineConfig, flavor: Flavor) -> Hardware:
    """What to build for. Raises BackendError where a GPU is needed and missing, UsageError for misplaced options."""
    if not flavor.has_compatibility_levels and (config.version_compatible or config.hardware_compatibility != "none"):
        raise UsageError(
            f"{flavor.name} has no hardware or version compatibility levels; name compute capabilities to build for, "
            "or use --flavor tensorrt"
        )
    if flavor.builds_without_gpu and config.targets:
        return Hardware(None, config.targets)
    if config.targets:
        raise UsageError(f"{flavor.name} builds for its GPU, not for named compute capabilities")
    if gpu_count():
        return Hardware(gpu(config.device), ())
    if flavor.builds_without_gpu:
        return Hardware(None, DEFAULT_TARGETS)
    raise BackendError(f"{flavor.name} builds only on a GPU: {no_gpu_reason()}; or use --flavor tensorrt-rtx")


def _build(
    config: EngineConfig, flavor: Flavor, hardware: Hardware, content: bytes, name: str, card: ModelCard
) -> tuple[bytes, PrecisionAsBuilt, float]:
    """The plan, its precision and how many seconds it took; on the GPU, where there is one."""
    trt = flavor.load()
    logger = logger_of(trt)
    progress = BuildProgress()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(collected_errors())
        if hardware.gpu is not None:
            stack.enter_context(using_gpu(hardware.gpu.index))
        started_at = time.perf_counter()
        try:
            builder = trt.Builder(logger)
        except TypeError as error:  # what the bindings raise when the constructor gives nothing
            raise BackendError(f"{flavor.name}: the builder does not start: {log.reason(str(error))}") from error
        network, parser = _parsed(trt, builder, logger, config, content)
        network.name = name
        precision = precision_of_network(network)
        _check_precision(config, card, precision)
        settings = _settings(trt, builder, config, hardware, card)
        settings.progress_monitor = monitor = monitor_of(trt, progress)
        timings = _timing_cache(trt, settings, flavor, hardware) if flavor.has_timing_cache else None
        with progress.shown():
            memory = builder.build_serialized_network(network, settings)
        if memory is None:
            raise ArtifactError(f"{config.graph}: {flavor.name} builds no engine: {log.reason('it gives no reason')}")
        if timings is not None:
            _keep_timings(settings, timings)
        plan = bytes(memory)
        build_s = time.perf_counter() - started_at
        del monitor, memory, settings, parser, network, builder  # in this order, while the GPU is current
        if hardware.gpu is not None:
            precision = _inspected(trt, logger, plan, precision, config, log)
    return plan, precision, build_s


def _parsed(trt: Any, builder: Any, logger: Any, config: EngineConfig, content: bytes) -> tuple[Any, Any]:
    """The strongly typed network, and the parser, which owns its weights. Raises ArtifactError as the parser says."""
    modes = trt.NetworkDefinitionCreationFlag
    weakly_typed_by_default = hasattr(modes, "EXPLICIT_BATCH")  # TensorRT 10; later ones are always strongly typed
    network = builder.create_network(1 << int(modes.STRONGLY_TYPED) if weakly_typed_by_default else 0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = [_parser_error(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ArtifactError(
            f"{config.graph}: refused by TensorRT's parser: {'; '.join(errors) or 'it gives no reason'}"
        )
    names = [network.get_input(k).name for k in range(network.num_inputs)]
    names += [network.get_output(k).name for k in range(network.num_outputs)]
    if names != [INPUT_NAME, OUTPUT_NAME]:
        raise ArtifactError(
            f"{config.graph}: inputs and outputs {', '.join(names)}, expected {INPUT_NAME}, {OUTPUT_NAME}"
        )
    return network, parser


def _parser_error(error: Any) -> str:
    """Node and reason of one of the parser's errors, in one line."""
    reason = one_line(error.desc())
    if error.node() < 0:
        return reason
    return f"node {error.node()} {error.node_name()!r} ({error.node_operator()}): {reason}"


def _settings(trt: Any, builder: Any, config: EngineConfig, hardware: Hardware, card: ModelCard) -> Any:
    """The builder's configuration, with its one optimization profile."""
    settings = builder.create_builder_config()
    settings.clear_flag(trt.BuilderFlag.TF32)
    settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if config.workspace_mib is not None:
        settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace_mib * MIB)
    if config.version_compatible:
        settings.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        settings.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)  # host code in engines is never loaded
    if config.hardware_compatibility != "none":
        level = config.hardware_compatibility.replace("-", "_").upper()
        settings.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if hasattr(trt, "ComputeCapability"):
        _set_targets(trt, settings, hardware)
    profile = builder.create_optimization_profile()
    size = card.input.shape
    profile.set_shape(INPUT_NAME, (1, *size), (config.fastest_at, *size), (config.max_batch, *size))
    if settings.add_optimization_profile(profile) < 0:
        raise ArtifactError(f"{config.graph}: TensorRT refuses batches of 1 to {config.max_batch} of {size} images")
    return settings


def _set_targets(trt: Any, settings: Any, hardware: Hardware) -> None:
    """Name the compute capabilities to build for. Raises UsageError for one that this TensorRT-RTX lacks."""
    known = {_capability(name): name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    unknown = [target for target in hardware.targets if target not in known]
    if unknown:
        raise UsageError(f"compute capability {unknown[0]!r} cannot be built for; known: {', '.join(known)}")
    names = [known[target] for target in hardware.targets] or ["CURRENT"]
    settings.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        settings.set_compute_capability(getattr(trt.ComputeCapability, name), index)


def _capability(member: str) -> str:
    """SM89 as 8.9."""
    return f"{member[2:-1]}.{member[-1]}"


def _check_precision(config: EngineConfig, card: ModelCard, found: PrecisionAsBuilt) -> None:
    """Raise ArtifactError when the precision asked for is not there; fp32 means every convolution and product."""
    wanted = config.precision or card.precision
    if wanted not in found.products or (wanted == "fp32" and len(found.products) > 1):
        counts = ", ".join(f"{count} {name}" for name, count in found.products.items()) or "none"
        raise ArtifactError(
            f"{config.graph}: {wanted} was asked for, but its convolutions and matrix products are: {counts}; "
            f"export the graph again with --precision {wanted}"
        )


def _inspected(
    trt: Any, logger: Any, plan: bytes, precision: PrecisionAsBuilt, config: EngineConfig, log: LogLines
) -> PrecisionAsBuilt:
    """The precision with the layers that the engine inspector finds in the engine, loaded on this GPU."""
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(
            f"{config.graph}: the engine was built, but does not load here: {log.reason('no reason given')}"
        )
    layers = layers_of_engine(engine, trt)
    return replace(precision, layers=layers, inspected=True) if layers else precision


def _timing_cache(trt: Any, settings: Any, flavor: Flavor, hardware: Hardware) -> Path:
    """Let the builder reuse the timings of earlier builds on this GPU; return the file to keep them in."""
    assert hardware.gpu is not None  # a flavour with a timing cache builds on a GPU only
    name = f"{flavor.name}-{flavor.version()}-{hardware.gpu.name}-{hardware.gpu.compute_capability}".replace(" ", "-")
    path = cache_dir() / TIMINGS / f"{name.replace('/', '-')}.cache"
    timings = settings.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    settings.set_timing_cache(timings, False)
    return path


def _keep_timings(settings: Any, path: Path) -> None:
    make_folder(path.parent)
    write_whole(path, bytes(settings.get_timing_cache().serialize()))


def _in_folder(path: Path) -> Path:
    make_folder(path.parent)
    return path
