"""Shared by the tests of whole trainings: tiny configs, runs in separate processes, and the comparison of runs."""

import json
import multiprocessing
import multiprocessing.context
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.train.config import TrainConfig
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder

FORKS = multiprocessing.get_context("forkserver")
"""Child processes start from a process that has imported everything and runs no threads."""
FORKS.set_forkserver_preload(["rtk.train.run"])


def tiny(folder: Path, out: Path, **changes: Any) -> TrainConfig:
    """A config of three epochs of at most three steps on the 24 images of the class folders in `folder`."""
    settings = {"epochs": 3, "batch_size": 8, "lr": 0.05, "precision": "fp32", "compile": "off", **changes}
    return TrainConfig(**{"arch": "resnet8v1", "dataset": str(folder), "out": out, **settings})


def train_or_resume(config: TrainConfig) -> None:
    """Train, or resume the run in the folder."""
    if RunFolder(config.run_dir).last.exists():
        resume(config.run_dir)
    else:
        train(config)


def in_child(action: Callable[..., None], *arguments: Any) -> multiprocessing.context.ForkServerProcess:
    """Start the action in a separate process."""
    process = FORKS.Process(target=action, args=arguments)
    process.start()
    return process


def together(count: int, action: Callable[..., None], *arguments: Any, timeout_s: float = 600) -> list[int | None]:
    """Run the action in `count` processes that form a group as under torchrun, and return their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [in_child(_as_rank, rank, count, port, action, *arguments) for rank in range(count)]
    for process in processes:
        process.join(timeout_s)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def _as_rank(rank: int, count: int, port: int, action: Callable[..., None], *arguments: Any) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in address.items()}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    action(*arguments)


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history without durations."""
    return [{name: value for name, value in row.items() if name != "epoch_s"} for row in rows]


def history(run_dir: Path) -> list[dict[str, Any]]:
    """The history of history.jsonl, without durations."""
    return without_times([json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()])


def assert_same_weights(first: Path, second: Path) -> None:
    """Assert that two checkpoints have bitwise equal weights and the same score."""
    one, other = load_checkpoint(first), load_checkpoint(second)
    assert_equal(one.weights, other.weights)
    assert one.card.score == other.card.score


def assert_same_runs(first: Path, second: Path) -> None:
    """Assert that weights, history and the state for resuming are bitwise equal."""
    for name in ("best.pt", "last.pt"):
        assert_same_weights(first / name, second / name)
    one, other = (load_checkpoint(run / "last.pt").training for run in (first, second))
    assert one is not None
    assert other is not None
    for state in (one, other):
        state["history"] = without_times(state["history"])
        for name in ("train_s", "epoch_s", "origins"):
            del state[name]
    assert_equal(one, other)
    assert history(first) == history(second) == one["history"]


def assert_equal(one: Any, other: Any, at: str = "") -> None:
    """Assert that nested dicts and lists of tensors and plain values are equal."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), at
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for name, value in one.items():
            assert_equal(value, other[name], f"{at}/{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), at
        for number, value in enumerate(one):
            assert_equal(value, other[number], f"{at}/{number}")
    else:
        assert one == other, at
