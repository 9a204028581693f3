"""Messages of libraries are reworded for users. The messages are those that the libraries of 2026 print."""

import pytest
from rtk.core.errors import ArtifactError, BackendError
from rtk.core.library_errors import LONGEST, reason_of, translated_errors

MEMORY = "use a smaller batch, or stop other programs that use"

TORCH_MEMORY = """CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15.77 GiB of which \
12.88 MiB is free. Process 4711 has 15.75 GiB memory in use. Of the allocated memory 14.51 GiB is allocated by PyTorch,
and 100.00 MiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting \
PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."""
TORCH_HOST_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4398046511104 bytes. Error code 12 (Cannot allocate memory)"
)
TORCH_ILLEGAL = """CUDA error: an illegal memory access was encountered
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."""
TORCH_NO_KERNEL = """CUDA error: no kernel image is available for execution on the device
CUDA kernel errors might be asynchronously reported at some other API call."""
ORT_MEMORY = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
    "Name:'node_conv2d' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for "
    "requested buffer of size 268435456"
)
ORT_CUDA_MEMORY = (
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; hostname=node7 ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_allocator.cc ; line=47 ; expr=cudaMalloc();"
)
ORT_NO_KERNEL = (
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Conv(11) node with name "
    "'node_conv2d'"
)
ORT_OPSET = (
    "[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:/onnxruntime_src/onnxruntime/core/graph/"
    "model_load_utils.h:46 void onnxruntime::model_load_utils::ValidateOpsetForDomain(const std::string&, int) ONNX "
    "Runtime only *guarantees* support for models stamped with released onnx opset versions. Opset 99 is under "
    "development and support for this is limited. Current official support for domain ai.onnx is till opset 26.\n"
)
ORT_EP = (
    "[ONNXRuntimeError] : 11 : EP_FAIL : Non-zero status code returned while running Conv node. Name:'node_conv2d' "
    "Status Message: CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=node7 ; file=/a/b.cc ; line=1 ;"
)
OPENVINO_SHAPE = """Exception from src/inference/src/cpp/infer_request.cpp:224:
Check 'getShape().isCompatible(dims)' failed at src/plugins/intel_cpu/src/memory_desc/cpu_memory_desc.h:99:
ParameterMismatch: Can not clone with new dims. Descriptor's shape: {0 - ?, 32, 32, 3} is incompatible with provided \
dimensions: {2, 3, 32, 32}.

"""
OPENVINO_OPERATION = """Exception from src/inference/src/cpp/core.cpp:84:
Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:
FrontEnd API failed with OpConversionFailure:
Summary:
-- No conversion rule found for operations: Frobnicate-20
-- Conversion is failed for: Conv-20, ReduceMean-20
"""
TRT_API = (
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (kOPT values for profile 0 violate shape "
    "constraints. In operator() at /_src/optimizer/api/builder.cpp:123)"
)
TRT_MEMORY = "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
TRT_REQUEST = "Requested amount of GPU memory (4294967296 bytes) could not be allocated. There may not be enough free."
TRT_VERSION = (
    "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion stdVersionRead == "
    "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: 239, Serialized Version: 240)"
)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (TORCH_MEMORY, f"out of GPU memory (20 MiB requested, 12.88 MiB free); {MEMORY} GPU memory"),
        (TORCH_HOST_MEMORY, f"out of memory (4 TiB requested); {MEMORY} memory"),
        (
            TORCH_ILLEGAL,
            "the GPU stopped with 'illegal memory access'; start the command again, and if that repeats look for "
            "faults with: nvidia-smi -q",
        ),
        (
            TORCH_NO_KERNEL,
            "this build of the library has no code for this GPU; install a version of it that supports the GPU's "
            "compute capability, which this lists: rtk doctor",
        ),
        (ORT_MEMORY, f"out of memory (256 MiB requested); {MEMORY} memory"),
        (ORT_CUDA_MEMORY, f"out of GPU memory; {MEMORY} GPU memory"),
        (
            ORT_NO_KERNEL,
            "ONNX Runtime has no Conv for the data types of this graph on this device; use --backend openvino, or "
            "export the checkpoint in another precision: rtk export CHECKPOINT --precision fp32",
        ),
        (
            ORT_OPSET,
            "the graph has opset 99, and this ONNX Runtime knows opsets up to 26; update it: "
            "pip install --upgrade onnxruntime",
        ),
        (ORT_EP, "Conv: CUDNN failure 8: CUDNN_STATUS_EXECUTION_FAILED"),
        (
            OPENVINO_SHAPE,
            "ParameterMismatch: Can not clone with new dims. Descriptor's shape: {0 - ?, 32, 32, 3} is incompatible "
            "with provided dimensions: {2, 3, 32, 32}.",
        ),
        (OPENVINO_OPERATION, "OpenVINO has no Frobnicate-20; use --backend onnx"),
        (TRT_API, "kOPT values for profile 0 violate shape constraints."),
        (TRT_MEMORY, f"out of GPU memory; {MEMORY} GPU memory"),
        (TRT_REQUEST, f"out of GPU memory (4 GiB requested); {MEMORY} GPU memory"),
        (TRT_VERSION, "the engine was built by another version of TensorRT"),
        ("cuMemAlloc failed: out of memory", f"out of GPU memory; {MEMORY} GPU memory"),
        (
            "Unable to allocate 7.11 PiB for an array with shape (3,)",
            f"out of memory (7.11 PiB requested); {MEMORY} memory",
        ),
    ],
)
def test_the_message_of_a_library_says_what_it_means_in_one_line(message: str, expected: str) -> None:
    assert reason_of(RuntimeError(message)) == expected


def test_an_unknown_message_is_one_line_of_limited_length() -> None:
    assert reason_of(RuntimeError("first\n  second")) == "first second"
    assert len(reason_of(RuntimeError("word " * 1_000))) == LONGEST


def test_an_error_without_a_message_is_called_by_its_type() -> None:
    assert reason_of(ZeroDivisionError()) == "ZeroDivisionError"
    assert reason_of(MemoryError()) == f"out of memory; {MEMORY} memory"


def test_errors_of_libraries_become_backend_errors_that_keep_their_cause() -> None:
    cause = RuntimeError(TORCH_MEMORY)
    with pytest.raises(BackendError, match="^torch: out of GPU memory") as found, translated_errors("torch"):
        raise cause
    assert found.value.__cause__ is cause


@pytest.mark.parametrize("error", [TypeError("a mistake"), KeyError("a mistake"), ArtifactError("a mistake")])
def test_mistakes_of_a_program_and_rtks_own_errors_stay_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match="a mistake") as found, translated_errors("torch"):
        raise error
    assert found.value is error
