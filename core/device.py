"""The names of devices in options: auto, cpu, cuda and cuda:N."""

import re

from .errors import UsageError

NAMES = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


def check_device(device: str) -> None:
    """Raise UsageError for a name that is none of them. It says nothing about this machine."""
    if not NAMES.fullmatch(device):
        raise UsageError(f"--device {device!r}: expected auto, cpu, cuda or cuda:N, such as cuda:0")
