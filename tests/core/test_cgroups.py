"""The limits of control groups, read from trees as Linux shows them (man 7 cgroups, man 5 proc)."""

import os
from pathlib import Path

import pytest
from rtk.core import machine
from rtk.core.cgroups import core_limit, memory_limit

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V2_CONTAINER = "30 23 0:26 /docker/abc /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1_CPU = "33 24 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "35 24 0:31 {root} /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory"
GIB = 2**30


def tree(root: Path, *, group: str, mounts: str, files: dict[str, str]) -> Path:
    """Write /proc/self and files below /sys/fs/cgroup."""
    content = {"proc/self/cgroup": group, "proc/self/mountinfo": mounts}
    content |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("maximum", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("max 100000", None), ("nonsense", None)],
)
def test_a_quota_of_version_2_is_rounded_up_and_at_least_1(tmp_path: Path, maximum: str, cores: int | None) -> None:
    root = tree(tmp_path, group="0::/job", mounts=V2, files={"job/cpu.max": maximum})
    assert core_limit(root) == cores


def test_the_smallest_limit_of_nested_groups_counts(tmp_path: Path) -> None:
    files = {
        "a/cpu.max": "300000 100000",
        "a/b/cpu.max": "max 100000",
        "a/b/c/cpu.max": "800000 100000",
        "a/memory.max": f"{8 * GIB}",
        "a/b/memory.max": f"{2 * GIB}",
        "a/b/c/memory.max": "max",
    }
    root = tree(tmp_path, group="0::/a/b/c", mounts=V2, files=files)
    assert core_limit(root) == 3
    assert memory_limit(root) == 2 * GIB


@pytest.mark.parametrize("group", ["0::/", "0::/docker/abc", "0::/../../elsewhere"])
def test_a_container_that_sees_only_its_own_group_reads_it(tmp_path: Path, group: str) -> None:
    files = {"cpu.max": "100000 50000", "memory.max": f"{GIB}"}
    root = tree(tmp_path, group=group, mounts=V2_CONTAINER, files=files)
    assert core_limit(root) == 2
    assert memory_limit(root) == GIB


@pytest.mark.parametrize("mounted", ["/", "/docker/abc"])
def test_limits_of_version_1_are_read(tmp_path: Path, mounted: str) -> None:
    below = "" if mounted != "/" else "docker/abc/"
    files = {
        f"cpu,cpuacct/{below}cpu.cfs_quota_us": "250000",
        f"cpu,cpuacct/{below}cpu.cfs_period_us": "100000",
        f"memory/{below}memory.limit_in_bytes": f"{3 * GIB}",
    }
    group = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"
    mounts = "\n".join((V1_CPU.format(root=mounted), V1_MEMORY.format(root=mounted)))
    root = tree(tmp_path, group=group, mounts=mounts, files=files)
    assert core_limit(root) == 3
    assert memory_limit(root) == 3 * GIB


def test_version_1_without_limits_has_none(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
    }
    mounts = "\n".join((V1_CPU.format(root="/"), V1_MEMORY.format(root="/")))
    root = tree(tmp_path, group="5:memory:/\n4:cpu,cpuacct:/", mounts=mounts, files=files)
    assert (core_limit(root), memory_limit(root)) == (None, None)


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path) -> None:
    assert (core_limit(tmp_path), memory_limit(tmp_path)) == (None, None)


def test_the_quota_of_a_container_limits_the_cores_and_its_memory_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(machine, "core_limit", lambda: 3)
    monkeypatch.setattr(machine, "memory_limit", lambda: GIB // 4)
    assert machine.usable_cores() == 3
    assert machine.usable_memory() == GIB // 4
    monkeypatch.setattr(machine, "core_limit", lambda: 64)
    assert machine.usable_cores() == 16


def test_a_system_that_does_not_tell_its_memory_is_described_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    described = machine.this_machine.__wrapped__()
    assert described.memory_gib == 0
    assert "GiB" not in described.summary
    monkeypatch.delattr(os, "sysconf")
    assert machine.usable_memory() == 0
