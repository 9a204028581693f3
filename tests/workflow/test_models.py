"""The card of a model is read once, and its checkpoint is hashed once."""

import os
import shutil
from pathlib import Path

import pytest
from rtk.core.artifacts import checkpoint as checkpoints
from rtk.core.artifacts.checkpoint import Checkpoint, load_checkpoint
from rtk.core.artifacts.graph_cache import graph_file
from rtk.core.errors import ArtifactError
from rtk.core.files import sha256_of
from rtk.workflow import models
from rtk.workflow.artifacts import graph_parts
from rtk.workflow.models import ModelFiles, file_sha256, find_model, find_reference, read_card


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed, in order."""
    paths: list[Path] = []

    def record(path: Path) -> str:
        paths.append(path)
        return sha256_of(path)

    monkeypatch.setattr(models, "sha256_of", record)
    return paths


@pytest.fixture
def mine(checkpoint_path: Path, graph_path: Path, tmp_path: Path) -> Path:
    """A folder with a checkpoint and its graph that no other test has hashed."""
    shutil.copy(checkpoint_path, tmp_path / "mine.pt")
    shutil.copy(graph_path, tmp_path / "mine.onnx")
    return tmp_path


def test_a_checkpoint_is_hashed_once_for_all_backends_and_precisions(mine: Path, hashed: list[Path]) -> None:
    graph = find_model(str(mine / "mine.onnx"))
    for precision in ("fp32", "fp16", "bf16", "int8"):
        checkpoint = find_reference(graph)
        assert checkpoint == mine / "mine.pt"
        assert graph_file(graph_parts(checkpoint, precision=precision)).name.startswith(f"{precision}-")
    assert hashed == [mine / "mine.pt"]


def test_a_checkpoint_that_changes_is_hashed_again(mine: Path, hashed: list[Path]) -> None:
    path = mine / "mine.pt"
    before, status = file_sha256(path), path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file_sha256(path) != before
    assert file_sha256(path) == sha256_of(path)
    assert hashed == [path, path]


def test_a_card_is_read_once(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def record(path: Path) -> Checkpoint:
        read.append(path)
        return load_checkpoint(path)

    monkeypatch.setattr(checkpoints, "load_checkpoint", record)
    found = find_model(str(mine / "mine.pt"))
    assert read == []
    assert read_card(found) is read_card(found)
    assert read_card(found).checkpoint_sha256 == sha256_of(mine / "mine.pt")
    assert read == [mine / "mine.pt"]
    assert found == ModelFiles("mine", checkpoint=mine / "mine.pt"), "the card is no part of the comparison"


def test_a_missing_checkpoint_is_an_error_after_it_was_hashed(mine: Path) -> None:
    graph_parts(mine / "mine.pt")
    (mine / "mine.pt").unlink()
    with pytest.raises(ArtifactError, match=r"mine\.pt: no such checkpoint"):
        graph_parts(mine / "mine.pt")
