"""BenchConfig: what `rtk bench` measures. Nothing heavy is imported here."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, Self

from ..core.errors import UnknownNameError, UsageError

Scope = Literal["compute", "sync", "stream", "files"]


@dataclass(frozen=True)
class ScopeText:
    """How a scope is presented to people."""

    column: str
    """Short name, for tables of 80 columns."""
    name: str
    timed: str
    """What is timed."""


SCOPES: dict[Scope, ScopeText] = {
    "compute": ScopeText("compute", "compute", "images and logits stay on the device; the arithmetic alone is timed"),
    "sync": ScopeText(
        "host",
        "host to host",
        "uint8 images in host memory to float32 logits in host memory, copies included, one batch after the other",
    ),
    "stream": ScopeText(
        "stream",
        "host to host, streaming",
        "the same with several batches in flight; a sample is the time from one batch's logits to the next",
    ),
    "files": ScopeText(
        "files",
        "files to labels",
        "PNG files are read, decoded in separate processes, and classified; a sample is the time from one batch of "
        "labels to the next",
    ),
}

DEFAULT_SCOPES: tuple[Scope, ...] = ("compute", "sync", "stream")
"""Where compute or stream is the same measurement as sync, as on a CPU, it is not repeated."""


@dataclass(frozen=True)
class Preset:
    """What is timed, for how long, and which figure is to be compared."""

    name: str
    scope: Scope
    batches: tuple[int, ...]
    """Batch sizes; --batch overrides them."""
    seconds_per_cell: float
    headline: str
    """The figure that the original publishes: images/s, or a percentile of the latency such as p90."""
    text: str
    """What agrees with the original, and what differs."""
    warm_up_s: float = 0.3
    min_calls: int = 0
    min_images: int = 0
    cuda_graphs: bool = False
    fixed_batch: bool = False
    """Whether the original defines no other batch sizes."""


PRESETS = {
    one.name: one
    for one in (
        Preset(
            "trtexec-10",
            "stream",
            (1,),
            3.0,
            "images/s",
            "like trtexec of TensorRT 10: includes copies, and enqueues the next batch while one runs; 200 ms of "
            "warm-up, at least 3 s and 10 calls; images/s here are trtexec's queries/s times the batch size",
            warm_up_s=0.2,
            min_calls=10,
        ),
        Preset(
            "trtexec-11",
            "compute",
            (1,),
            3.0,
            "images/s",
            "like trtexec of TensorRT 11: excludes copies, and the host waits for every batch; 200 ms of warm-up, at "
            "least 3 s and 10 calls; on trt with CUDA graphs, and then on the same images in every call",
            warm_up_s=0.2,
            min_calls=10,
            cuda_graphs=True,
        ),
        Preset(
            "mlperf-offline",
            "stream",
            (256,),
            3.0,
            "images/s",
            "based on MLPerf's offline scenario: at least 24,576 samples, all available from the start; MLPerf itself "
            "requires ten minutes (--seconds 600) and its own load generator",
            min_images=24_576,
        ),
        Preset(
            "mlperf-singlestream",
            "sync",
            (1,),
            3.0,
            "p90",
            "based on MLPerf's single-stream scenario: one image after the other, 90th percentile of the latency; "
            "MLPerf itself requires ten minutes (--seconds 600) and its own load generator",
            fixed_batch=True,
        ),
    )
}


@dataclass(frozen=True)
class BenchConfig:
    """One measurement of throughput and latency."""

    batches: tuple[int, ...] = (1, 8, 64, 256)
    seconds: float = 20.0
    """Measuring time of all cells together, without exports, builds and warm-up."""
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    rounds: int = 20
    """Rounds planned for every cell within `seconds`; very slow cells get fewer."""
    warm_up_s: float = 0.3
    """Shortest warm-up of a cell."""
    min_calls: int = 0
    """Fewest calls of a cell; they may take longer than `seconds`."""
    min_images: int = 0
    """Fewest images of a cell; they may take longer than `seconds`."""
    preset: str = ""
    """Name of the preset behind this config; empty without one."""
    wait_quiet: bool = False
    """Wait before each round until other processes take next to nothing of the cores."""

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"--batch {','.join(map(str, self.batches))}: expected sizes of 1 or more")
        if not self.seconds > 0:
            raise UsageError(f"--seconds {self.seconds}: expected more than 0")

    @classmethod
    def from_preset(
        cls, name: str, *, batches: tuple[int, ...] | None, seconds: float | None, wait_quiet: bool = False
    ) -> Self:
        """The config of a preset; `seconds` None: the preset's time for every batch size. Raises UsageError."""
        preset = preset_named(name)
        if batches is not None and preset.fixed_batch and batches != preset.batches:
            raise UsageError(f"--preset {name} measures a batch of {preset.batches[0]} only; leave out --batch")
        chosen = batches or preset.batches
        return cls(
            batches=chosen,
            seconds=seconds or preset.seconds_per_cell * len(chosen),
            scopes=(preset.scope,),
            warm_up_s=preset.warm_up_s,
            min_calls=preset.min_calls,
            min_images=preset.min_images,
            preset=name,
            wait_quiet=wait_quiet,
        )

    def for_contenders(self, count: int, *, seconds_given: bool) -> Self:
        """This config for `count` contenders: each gets the preset's time, unless the user named a total."""
        return self if seconds_given or not self.preset else replace(self, seconds=self.seconds * count)


def parse_batches(text: str) -> tuple[int, ...]:
    """Read "1,8,64". Raises UsageError."""
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"--batch {text!r}: expected sizes separated by commas, such as 1,8,64") from None


def parse_scopes(names: Collection[str]) -> tuple[Scope, ...]:
    """The scopes with these names, each once, in the order of SCOPES. Raises UnknownNameError."""
    for name in names:
        if name not in SCOPES:
            raise UnknownNameError("scope", name, SCOPES)
    return tuple(scope for scope in SCOPES if scope in names)


def preset_named(name: str) -> Preset:
    """The preset with that name. Raises UnknownNameError, which lists the known ones."""
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]
