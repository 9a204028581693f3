"""BenchConfig: what `rtk bench` was asked for. Nothing heavy is imported here."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal, Self

from ..core.errors import UnknownNameError, UsageError

Scope = Literal["compute", "sync", "stream", "files"]

SCOPES: dict[Scope, tuple[str, str]] = {
    "compute": ("compute", "images and logits stay on the device: the arithmetic alone"),
    "sync": (
        "host to host",
        "uint8 images in host memory to float32 logits in host memory, copies included, one batch after the other",
    ),
    "stream": (
        "host to host, streaming",
        "the same with several batches on their way; a sample is the time from one batch's logits to the next's",
    ),
    "files": (
        "files to labels",
        "PNG files read, decoded in processes of their own, and classified; a sample is the time from one batch of "
        "labels to the next",
    ),
}
"""What each scope is called, and what is timed in it."""


DEFAULT_SCOPES: tuple[Scope, ...] = ("compute", "sync", "stream")
"""Where the first and the last coincide with the second, as on a CPU, they are not measured again."""


@dataclass(frozen=True)
class Preset:
    """What is timed, for how long, and which figure is the one to compare."""

    name: str
    scope: Scope
    batches: tuple[int, ...]
    """Unless --batch says otherwise."""
    seconds_a_cell: float
    headline: str
    """The figure that is printed elsewhere: images/s, or a percentile of the latency such as p90."""
    words: str
    """What agrees with the original, and what does not."""
    warm_up_s: float = 0.3
    min_calls: int = 0
    min_images: int = 0
    cuda_graphs: bool = False
    fixed_batch: bool = False
    """Whether the original knows no other batch sizes than these."""


PRESETS = {
    one.name: one
    for one in (
        Preset(
            "trtexec-10",
            "stream",
            (1,),
            3.0,
            "images/s",
            "as trtexec of TensorRT 10: copies included, the next batch enqueued while one runs; 200 ms of warm-up, "
            "at least 3 s and 10 calls; its throughput in queries/s times the batch size is images/s here",
            warm_up_s=0.2,
            min_calls=10,
        ),
        Preset(
            "trtexec-11",
            "compute",
            (1,),
            3.0,
            "images/s",
            "as trtexec of TensorRT 11: copies left out, the host waits for every batch; 200 ms of warm-up, at least "
            "3 s and 10 calls; CUDA graphs where the backend has them (TensorRT-RTX)",
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
            "after MLPerf's offline scenario: at least 24,576 samples, all of them there from the start; MLPerf itself "
            "wants ten minutes (--seconds 600) and its own load generator",
            min_images=24_576,
        ),
        Preset(
            "mlperf-singlestream",
            "sync",
            (1,),
            3.0,
            "p90",
            "after MLPerf's single-stream scenario: one image after the other, the 90th percentile of the latency; "
            "MLPerf itself wants ten minutes (--seconds 600) and its own load generator",
            fixed_batch=True,
        ),
    )
}


@dataclass(frozen=True)
class BenchConfig:
    """One measurement of throughput and latency."""

    batches: tuple[int, ...] = (1, 8, 64, 256)
    seconds: float = 20.0
    """Measuring time for all cells together; exports, builds and warming up come on top."""
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    rounds: int = 10
    """Rounds that every cell is meant to get within `seconds`; with very slow cells the time decides."""
    warm_up_s: float = 0.3
    """Of every cell, at least."""
    min_calls: int = 0
    """Calls that every cell makes, even beyond `seconds`."""
    min_images: int = 0
    """The same, in images."""
    preset: str = ""
    """The preset that this came from."""

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"--batch {','.join(map(str, self.batches))}: expected sizes of 1 or more")
        if not self.seconds > 0:
            raise UsageError(f"--seconds {self.seconds}: expected more than 0")

    @classmethod
    def from_preset(cls, name: str, *, batches: tuple[int, ...] | None, seconds: float | None) -> Self:
        """What a preset measures; `seconds` None: its own for every batch size. Raises UsageError."""
        preset = preset_named(name)
        if batches is not None and preset.fixed_batch and batches != preset.batches:
            raise UsageError(f"--preset {name}: a batch of {preset.batches[0]} is what it measures; leave out --batch")
        chosen = batches or preset.batches
        return cls(
            batches=chosen,
            seconds=seconds or preset.seconds_a_cell * len(chosen),
            scopes=(preset.scope,),
            warm_up_s=preset.warm_up_s,
            min_calls=preset.min_calls,
            min_images=preset.min_images,
            preset=name,
        )

    def for_contenders(self, count: int, *, seconds_given: bool) -> Self:
        """The same for so many contenders: a preset's time is each one's own unless the user named a total."""
        return self if seconds_given or not self.preset else replace(self, seconds=self.seconds * count)


def parse_batches(text: str) -> tuple[int, ...]:
    """Read "1,8,64". Raises UsageError."""
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"--batch {text!r}: expected sizes with commas between them, such as 1,8,64") from None


def parse_scopes(names: Collection[str]) -> tuple[Scope, ...]:
    """The scopes of these names, each once. Raises UnknownNameError."""
    for name in names:
        if name not in SCOPES:
            raise UnknownNameError("scope", name, SCOPES)
    return tuple(scope for scope in SCOPES if scope in names)


def preset_named(name: str) -> Preset:
    """The preset of that name. Raises UnknownNameError, which lists the known ones."""
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]
