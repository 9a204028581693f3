"""The cache of engines: an engine is found by the key of its parts, whole or not at all."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.engine_files import INFO, KEY, PLAN
from rtk.core.artifacts.engine import Profile, json_path, read_engine_info
from rtk.core.artifacts.engine_cache import (
    cache_engine,
    cached_engines,
    engine_key,
    find_engine,
    key_of,
)
from rtk.core.errors import OutputError
from rtk.core.paths import cache_dir

PARTS: dict[str, Any] = {
    "graph_sha256": "a" * 64,
    "opt_batch": 4,
    "max_batch": 16,
    "flavor": "tensorrt",
    "version": "11.4.0.106",
    "hardware": ("NVIDIA H100", "9.0"),
    "options": {"tf32": False},
}


OTHER = replace(INFO, graph_sha256="b" * 64)
"""An engine from another graph."""


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("graph_sha256", "b" * 64),
        ("opt_batch", 8),
        ("max_batch", 17),
        ("flavor", "tensorrt-rtx"),
        ("version", "11.4.0.107"),
        ("hardware", ("NVIDIA H200", "9.0")),
        ("hardware", ("NVIDIA H100", "9.1")),
        ("options", {"tf32": True}),
    ],
)
def test_another_value_of_any_part_is_another_engine(part: str, other: object) -> None:
    assert engine_key(**PARTS) != engine_key(**{**PARTS, part: other})


def test_the_same_parts_are_the_same_engine() -> None:
    assert engine_key(**PARTS) == engine_key(**{**PARTS, "options": dict(PARTS["options"])})


def test_a_cached_engine_is_found_whole_with_its_own_name() -> None:
    assert find_engine(KEY) is None
    cached = cache_engine(KEY, "small.fp16", PLAN, INFO)
    assert find_engine(KEY) == cached
    assert cached.name == "small.fp16.engine"
    assert cached.read_bytes() == PLAN
    assert read_engine_info(cached) == INFO


def test_a_second_engine_with_the_same_key_does_not_replace_the_first() -> None:
    cache_engine(KEY, "small", PLAN, INFO)
    second = cache_engine(KEY, "small", b"other", replace(INFO, plan_bytes=5))
    assert second.read_bytes() == PLAN
    assert [path.name for path in (cache_dir() / "engines").iterdir()] == [KEY]


@pytest.mark.parametrize("damage", ["truncate", "alter", "no json", "no plan"])
def test_a_damaged_entry_is_removed_and_can_be_replaced(damage: str) -> None:
    cached = cache_engine(KEY, "small", PLAN, INFO)
    if damage == "truncate":
        cached.write_bytes(PLAN[:10])
    elif damage == "alter":
        cached.write_bytes(b"x" * len(PLAN))
    else:
        (json_path(cached) if damage == "no json" else cached).unlink()
    (entry,) = cached_engines()
    assert entry.problem
    assert find_engine(KEY) is None
    assert not cached.parent.exists()
    assert cache_engine(KEY, "small", PLAN, INFO) == cached


@pytest.mark.parametrize(
    "changes",
    [
        {"graph_sha256": "b" * 64},
        {"profile": Profile(4, 32)},
        {"flavor": "tensorrt-rtx"},
        {"version": "11.5.0.1"},
        {"gpu": "NVIDIA H200"},
        {"options": {"tf32": True}},
    ],
)
def test_the_folder_of_another_engine_is_not_used_and_a_line_says_so(
    changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    other = replace(INFO, **changes)
    cached = cache_engine(KEY, "small", PLAN, INFO)
    swapped = cache_engine(key_of(other), "small", PLAN, other)
    shutil.rmtree(cached.parent)
    swapped.parent.rename(cached.parent)
    (entry,) = cached_engines()
    assert entry.problem.startswith("another engine than its folder is named for")
    assert find_engine(KEY) is None
    (line,) = caplog.messages
    assert "another engine" in line
    assert "it is removed from the cache" in " ".join(line.split())
    assert cache_engine(KEY, "small", PLAN, INFO) == cached


def test_the_list_has_size_and_content_and_starts_with_the_newest() -> None:
    cache_engine(KEY, "old", PLAN, INFO)
    newer = cache_engine(key_of(OTHER), "new", PLAN, OTHER)
    os.utime(newer, (2e9, 2e9))
    first, second = cached_engines()
    assert (first.key, second.key) == (key_of(OTHER), KEY)
    assert first.bytes == newer.stat().st_size + json_path(newer).stat().st_size
    assert first.info == OTHER
    assert first.problem == ""


def test_a_full_cache_is_an_error_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr("rtk.core.artifacts.engine.write_whole", full)
    with pytest.raises(OutputError, match="cache/engines/.*No space left on device"):
        cache_engine(KEY, "small", PLAN, INFO)
    assert list((cache_dir() / "engines").iterdir()) == []


def test_where_the_cache_cannot_be_written_an_engine_is_kept_in_the_temporary_one(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    kept = cache_engine(KEY, "small", PLAN, INFO)
    assert find_engine(KEY) == kept
    assert [entry.engine for entry in cached_engines()] == [kept]
    shutil.rmtree(kept.parent)


def test_an_interrupted_write_leaves_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rtk.core.artifacts.engine.write_whole", stop)
    with pytest.raises(KeyboardInterrupt):
        cache_engine(KEY, "small", PLAN, INFO)
    assert list((cache_dir() / "engines").iterdir()) == []
