"""Classification on many machines: Ray Data maps the same backend over a cluster, one actor for each GPU.

One task lists the sources; actors, each with a backend and a decoder of its own, answer groups of images; the answers
come back in the order of the inputs. Sources, data and a model that is a file are read where the actors run: they lie
on a disk that all machines share, and rtk is installed on each. An archive or array is one actor's work: many shards
keep many actors busy.

What an actor had not given back when it died is answered again, by itself once Ray has started it anew, on another
machine if its own is gone and there is room.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BackendError, RtkError
from ..core.text import one_line
from .backend import Backend, BackendOptions
from .classify import Answer, ClassifyConfig, Prediction, classify
from .decode import Decoder
from .output.formats import Fit
from .sources.entry import Entry
from .sources.listing import kind_of, listed, within

GROUP = 1_024
"""Files that an actor is handed at once; what it loses when it dies."""
ANSWERS_AT_ONCE = 1_024
CORES_PER_ACTOR = 4
"""Of a machine without a GPU, or for each GPU that has so many."""
SHARE_ASKED = 0.5
"""What an actor asks Ray for, of the cores that it uses: the rest is room for the actors of a machine that is lost."""
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Work:
    """What every actor must know."""

    open_backend: Callable[[BackendOptions], Backend]
    """Opens the model where the actor runs."""
    folder: str
    """That relative paths are meant from."""
    config: ClassifyConfig
    fit: Fit
    data_dir: Path | None
    options: BackendOptions
    processes: int | None
    """That decode for each actor; None means one for each of its cores."""


@dataclass(frozen=True)
class Actors:
    """How a cluster is used."""

    count: int
    cores: int
    """That each of them uses."""
    gpus: int
    """That each of them has, 0 or 1."""


def answers_on_ray(paths: Iterable[str], work: Work, *, address: str) -> Iterator[Answer]:
    """Answer what lies behind the paths on the Ray cluster at that address; local starts one on this machine.

    Raises BackendError when there is no cluster, no room in it, or a backend fails there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of what it will do one day
    import ray
    import ray.data
    from ray.exceptions import RayError

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BackendError(f"ray: no cluster at {address}: {one_line(error)}") from error
    try:
        actors = actors_for([node["Resources"] for node in ray.nodes() if node["Alive"]], work.options.device)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = 1  # each group, and each lot of answers, travels alone
        groups = ray.data.from_items([{"paths": json.dumps(list(paths))}]).map_batches(
            listed_groups,
            batch_size=1,
            num_cpus=0,  # there is always room for it
            compute=ray.data.TaskPoolStrategy(size=1),
            fn_kwargs={"folder": work.folder},
        )
        answers = groups.map_batches(
            Classifier,
            batch_size=1,
            num_cpus=actors.cores * SHARE_ASKED,
            num_gpus=actors.gpus,
            compute=ray.data.ActorPoolStrategy(size=actors.count),
            fn_constructor_kwargs={"work": work, "actors": actors},
        )
        for lot in answers.iter_batches(batch_size=None, batch_format="numpy"):
            for text in lot["answers"]:
                yield from answers_from_json(text)
    except RayError as error:
        raise BackendError(f"ray: {_reason(error)}") from error
    finally:
        ray.shutdown()


def actors_for(machines: list[dict[str, float]], device: str) -> Actors:
    """One actor for each GPU; without one, for every few cores. Raises BackendError when there is nothing to use."""
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    if device.startswith("cuda") and not gpus:
        raise BackendError(f"ray: --device {device}: the cluster has no GPU")
    if gpus and device != "cpu":
        with_gpu = [machine for machine in machines if machine.get("GPU", 0) >= 1]
        cores = min(int(machine.get("CPU", 1) / machine["GPU"]) for machine in with_gpu)
        return Actors(gpus, cores=max(1, min(cores, CORES_PER_ACTOR)), gpus=1)
    cpus = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    if not cpus:
        raise BackendError("ray: the cluster offers neither GPUs nor cores")
    cores = min(CORES_PER_ACTOR, *cpus)
    return Actors(sum(count // cores for count in cpus), cores=cores, gpus=0)


def listed_groups(rows: Columns, *, folder: str) -> Iterator[Columns]:
    """What is listed behind the paths of each row, in groups: files together, each archive, array or split alone."""
    os.chdir(folder)
    for text in rows["paths"]:
        group: list[Entry] = []
        for found in listed(json.loads(text)):
            alone = bool(not found.error and kind_of(found.name))
            if group and (alone or len(group) == GROUP):
                yield _row("group", [[entry.name, entry.error] for entry in group])
                group = []
            if alone:
                yield _row("group", [[found.name, ""]])
            else:
                group.append(found)
        if group:
            yield _row("group", [[entry.name, entry.error] for entry in group])


class Classifier:
    """An actor: a backend and a decoder that stay open."""

    def __init__(self, work: Work, actors: Actors) -> None:
        """Open the model, where relative paths mean what they mean to the user."""
        os.chdir(work.folder)
        self.work = work
        self.backend = work.open_backend(replace(work.options, threads=actors.cores))
        processes = actors.cores if work.processes is None else work.processes
        self.decoder = Decoder(self.backend.card.input, processes=processes, fit=work.fit)
        if processes:
            self.decoder.start()

    def __call__(self, rows: Columns) -> Iterator[Columns]:
        """The answers to the groups, some at a time."""
        for text in rows["group"]:
            entries = (
                entry
                for name, error in json.loads(text)
                for entry in within(Entry(name, error), data_dir=self.work.data_dir)
            )
            lot: list[Answer] = []
            for answer in classify(entries, self.backend, self.decoder, self.work.config):
                lot.append(answer)
                if len(lot) == ANSWERS_AT_ONCE:
                    yield _row("answers", _plain(lot))
                    lot = []
            if lot:
                yield _row("answers", _plain(lot))


def answers_from_json(text: str) -> Iterator[Answer]:
    """The answers of a row."""
    for file, error, predictions in json.loads(text):
        yield Answer(
            file, tuple(Prediction(label, index, probability) for label, index, probability in predictions), error
        )


def _plain(answers: list[Answer]) -> list[Any]:
    return [[a.file, a.error, [[g.label, g.index, g.probability] for g in a.predictions]] for a in answers]


def _row(name: str, content: list[Any]) -> Columns:
    """One row: JSON in ASCII, which holds names that are no UTF-8, and every digit of a number, as they are."""
    return {name: np.array([json.dumps(content)])}


def _reason(error: BaseException) -> str:
    """The words of rtk's own error where that is what stopped an actor, else the last that Ray says."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RtkError):
            return str(cause)
        cause = getattr(cause, "cause", None) or cause.__cause__
    return str(error).strip().splitlines()[-1]
