"""BenchConfig: what `rtk bench` was asked for. Nothing heavy is imported here."""

from dataclasses import dataclass

from ..core.errors import UsageError


@dataclass(frozen=True)
class BenchConfig:
    """One measurement of throughput and latency."""

    batches: tuple[int, ...] = (1, 8, 64, 256)
    seconds: float = 20.0
    """Measuring time for all cells together; warming up comes on top."""
    min_rounds: int = 10
    """Rounds that every cell gets, even beyond `seconds`."""

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"--batch {','.join(map(str, self.batches))}: expected sizes of 1 or more")
        if not self.seconds > 0:
            raise UsageError(f"--seconds {self.seconds}: expected more than 0")


def parse_batches(text: str) -> tuple[int, ...]:
    """Read "1,8,64". Raises UsageError."""
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"--batch {text!r}: expected sizes with commas between them, such as 1,8,64") from None
