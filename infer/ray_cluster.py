"""Classify on many machines: Ray Data maps the same backend over a cluster, with one actor per GPU.

One task lists the sources. Actors, each with its own backend and decoder, classify groups of images. The answers arrive
in the order of the inputs; they carry names and predictions, never pixels. Every machine must have rtk installed, and
must see the sources, the data and the model file under the same paths (a shared disk). One archive or array goes to one
actor, so use many shards to parallelise.

If an actor dies, Ray starts it again, on another machine if necessary and possible. It then classifies again the groups
whose answers had not arrived.
"""

import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data.decode import Decoder
from ..core.data.options import MAX_PIXELS, Fit
from ..core.data.sources.entry import Entry
from ..core.errors import BackendError, RtkError
from ..core.library_errors import reason_of
from ..core.process_settings import own_process
from .backend import Backend, BackendOptions
from .classify import Answer, ClassifyConfig, Prediction, classify
from .sources.listing import kind_of, listed, within

FILES_PER_GROUP = 1_024
"""Files in one group: the work that is repeated when an actor dies."""
ANSWERS_PER_ROW = 1_024
CORES_PER_ACTOR = 4
"""Cores that an actor uses, if the machine has that many per actor."""
RESERVED_SHARE = 0.5
"""The share of its cores that an actor reserves from Ray. The rest leaves room for the actors of a lost machine."""
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Work:
    """What every actor needs to know."""

    open_backend: Callable[[BackendOptions], Backend]
    """Opens the model where the actor runs."""
    folder: str
    """Relative paths start here."""
    config: ClassifyConfig
    fit: Fit
    data_dir: Path | None
    options: BackendOptions
    processes: int | None
    """Decoding processes per actor; None means one per core of the actor."""
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Actors:
    """How many actors run on a cluster, and what each of them uses."""

    count: int
    cores: int
    """Cores per actor."""
    gpus: int
    """GPUs per actor, 0 or 1."""


def answers_on_ray(paths: Iterable[str], work: Work, *, address: str) -> Iterator[Answer]:
    """Classify the images of these paths on the Ray cluster at that address; "local" starts one on this machine.

    Raises BackendError if there is no cluster, if it has no free resources, or if a backend fails there.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # avoids a warning about a future default of Ray
    import ray.data
    from ray.exceptions import RayError

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BackendError(f"ray: no cluster at {address}: {reason_of(error)}") from error
    try:
        actors = actors_for([node["Resources"] for node in ray.nodes() if node["Alive"]], work.options.device)
        for batch in _answer_rows(paths, work, actors).iter_batches(batch_size=None, batch_format="numpy"):
            for text in batch["answers"]:
                yield from answers_from_json(text)
    except RayError as error:
        raise BackendError(f"ray: {_reason(error)}") from error
    finally:
        ray.shutdown()


def _answer_rows(paths: Iterable[str], work: Work, actors: Actors) -> Any:
    """The data set of answers, which Ray computes while it is read."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = 1  # send each group, and each row of answers, in a block of its own
    groups = ray.data.from_items([{"paths": json.dumps(list(paths))}]).map_batches(
        listed_groups,
        batch_size=1,
        num_cpus=0,  # so that the task can always be scheduled
        compute=ray.data.TaskPoolStrategy(size=1),
        fn_kwargs={"folder": work.folder},
    )
    return groups.map_batches(
        Classifier,
        batch_size=1,
        num_cpus=actors.cores * RESERVED_SHARE,
        num_gpus=actors.gpus,
        compute=ray.data.ActorPoolStrategy(size=actors.count),
        fn_constructor_kwargs={"work": work, "actors": actors},
    )


def actors_for(machines: list[dict[str, float]], device: str) -> Actors:
    """One actor per GPU, or without GPUs one per CORES_PER_ACTOR cores. Raises BackendError if there are neither."""
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
    """List the sources of each row's paths in groups: files together, each archive, array or split alone."""
    os.chdir(folder)
    for text in rows["paths"]:
        group: list[Entry] = []
        for found in listed(json.loads(text)):
            alone = bool(not found.error and kind_of(found.name))
            if group and (alone or len(group) == FILES_PER_GROUP):
                yield _row("group", [[entry.name, entry.error] for entry in group])
                group = []
            if alone:
                yield _row("group", [[found.name, ""]])
            else:
                group.append(found)
        if group:
            yield _row("group", [[entry.name, entry.error] for entry in group])


class Classifier:
    """An actor: an open backend and an open decoder."""

    def __init__(self, work: Work, actors: Actors) -> None:
        """Open the model, in the folder where relative paths start."""
        own_process()
        os.chdir(work.folder)
        self.work = work
        self.backend = work.open_backend(replace(work.options, threads=actors.cores))
        processes = actors.cores if work.processes is None else work.processes
        self.decoder = Decoder(self.backend.card.input, processes=processes, fit=work.fit, max_pixels=work.max_pixels)
        if processes:
            self.decoder.start()

    def __call__(self, rows: Columns) -> Iterator[Columns]:
        """Yield the answers for the groups, ANSWERS_PER_ROW at a time."""
        for text in rows["group"]:
            entries = (
                entry
                for name, error in json.loads(text)
                for entry in within(Entry(name, error), data_dir=self.work.data_dir)
            )
            answers = classify(entries, self.backend, self.decoder, self.work.config)
            while part := list(itertools.islice(answers, ANSWERS_PER_ROW)):
                yield _row("answers", _json_from_answers(part))


def answers_from_json(text: str) -> Iterator[Answer]:
    """The answers of one row."""
    for file, error, predictions in json.loads(text):
        yield Answer(file, tuple(Prediction(*fields) for fields in predictions), error)


def _json_from_answers(answers: list[Answer]) -> list[Any]:
    return [[a.file, a.error, [[p.label, p.index, p.probability] for p in a.predictions]] for a in answers]


def _row(name: str, content: list[Any]) -> Columns:
    """One row of ASCII JSON: it keeps every digit of a number, and names that are not UTF-8."""
    return {name: np.array([json.dumps(content)])}


def _reason(error: BaseException) -> str:
    """The message of rtk's own error if one stopped an actor, else the last line of Ray's message."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RtkError):
            return str(cause)
        cause = getattr(cause, "cause", None) or cause.__cause__
    return reason_of(str(error).strip().splitlines()[-1])
