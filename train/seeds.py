"""Train the same config with several random seeds, one after another: mean and spread."""

import logging
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..core.card import Score
from ..core.errors import UsageError
from ..core.files import make_folder, write_whole
from ..core.json_text import json_text
from .config import TrainConfig
from .distributed.process_group import join_process_group
from .log_lines import LINE_COLUMNS
from .run import Trained, resume, train
from .run_folder import RunFolder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """The test scores of several seeds."""

    seeds: tuple[int, ...]
    scores: tuple[Score, ...]

    @property
    def mean(self) -> float:
        """Mean of the accuracies."""
        return statistics.fmean(score.accuracy for score in self.scores)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1) of the accuracies; None for a single one."""
        return statistics.stdev(score.accuracy for score in self.scores) if len(self.scores) > 1 else None

    @property
    def text(self) -> str:
        """Mean and spread on the first line, then the accuracy of each seed; lines fit 80 columns."""
        each = ", ".join(f"{score.accuracy:.2%}" for score in self.scores)
        spread = "" if self.deviation is None else f", standard deviation {100 * self.deviation:.2f} points"
        return f"{self.mean:.2%} (mean of {len(self.scores)} seeds{spread})\n{textwrap.fill(each, LINE_COLUMNS)}"


def train_seeds(config: TrainConfig, count: int) -> tuple[Path, Summary]:
    """Train `count` seeds from config.seed on into RUN-s0, RUN-s1, ...; return RUN/seeds.json and the scores in it.

    RUN is config.out or runs/NAME, and the models are NAME-s0, NAME-s1, ...; NAME is config.name or ARCH-DATASET.
    seeds.json is written after each seed. A repeated call keeps the finished seeds and resumes the unfinished one.
    Raises UsageError if a folder holds a run with other options.
    """
    if count < 2:
        raise UsageError(f"--seeds {count}: expected 2 or more; for a single seed use --seed")
    base = config.out or Path("runs") / config.series_name
    seeds = tuple(range(config.seed, config.seed + count))
    path, runs = base / "seeds.json", list[Trained]()
    with join_process_group() as processes:
        for number, seed in enumerate(seeds):
            if processes.first:
                _log.info(f"seed {seed} ({number + 1} of {count})")
            name = config.name and f"{config.name}-s{seed}"
            one = replace(config, name=name, seed=seed, out=base.with_name(f"{base.name}-s{seed}"))
            begun = processes.from_first(RunFolder(one.run_dir).last.exists)
            runs.append(resume(one.run_dir, given=asdict(one)) if begun else train(one))
            scores = tuple(run.card.score for run in runs if run.card.score is not None)
            summary = Summary(seeds[: len(runs)], scores)
            if processes.first:
                make_folder(base)
                write_whole(path, json_text(_content(config, runs, summary), indent=2) + "\n")
    return path, summary


def seed_folders(path: Path, seeds: Sequence[int]) -> list[Path]:
    """The run folders of these seeds. `path`: the seeds.json of their series."""
    base = path.parent
    return [base.with_name(f"{base.name}-s{seed}") for seed in seeds]


def _content(config: TrainConfig, runs: list[Trained], summary: Summary) -> dict[str, Any]:
    """The content of seeds.json."""
    rows = [
        {"seed": seed, "run": str(run.run_dir), **asdict(score), "accuracy": score.accuracy}
        for seed, run, score in zip(summary.seeds, runs, summary.scores, strict=True)
    ]
    return {
        "arch": config.arch,
        "dataset": config.dataset,
        "recipe": config.recipe,
        "accuracy_mean": summary.mean,
        "accuracy_standard_deviation": summary.deviation,
        "runs": rows,
    }
