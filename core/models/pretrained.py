"""Weights that others have published for these architectures: a table of names. No torch here."""

import re

from ..errors import UsageError

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
"""torchvision's files: `imagenet` its default ones, IMAGENET1K_V1 or where there is one V2; `imagenet-v1` the V1."""


def published_file(name: str, arch: str) -> str:
    """The name of the file with the weights of that name for that architecture. Raises UsageError for others."""
    if arch not in PUBLISHED[name]:
        raise UsageError(f"--weights {name}: there are none for {arch}, only for {', '.join(PUBLISHED[name])}")
    return PUBLISHED[name][arch]


def published_checksum(file: str) -> str:
    """The checksum that the file's name carries, by PyTorch's convention: the first digits of its SHA-256."""
    match = re.search(r"-([0-9a-f]{8,})\.", file)
    assert match
    return f"sha256:{match[1]}"
