"""The table of architecture names, and the published weights for them. No torch here.

A network of the user's own is named by the function that builds it: see code_names.py.
"""

import re
from dataclasses import dataclass

from ..errors import UnknownNameError, UsageError
from .code_names import CodeName, code_name


@dataclass(frozen=True)
class Family:
    """Architectures that differ only in depth; a name is `prefix`, the depth, `suffix`."""

    name: str
    prefix: str
    suffix: str
    depths: tuple[int, ...]
    """Depths in the papers."""
    layers_per_n: int = 0
    """The family has every depth of this number times n, plus 2; 0: it has only the listed depths."""

    def named(self, depth: int) -> str:
        """Return the name of the member with that depth."""
        return f"{self.prefix}{depth}{self.suffix}"


FAMILIES = {
    family.name: family
    for family in (
        Family("v1", "resnet", "v1", (20, 32, 44, 56, 110, 164), 6),  # arXiv 1512.03385, for small images
        Family("v2", "resnet", "v2", (20, 29, 56, 110, 164, 1001), 9),  # arXiv 1603.05027
        Family("plain", "plain", "", (20, 32, 44, 56), 6),  # arXiv 1512.03385, figure 6: v1 without shortcuts
        Family("imagenet", "resnet", "", (18, 34, 50, 101, 152)),  # arXiv 1512.03385, table 1
        Family("d2l", "resnet", "d2l", (18,)),  # Dive into Deep Learning, d2l.ai, the chapter on residual networks
    )
}

OWN_CODE = Family("code", "", "", ())
"""The family of all networks that are built by a function outside of rtk."""

PUBLISHED_URL = "https://download.pytorch.org/models/"

PUBLISHED = {
    "imagenet": {
        "resnet18": "resnet18-f37072fd.pth",
        "resnet34": "resnet34-b627a593.pth",
        "resnet50": "resnet50-11ad3fa6.pth",
        "resnet101": "resnet101-cd907fc2.pth",
        "resnet152": "resnet152-f82ba261.pth",
    },
    "imagenet-v1": {
        "resnet18": "resnet18-f37072fd.pth",
        "resnet34": "resnet34-b627a593.pth",
        "resnet50": "resnet50-0676ba61.pth",
        "resnet101": "resnet101-63fe2227.pth",
        "resnet152": "resnet152-394f9c45.pth",
    },
}
"""torchvision's weight files. `imagenet`: its defaults, IMAGENET1K_V2 if there is one, else V1; `imagenet-v1`: V1."""


@dataclass(frozen=True)
class Architecture:
    """One network, by name."""

    name: str
    family: Family
    depth: int
    """Number of layers with weights; 0 for a network of the user's own, whose layers nobody counts."""
    code: CodeName | None = None
    """The function that builds a network of the user's own."""


def known_architectures() -> list[str]:
    """Return the names to list; a family with a rule accepts other depths too."""
    return [family.named(depth) for family in FAMILIES.values() for depth in family.depths]


def parse_architecture(name: str) -> Architecture:
    """Read a name such as resnet20v1 or mynets:tiny(width=32).

    Raises UsageError for an unknown name, a depth that the family lacks, or arguments that are not valid.
    """
    code = code_name(name)
    if code is not None:
        return Architecture(code.text, OWN_CODE, 0, code)
    for family in FAMILIES.values():
        match = re.fullmatch(f"{family.prefix}([1-9][0-9]{{0,5}}){family.suffix}", name)
        if match and (family.layers_per_n or int(match[1]) in family.depths):
            return Architecture(name, family, _checked_depth(name, family, int(match[1])))
    hint = f"known: {', '.join(known_architectures())}; for a network of your own: package.module:function"
    raise UnknownNameError("architecture", name, known_architectures(), hint=hint)


def _checked_depth(name: str, family: Family, depth: int) -> int:
    step = family.layers_per_n
    if step and (depth <= 2 or (depth - 2) % step):
        below = max(depth - (depth - 2) % step, step + 2)
        nearest = f"{below} or {below + step}" if below < depth else f"{below}"
        raise UsageError(
            f"architecture {name!r}: depth {depth} is not {step}n+2; nearest: {nearest} "
            f"(known: {', '.join(known_architectures())})"
        )
    return depth


def published_file(name: str, arch: str) -> str:
    """Return the name of the weight file for that architecture. Raises UsageError if it is missing."""
    if arch not in PUBLISHED[name]:
        raise UsageError(f"--weights {name}: no weights for {arch}; available for {', '.join(PUBLISHED[name])}")
    return PUBLISHED[name][arch]


def published_checksum(file: str) -> str:
    """Return the checksum in the file's name: the first digits of its SHA-256, by PyTorch's convention."""
    match = re.search(r"-([0-9a-f]{8,})\.", file)
    assert match
    return f"sha256:{match[1]}"
