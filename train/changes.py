"""A run that goes on was started with options; those given now must not say otherwise."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.data.datasets import DATASETS
from ..core.errors import UsageError
from .config import TrainConfig

FREE = ("data_dir", "save_every", "skip_nan")
"""What may change: it makes no difference to what the run has done so far."""


def with_changes(run_dir: Path, run: TrainConfig, asked: Mapping[str, Any]) -> TrainConfig:
    """The config of the run in that folder with what may be changed of the fields in `asked`.

    Raises UsageError, which names the others that differ with both values.
    """
    now = replace(run, **asked)
    changes = [
        f"{_option(name)} {asked[name]} (the run: {_words(run, name)})"
        for name in asked
        if name not in (*FREE, "out") and _meaning(now, name) != _meaning(run, name)
    ]
    if asked.get("out") and asked["out"].resolve() != run_dir.resolve():
        changes.append(f"--out {asked['out']}")
    if changes:
        raise UsageError(
            f"{run_dir} goes on only as it was started, without {', '.join(changes)}; "
            "leave that out, or start a new run with another --out"
        )
    return replace(run, **{name: asked[name] for name in FREE if name in asked})


def _option(name: str) -> str:
    return "ARCH" if name == "arch" else "--" + name.replace("_", "-")


def _meaning(config: TrainConfig, name: str) -> Any:
    """What the value comes to: none is the recipe's, and a folder the same wherever it is named from."""
    value = getattr(config, name)
    if value is None:
        return getattr(config.values, name, None)
    if (name == "dataset" and value not in DATASETS) or (name == "weights" and Path(value).is_file()):
        return Path(value).resolve()
    return value


def _words(run: TrainConfig, name: str) -> str:
    value, own = getattr(run, name), getattr(run.values, name, None)
    return f"the recipe's {own}" if value is None and own is not None else "none" if value is None else str(value)
