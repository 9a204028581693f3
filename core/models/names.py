"""The table of architecture names: which there are, and how a name is read. No torch here."""

import re
from dataclasses import dataclass

from ..errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class Family:
    """Architectures that differ by depth alone."""

    name: str
    pattern: str
    """As shown to users, such as resnet{6n+2}v1."""
    layers_per_n: int
    examples: tuple[int, ...]
    """Depths of the papers."""


FAMILIES = {
    "v1": Family("v1", "resnet{6n+2}v1", 6, (20, 32, 44, 56, 110, 164)),
    "v2": Family("v2", "resnet{9n+2}v2", 9, (20, 29, 56, 110, 164, 1001)),
}


@dataclass(frozen=True)
class Architecture:
    """One network, by name."""

    name: str
    family: Family
    depth: int


def known_architectures() -> list[str]:
    """The names worth listing; any other depth of the family's form works too."""
    return [f"resnet{depth}{family.name}" for family in FAMILIES.values() for depth in family.examples]


def parse_architecture(name: str) -> Architecture:
    """Read a name such as resnet20v1. Raises UsageError for an unknown name or a depth that the family lacks."""
    match = re.fullmatch(r"resnet([1-9][0-9]{0,5})(v[12])", name)
    if match is None:
        raise UnknownNameError("architecture", name, known_architectures())
    depth, family = int(match[1]), FAMILIES[match[2]]
    if depth <= 2 or (depth - 2) % family.layers_per_n:
        below = max(depth - (depth - 2) % family.layers_per_n, family.layers_per_n + 2)
        nearest = f"{below} or {below + family.layers_per_n}" if below < depth else f"{below}"
        raise UsageError(
            f"architecture {name!r}: depth {depth} is not {family.layers_per_n}n+2; nearest: {nearest} "
            f"(known: {', '.join(known_architectures())})"
        )
    return Architecture(name, family, depth)
