"""Stand-ins for the driver, PyCUDA and TensorRT 10, 11 and RTX, for machines without a GPU.

A stand-in for TensorRT has exactly the classes and members of the real bindings of one version, as listed in
tensorrt_members/; any other name raises AttributeError, as in the real module. It records its calls in order and
implements what a build and a run need. Its runs are those of LazyCuda's fake engine.
"""

import ctypes
import enum
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata, util
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from fakes.driver.host_engine import HostMachine
from fakes.lazy_cuda import LazyCuda
from onnx import TensorProto, helper, numpy_helper
from rtk.core.artifacts.graph import set_card
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.nvidia import driver as cuda
from rtk.core.nvidia.flavor import logger_of
from rtk.infer.trt import pycuda_driver as seam

MEMBERS = Path(__file__).parent / "tensorrt_members"
VERSIONS = {"tensorrt 10": "10.16.1.11", "tensorrt 11": "11.4.0.106", "tensorrt-rtx": "rtx-1.7.1.116"}
SIZE = Input(8, 8, 3)
CLASSES = 5


def members(version: str) -> dict[str, list[str]]:
    """Map the classes of one version to their members; the first entry is E for an enum or C for a class."""
    listed = json.loads((MEMBERS / f"members-{version}.json").read_text())
    return {name: entry for name, entry in listed.items() if entry and entry[0] in ("E", "C")}


# The machine.


class StandInLibcuda:
    """The functions of libcuda that core/nvidia/driver.py calls."""

    def __init__(self, *, gpus: list[cuda.Gpu], driver: int = 13000, init: int = 0, retain: int = 0) -> None:
        self.gpus, self.driver, self.init, self.retain = gpus, driver, init, retain
        self.pushed: list[str] = []

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.driver
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: ctypes.c_int) -> int:
        name.value = self.gpus[device.value].name.encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: ctypes.c_int) -> int:
        memory._obj.value = self.gpus[device.value].memory_bytes
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:
        gpu = self.gpus[device.value]
        major, minor = gpu.compute_capability.split(".")
        value._obj.value = {75: int(major), 76: int(minor), 20: gpu.compute_mode}[attribute]
        return 0

    def cuDeviceGetUuid_v2(self, content: Any, device: ctypes.c_int) -> int:
        content._obj[:] = bytes([0x10 + self.gpus[device.value].index] * 16)
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:
        self.pushed.append("retain")
        return self.retain

    def cuDevicePrimaryCtxRelease_v2(self, device: ctypes.c_int) -> int:
        self.pushed.append("release")
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        self.pushed.append("push")
        return 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        self.pushed.append("pop")
        return 0


H100 = cuda.Gpu(0, "NVIDIA H100", "9.0", 80 * 2**30)
RTX4090 = cuda.Gpu(0, "NVIDIA GeForce RTX 4090", "8.9", 24 * 2**30)


class Stage:
    """A simulated machine for one test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.forget()

    def forget(self) -> None:
        """Clear all caches of facts about the machine."""
        facts = (cuda._libcuda, cuda._start, cuda.driver_cuda, cuda.gpu, cuda._retained_context, seam.pycuda_driver)
        for cached in facts:
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()

    def libcuda(self, *gpus: cuda.Gpu, driver: int = 13000, init: int = 0, retain: int = 0) -> StandInLibcuda:
        """Install a driver with these GPUs."""
        library = StandInLibcuda(gpus=list(gpus), driver=driver, init=init, retain=retain)
        self.monkeypatch.setattr(cuda, "_libcuda", lambda: library)
        self.forget()
        return library

    def pycuda(self, machine: LazyCuda) -> LazyCuda:
        """Install PyCUDA with that machine as its driver."""
        package = ModuleType("pycuda")
        package.__spec__ = ModuleSpec("pycuda", None)
        self.monkeypatch.setitem(sys.modules, "pycuda", package)
        self.monkeypatch.setitem(sys.modules, "pycuda.driver", machine)
        self.forget()
        return machine

    def tensorrt(self, kind: str, script: "Script | None" = None) -> Any:
        """Install one of VERSIONS as the module of that flavour."""
        name = "tensorrt_rtx" if "rtx" in kind else "tensorrt"
        module = stand_in(VERSIONS[kind], script or Script(), name=name)
        self.monkeypatch.setitem(sys.modules, name, module)
        package, real = name.replace("_", "-"), metadata.version

        def version(distribution: str) -> str:
            if distribution.startswith(f"{package}-cu"):
                raise metadata.PackageNotFoundError(distribution)
            return module.__version__ if distribution == package else real(distribution)

        self.monkeypatch.setattr(metadata, "version", version)
        return module

    def without(self, module: str) -> None:
        """Hide that module."""
        real = util.find_spec
        self.monkeypatch.setattr(util, "find_spec", lambda name, *args: None if name == module else real(name, *args))


def staged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Yield a Stage and undo it; fixtures use it with `yield from`."""
    stage = Stage(monkeypatch)
    yield stage
    monkeypatch.undo()
    stage.forget()


# TensorRT.


@dataclass
class Script:
    """The behaviour of a stand-in for TensorRT."""

    products: list[tuple[str, str]] = field(default_factory=lambda: [("CONVOLUTION", "FLOAT")] * 2)
    """Layer type and data type of the network's convolutions and matrix products."""
    parser_errors: list[dict[str, Any]] = field(default_factory=list)
    plan: bytes | None = b"a plan of a stand-in"
    log: list[str] = field(default_factory=list)
    """Errors that every failing call logs."""
    inspector: str = '{"Layers": ["names", "only"]}'
    validity: tuple[str, int] = ("VALID", 0)
    loads: bool = True
    has_context: bool = True
    runs: bool = True
    max_batch: int = 16
    steps: int = 3
    at_step: Any = None
    """Called at every step of a build."""
    machine: LazyCuda | HostMachine | None = None


def stand_in(version: str, script: Script, *, name: str) -> Any:
    """Return a module with exactly the names of one version."""
    module: Any = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__version__ = version.removeprefix("rtx-")
    module.calls = []
    module.script = script
    for class_name, (kind, *names) in members(version).items():
        if kind == "E":
            values = enumerate(names)
            if class_name == "EngineInvalidityDiagnostics":
                values = ((1 << index, name) for index, name in enumerate(names))
            made: Any = enum.IntEnum(class_name, {name: value for value, name in values})  # type: ignore[misc]
        else:
            template = BEHAVIOUR.get(class_name, Member)
            listed = {k: v for k, v in vars(template).items() if k in names or k.startswith("_")}
            for slot in ("__dict__", "__weakref__"):
                listed.pop(slot, None)
            made = type(class_name, (Member,), {**listed, "_trt": module, "_names": frozenset(names)})
        setattr(module, class_name, made)
    module.ILogger.Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])
    logger_of.cache_clear()
    return module


class Member:
    """An object of the bindings that has only the listed names and records their use."""

    _trt: Any
    _names: frozenset[str] = frozenset()

    def __init__(self, *args: Any) -> None:
        self._args = args

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
            return
        if name not in self._names and type(self).__mro__[1] is Member:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        self._record(f"{name}=", value)
        object.__setattr__(self, f"_{name}", value)

    def _record(self, name: str, *args: Any) -> None:
        self._trt.calls.append((f"{type(self).__name__}.{name}", *args))

    def _complain(self) -> None:
        for line in self._trt.script.log:
            logger_of(self._trt).log(self._trt.ILogger.Severity.ERROR, line)


class Builder(Member):
    def create_network(self, flags: int) -> Any:
        self._record("create_network", flags)
        return self._trt.INetworkDefinition()

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def build_serialized_network(self, network: Any, settings: Any) -> Any:
        self._record("build_serialized_network")
        script, monitor = self._trt.script, settings._progress_monitor
        monitor.phase_start("Building engine", None, script.steps)
        for step in range(script.steps):
            if script.at_step:
                script.at_step()
            if not monitor.step_complete("Building engine", step):
                self._complain()
                return None
        monitor.phase_finish("Building engine")
        if script.plan is None:
            self._complain()
            return None
        return Memory(script.plan)


class Memory:
    """An IHostMemory: bytes() returns its content."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __bytes__(self) -> bytes:
        return self.content


class INetworkDefinition(Member):
    def __init__(self) -> None:
        trt, script = self._trt, self._trt.script
        self._inputs = [_tensor(trt, "images", "UINT8")]
        self._outputs = [_tensor(trt, "logits", "FLOAT")]
        self._layers = []
        tensor = self._inputs[0]
        for index, (kind, dtype) in enumerate([("CAST", "FLOAT"), *script.products]):
            inputs = [tensor]
            if dtype == "INT8":
                inputs = [self._dequantised(f"q{index}.{k}") for k in range(2)]
                dtype = "FLOAT"
            elif kind != "CAST" and tensor.dtype.name != dtype:
                inputs = [_tensor(trt, f"c{index}", dtype)]
            tensor = _tensor(trt, f"t{index}", dtype)
            self._layers.append(_layer(trt, kind, inputs, [tensor]))

    def _dequantised(self, name: str) -> Any:
        given, made = _tensor(self._trt, f"{name}.int8", "INT8"), _tensor(self._trt, name, "FLOAT")
        self._layers.append(_layer(self._trt, "DEQUANTIZE", [given], [made]))
        return made

    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))
    num_layers = property(lambda self: len(self._layers))

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class ITensor(Member):
    name = property(lambda self: self._args[0], lambda self, value: None)
    dtype = property(lambda self: self._args[1])


class ILayer(Member):
    type = property(lambda self: self._args[0])
    num_inputs = property(lambda self: len(self._args[1]))
    num_outputs = property(lambda self: len(self._args[2]))

    def get_input(self, index: int) -> Any:
        return self._args[1][index]

    def get_output(self, index: int) -> Any:
        return self._args[2][index]


def _tensor(trt: Any, name: str, dtype: str) -> Any:
    return trt.ITensor(name, getattr(trt.DataType, dtype))


def _layer(trt: Any, kind: str, inputs: list[Any], outputs: list[Any]) -> Any:
    return trt.ILayer(getattr(trt.LayerType, kind), inputs, outputs)


class OnnxParser(Member):
    def parse(self, content: bytes) -> bool:
        self._record("parse")
        return not self._trt.script.parser_errors

    num_errors = property(lambda self: len(self._trt.script.parser_errors))

    def get_error(self, index: int) -> Any:
        return self._trt.ParserError(self._trt.script.parser_errors[index])


class ParserError(Member):
    def desc(self) -> str:
        return self._args[0]["desc"]

    def node(self) -> int:
        return self._args[0].get("node", -1)

    def node_name(self) -> str:
        return self._args[0].get("name", "")

    def node_operator(self) -> str:
        return self._args[0].get("operator", "")


class IBuilderConfig(Member):
    def clear_flag(self, flag: Any) -> None:
        self._record("clear_flag", flag.name)

    def set_flag(self, flag: Any) -> None:
        self._record("set_flag", flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._record("set_memory_pool_limit", pool.name, size)

    def add_optimization_profile(self, profile: Any) -> int:
        self._record("add_optimization_profile")
        return 0

    def create_timing_cache(self, content: bytes) -> Any:
        self._record("create_timing_cache", content)
        return self._trt.ITimingCache()

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self._record("set_timing_cache", ignore_mismatch)
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self._record("set_compute_capability", capability.name, index)
        return True


class IOptimizationProfile(Member):
    def set_shape(self, name: str, smallest: Any, best: Any, largest: Any) -> None:
        self._record("set_shape", name, smallest, best, largest)


class ITimingCache(Member):
    def serialize(self) -> Memory:
        return Memory(b"timings")


class Runtime(Member):
    def get_engine_validity(self, plan: bytes) -> tuple[Any, int]:
        self._record("get_engine_validity")
        name, diagnostics = self._trt.script.validity
        return getattr(self._trt.EngineValidity, name), diagnostics

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        self._record("deserialize_cuda_engine")
        if self._trt.script.loads:
            return self._trt.ICudaEngine()
        self._complain()
        return None


class ICudaEngine(Member):
    num_io_tensors = 2
    device_memory_size_v2 = 2**20

    def get_tensor_name(self, index: int) -> str:
        return ("images", "logits")[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return self._trt.DataType.UINT8 if name == "images" else self._trt.DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *SIZE.shape) if name == "images" else (-1, CLASSES)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(batch, *SIZE.shape) for batch in (1, 4, self._trt.script.max_batch)]

    def create_engine_inspector(self) -> Any:
        return self._trt.EngineInspector()

    def create_runtime_config(self) -> Any:
        return self._trt.IRuntimeConfig()

    def create_execution_context(self, settings: Any = None) -> Any:
        self._record("create_execution_context", settings)
        if self._trt.script.has_context:
            return self._trt.IExecutionContext()
        self._complain()
        return None


class EngineInspector(Member):
    def get_engine_information(self, form: Any) -> str:
        return self._trt.script.inspector


class IRuntimeConfig(Member):
    def create_runtime_cache(self) -> Any:
        return self._trt.IRuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self._record("set_runtime_cache")
        return True


class IRuntimeCache(Member):
    def deserialize(self, content: bytes) -> bool:
        self._record("deserialize", content)
        return True

    def serialize(self) -> Memory:
        return Memory(b"kernels")


class IExecutionContext(Member):
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._record("set_input_shape", name, shape)
        self._shape = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses = {**getattr(self, "_addresses", {}), name: address}
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        self._record("set_device_memory", address, size)

    def execute_async_v3(self, handle: int) -> bool:
        machine, shape, addresses = self._trt.script.machine, self._shape, self._addresses
        if not self._trt.script.runs:
            self._complain()
            return False
        if not machine.run_engine(handle, addresses["images"], addresses["logits"], shape, CLASSES):
            self._complain()
            return False
        return True


class IProgressMonitor(Member):
    """A base class."""


class ILogger(Member):
    """A base class."""


BEHAVIOUR = {
    behaviour.__name__: behaviour
    for behaviour in (
        Builder, INetworkDefinition, ITensor, ILayer, OnnxParser, ParserError, IBuilderConfig, IOptimizationProfile,
        ITimingCache, Runtime, ICudaEngine, EngineInspector, IRuntimeConfig, IRuntimeCache, IExecutionContext,
    )
}  # fmt: skip


# Graphs without torch.

ONNX_TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def small_card(precision: str = "fp32", *, size: Input = SIZE) -> ModelCard:
    """Return the card of the small graph."""
    channels = size.channels
    return ModelCard(
        name="small",
        arch="small",
        dataset="none",
        classes=tuple(f"class {k}" for k in range(CLASSES)),
        input=size,
        preprocessing=Preprocessing((0.5,) * channels, (0.25,) * channels),
        precision=precision,
        checkpoint_sha256="c" * 64,
    )


def write_graph(path: Path, precision: str = "fp32", *, claims: str | None = None, product: str | None = None) -> Path:
    """Write a graph of one convolution and one matrix product in `precision` (int8: their inputs are dequantised).

    `claims`: the precision in its card, if another; `product`: the precision of the matrix product, if another.
    """
    random = np.random.default_rng(0)
    inner, last = precision, product or precision
    nodes, values = [], []

    def constant(name: str, array: np.ndarray, kind: int = TensorProto.FLOAT) -> str:
        values.append(helper.make_tensor(name, kind, array.shape, array.astype(np.float32).ravel()))
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=f"the {output}", **attributes))
        return output

    def quantised(name: str) -> str:
        scale = constant(f"{name}.scale", np.array(0.05))
        values.append(numpy_helper.from_array(np.array(0, np.int8), f"{name}.zero"))
        node("QuantizeLinear", [name, scale, f"{name}.zero"], f"{name}.q")
        return node("DequantizeLinear", [f"{name}.q", scale, f"{name}.zero"], f"{name}.dq")

    kind = ONNX_TYPES.get(inner, TensorProto.FLOAT)
    x = node("Cast", ["images"], "cast", to=kind)
    x = node("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
    weights = constant("weights", random.normal(size=(8, SIZE.channels, 3, 3)), kind)
    if inner == "int8":
        x, weights = quantised(x), quantised(weights)
    x = node("Conv", [x, weights], "convolution", pads=[1, 1, 1, 1])
    x = node("GlobalAveragePool", [x], "pooled")
    x = node("Flatten", [x], "flat")
    kind = ONNX_TYPES.get(last, TensorProto.FLOAT)
    if last != inner:
        x = node("Cast", [x], "cast again", to=kind)
    weights = constant("matrix", random.normal(size=(8, CLASSES)), kind)
    if last == "int8":
        x, weights = quantised(x), quantised(weights)
    x = node("MatMul", [x, weights], "product")
    node("Cast", [x], "logits", to=TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SIZE.shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="rtk", ir_version=10)
    set_card(model, small_card(claims or precision))
    onnx.save(model, path)
    return path
