"""What exceptions of torch, ONNX Runtime, OpenVINO, CUDA and TensorRT mean, in one line with what to do.

The libraries add source lines, codes and advice for their own developers to their messages. Messages that users often
meet are reworded here; of all others, only the libraries' additions are removed.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import NoReturn

from .errors import BackendError
from .text import one_line

LONGEST = 300
"""Characters of a library's own message that are shown; --debug shows all."""
LIBRARIES = ("onnxruntime", "openvino", "torch", "pycuda", "tensorrt", "tensorrt_rtx", "triton")
"""Modules whose exceptions are errors of a library, whatever their base class is."""

OUT_OF_MEMORY = re.compile(
    r"out of memory|outofmemory|_alloc_failed|failed to allocate|can't allocate memory|cannot allocate memory"
    r"|could not be allocated|unable to allocate|bad_alloc|insufficient.{0,8} memory",
    re.IGNORECASE,
)
SIZE = re.compile(
    r"(?:allocate|requested|buffer of size|GPU memory \()[^\d:]{0,12}?([\d,.]*\d) ?(bytes|[KMGTP]iB)?", re.IGNORECASE
)
FREE = re.compile(r"of which ([\d.]+ [KMGTP]iB) is free")
ON_GPU = re.compile(r"cuda|cudnn|cublas|gpu|\bcuMem", re.IGNORECASE)
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")

MEANINGS: Sequence[tuple[str, str]] = (
    (
        r"no kernel image is available|no kernel image found",
        "this build of the library has no code for this GPU; install a version of it that supports the GPU's compute "
        "capability, which this lists: rtk doctor",
    ),
    (
        r"(illegal memory access|unspecified launch failure|misaligned address|uncorrectable \w+ error"
        r"|device-side assert|illegal instruction|launch timed out)",
        r"the GPU stopped with '\1'; start the command again, and if that repeats look for faults with: nvidia-smi -q",
    ),
    (
        r"busy or unavailable",
        "another process has the GPU for itself (exclusive compute mode); stop that process (nvidia-smi lists it)",
    ),
    (
        r"driver (?:version is insufficient|on your system is too old)",
        "the NVIDIA driver is too old for this build of the library; update the driver, or see: rtk doctor",
    ),
    (
        r"no NVIDIA driver on your system|no CUDA-capable device",
        "it finds no NVIDIA GPU; use --device cpu, or see: rtk doctor",
    ),
    # ONNX Runtime
    (
        r"Could not find an implementation for (\w+)\((\d+)\)",
        r"ONNX Runtime has no \1 for the data types of this graph on this device; use --backend openvino, or export "
        "the checkpoint in another precision: rtk export CHECKPOINT --precision fp32",
    ),
    (
        r"Opset (\d+) is under development.*is till opset (\d+)",
        r"the graph has opset \1, and this ONNX Runtime knows opsets up to \2; update it: "
        "pip install --upgrade onnxruntime",
    ),
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        r"the graph has version \1 of the ONNX format, and this ONNX Runtime knows versions up to \2; update it: "
        "pip install --upgrade onnxruntime",
    ),
    # OpenVINO
    (
        r"No conversion rule found for operations: ([\w, -]+?)(?: -- |$)",
        r"OpenVINO has no \1; use --backend onnx",
    ),
    (
        r"Unable to read the model",
        "OpenVINO cannot read it as a model: truncated, damaged, or not an ONNX file",
    ),
    # TensorRT
    (
        r"engine plan file is not compatible with this version of TensorRT|Version tag does not match",
        "the engine was built by another version of TensorRT",
    ),
    (
        r"engine plan file is generated on an incompatible device",
        "the engine was built for another GPU",
    ),
    (
        r"Could not find any implementation for node (\S+?)\.?(?: |\)|$)",
        r"TensorRT has no implementation of the layer \1 on this GPU within its workspace; give it more with "
        "--workspace-mib, or export another precision",
    ),
)
"""Patterns of messages, and what they mean with what to do."""


def is_library_error(error: BaseException) -> bool:
    """Whether an exception comes from a library that computes: an error of the system or the model, not of the caller.

    torch and OpenVINO raise RuntimeError, NumPy raises MemoryError, the others have exceptions of their own.
    """
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, RuntimeError | MemoryError) or module in LIBRARIES


def raise_translated(error: Exception, subject: str) -> NoReturn:
    """Raise the error of a library as a BackendError about `subject`; any other error as it is."""
    if is_library_error(error):
        raise BackendError(f"{subject}: {reason_of(error)}") from error
    raise error


@contextlib.contextmanager
def translated_errors(subject: str) -> Iterator[None]:
    """Convert the errors of libraries in the block to BackendError."""
    try:
        yield
    except Exception as error:
        raise_translated(error, subject)


def reason_of(error: BaseException | str, *, memory_advice: bool = True) -> str:
    """The error of a library as one line for users: what it means, and what to do if that is known.

    `memory_advice` False: the caller says itself what to do if memory is short.
    """
    text = one_line(error)
    if OUT_OF_MEMORY.search(text) or isinstance(error, MemoryError):
        return _out_of_memory(text, advice=memory_advice)
    for pattern, meaning in MEANINGS:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            return found.expand(meaning)
    return cleaned(text) or (type(error).__name__ if isinstance(error, BaseException) else "no reason given")


def is_out_of_memory(message: str) -> bool:
    """Whether a message of a library or of rtk says that memory is short."""
    return bool(re.search("out of (GPU )?memory", message) or OUT_OF_MEMORY.search(message))


def cleaned(message: str) -> str:
    """The message of a library as one line of at most LONGEST characters, without what is for its own developers."""
    text = one_line(message)
    for clean in (_of_onnxruntime, _of_openvino, _of_tensorrt, _of_torch):
        text = clean(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _out_of_memory(text: str, *, advice: bool) -> str:
    place, size, free = ("GPU memory" if ON_GPU.search(text) else "memory"), SIZE.search(text), FREE.search(text)
    facts = [f"{_readable(size[1], size[2])} requested"] if size else []
    facts += [f"{free[1]} free"] if free else []
    known = f" ({', '.join(facts)})" if facts else ""
    what_to_do = f"; use a smaller batch, or stop other programs that use {place}" if advice else ""
    return f"out of {place}{known}{what_to_do}"


def _readable(number: str, unit: str | None) -> str:
    """A size in the largest unit in which it is at least 1."""
    value, power = float(number.replace(",", "")), UNITS.index(unit) if unit in UNITS else 0
    while value >= 1024 and power < len(UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:,.4g} {UNITS[power]}"


def _of_onnxruntime(text: str) -> str:
    """Without ONNX Runtime's codes, the node that it ran, and its source lines."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(
        r"Non-zero status code returned while running (\w+) node\. Name:'[^']*' Status Message: ", r"\1: ", text
    )
    text = re.sub(r" ; GPU=\d+ ; hostname=.*", "", text)
    text = re.sub(r"Load model from .*? failed: ?", "", text)
    text = re.sub(r"/\S*\.(?:cc|h|cpp):\d+ .*?\) (?=\S)", "", text)
    return text.replace(" Please fix either the inputs/outputs or the model.", "")


def _of_openvino(text: str) -> str:
    """Without OpenVINO's source lines and the checks of its code."""
    text = re.sub(r"Exception from \S+:\d+: ?", "", text)
    text = re.sub(r"Check '.*?' failed at \S+:\d+: ?", "", text)
    return re.sub(r"\[ ?[A-Z]+_[A-Z_]+ ?\] ?", "", text).strip()


def _of_tensorrt(text: str) -> str:
    """Without TensorRT's source lines and codes."""
    text = re.sub(r"\[\w+\.(?:cpp|h|cu)::\w+::\d+\] ?", "", text)
    text = re.sub(r"\s*In \S+ at \S+\.(?:cpp|h|cu):\d+\)?", "", text)
    return re.sub(r"^(?:\w+::\w+: )?Error Code \d+: [\w ]+? \((.*?)\)?$", r"\1", text)


def _of_torch(text: str) -> str:
    """Without PyTorch's advice for debugging CUDA programs, and its C++ stack."""
    text = re.split(
        r" ?(?:CUDA kernel errors might be|For debugging consider|Compile with `TORCH_USE|Search for `cuda"
        r"|Exception raised from|Set TORCH|You can suppress)",
        text,
    )[0]
    text = re.sub(r"^Error\(s\) in loading state_dict for \w+: ", "", text)
    return re.sub(r"^\[enforce fail at \S+:\d+\] \S.*?\. ", "", text)
