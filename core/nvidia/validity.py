"""Whether TensorRT-RTX runs an engine on this machine, in its own diagnostics."""

from typing import Any


def refusal_of(trt: Any, runtime: Any, plan: bytes) -> frozenset[str] | None:
    """The names of the diagnostics if TensorRT-RTX refuses the engine here, which may be none; None if it runs.

    UNSUPPORTED_CC, for example, is a GPU for which the engine has no code. The regular TensorRT cannot be asked.
    """
    validity, found = runtime.get_engine_validity(plan)
    if validity != trt.EngineValidity.INVALID:
        return None
    known = trt.EngineInvalidityDiagnostics.__members__.items()
    return frozenset(name for name, value in known if int(found) & int(value))
