"""EngineConfig: what an engine is built from and for. Nothing here imports TensorRT or ONNX."""

from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UsageError
from ..core.nvidia.flavor import AUTO, flavor_named

HARDWARE_COMPATIBILITY = ("none", "ampere-plus", "same-compute-capability")
DEFAULT_OPT_BATCH = 64


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is built."""

    graph: Path
    """An ONNX file of rtk's; its precision is the engine's."""
    out: Path | None = None
    """Folder for STEM.engine and STEM.engine.json; None means beside the graph."""
    flavor: str = AUTO
    """auto, tensorrt or tensorrt-rtx."""
    precision: str | None = None
    """What the engine must turn out to be; None means what the graph's card says."""
    max_batch: int = 1024
    opt_batch: int | None = None
    """The batch size to be fastest at; None means 64, or max_batch where that is less."""
    device: int = 0
    """Index of the GPU to build on, where there is one."""
    targets: tuple[str, ...] = ()
    """tensorrt-rtx: compute capabilities such as 8.9; none means this machine's GPU, or without one a default list."""
    workspace_mib: int | None = None
    """Limit of the scratch memory of one layer, in MiB; None means TensorRT's own."""
    hardware_compatibility: str = "none"
    """none, ampere-plus or same-compute-capability; tensorrt only."""
    version_compatible: bool = False
    """Let later minor versions of the same TensorRT run the engine."""
    cache: bool = True
    """Take the engine from the cache where it is there, and keep it there."""

    def __post_init__(self) -> None:
        if self.flavor != AUTO:
            flavor_named(self.flavor)
        if self.max_batch < 1:
            raise UsageError(f"--max-batch {self.max_batch}: expected at least 1")
        if self.opt_batch is not None and not 1 <= self.opt_batch <= self.max_batch:
            raise UsageError(f"--opt-batch {self.opt_batch}: expected 1 to --max-batch, {self.max_batch}")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"a workspace of {self.workspace_mib} MiB: expected at least 1")
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITY:
            known = ", ".join(HARDWARE_COMPATIBILITY)
            raise UsageError(f"hardware compatibility {self.hardware_compatibility!r} is unknown; known: {known}")
        if self.targets and self.flavor == "tensorrt":
            raise UsageError(
                "compute capabilities to build for go with --flavor tensorrt-rtx; tensorrt builds for its GPU"
            )

    @property
    def fastest_at(self) -> int:
        """The batch size to be fastest at."""
        return self.opt_batch or min(DEFAULT_OPT_BATCH, self.max_batch)
