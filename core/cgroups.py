"""The limits that a container or a batch system sets: cores and memory of this process's control groups.

Linux only (man 7 cgroups). Both versions are read. A limit of any group above also holds, so the smallest one counts.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60
"""Version 1 writes a number of bytes near 2**63 where memory has no limit."""


def core_limit(root: Path = Path("/")) -> int | None:
    """Return the number of cores that the groups allow, rounded up and at least 1; None without a limit.

    `root`: the folder that holds proc/ and the mount points.
    """
    limits = []
    for folder, version in _groups("cpu", root):
        if version == 2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if _is_count(quota) and _is_count(period):
            limits.append(max(1, math.ceil(int(quota) / int(period))))
    return min(limits, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that the groups allow; None without a limit."""
    limits = []
    for folder, version in _groups("memory", root):
        limit = _text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if _is_count(limit) and int(limit) < UNLIMITED:
            limits.append(int(limit))
    return min(limits, default=None)


def _groups(controller: str, root: Path) -> Iterator[tuple[Path, int]]:
    """Yield the folders of this process's group and of all groups above it, with the version of their hierarchy."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        version = 2 if (number, controllers) == ("0", "") else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        for mounted_group, mount_point in _mounts(controller, version, root):
            top = root / mount_point.lstrip("/")
            # A container may see only the part of the tree that is mounted, under another name than in proc.
            below = os.path.relpath(group, mounted_group)
            folder = top if below.startswith("..") else top / below
            yield from ((one, version) for one in (folder, *folder.parents) if one.is_relative_to(top))


def _mounts(controller: str, version: int, root: Path) -> Iterator[tuple[str, str]]:
    """Yield the mounts of a hierarchy: the group at their top, and the mount point."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        mount, _, file_system = line.partition(" - ")
        kind, *_, options = file_system.split(" ") or [""]
        fits = kind == "cgroup2" if version == 2 else kind == "cgroup" and controller in options.split(",")
        if fits:
            yield mount.split(" ")[3], mount.split(" ")[4]


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0


def _text(path: Path) -> str:
    """The content of a file, without the line's end; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
