"""BenchConfig: what `rtk bench` was asked for. Nothing heavy is imported here."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from ..core.errors import UnknownNameError, UsageError
from .presets import preset_named
from .scopes import SCOPES, Scope

if TYPE_CHECKING:
    from .measure.cell import Cell

DEFAULT_SCOPES: tuple[Scope, ...] = ("compute", "sync", "stream")
"""Where the first and the last coincide with the second, as on a CPU, they are not measured again."""


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

    def owes(self, cell: "Cell") -> bool:
        """Whether this cell must go on, whatever the time."""
        calls = sum(map(len, cell.rounds))
        return calls < self.min_calls or calls * cell.batch < self.min_images

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
