"""rtk bench-files."""

import contextlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import ArtifactError, UsageError
from ..core.progress import progress_bar
from ..core.text import text_table, wrapped
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from . import help as groups
from .network_options import AllowCode
from .options import DataDir, WaitQuiet

if TYPE_CHECKING:
    from ..bench.files.memory import MemoryResult
    from ..core.data.datasets import Dataset
    from ..infer.backend import Backend
    from ..workflow.open_backends import BenchModel

ROUNDS = 3
IMAGES = 10_000


def bench_files(
    model: Annotated[str, typer.Argument(help="Checkpoint, graph, engine, or model of the zoo.")] = ZOO_DEFAULT,
    allow_code: AllowCode = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint of the model; default: found by the sha256 in the card.",
            rich_help_panel=groups.MODEL,
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="Backend: torch, onnx, openvino or trt; default: the best one here.",
            rich_help_panel=groups.BACKEND,
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Precision: fp32, fp16, bf16 or int8; default: the model's.",
            rich_help_panel=groups.BACKEND,
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set whose test split is written as files; default: the one that the model was trained on.",
            rich_help_panel=groups.DATA,
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=1, help="Number of images.", rich_help_panel=groups.MEASUREMENT)] = IMAGES,
    memory: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of images over which memory is measured too; 0: not measured.",
            rich_help_panel=groups.MEASUREMENT,
        ),
    ] = 0,
    wait_quiet: WaitQuiet = False,
    device: Annotated[
        str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.", rich_help_panel=groups.MACHINE)
    ] = "auto",
) -> None:
    """Measure throughput from PNG files to labels, as a share of what is possible.

    The share is relative to the rate that decoding and the backend allow together. A plain loop runs for comparison: on
    the same backend, and on ONNX Runtime in fp32 if that is another one and its graph is available.
    """
    from ..bench.files.memory import measure_memory
    from ..bench.files.throughput import measure_files
    from ..bench.measure.wait_quiet import before_each_round
    from ..core.machine import this_machine
    from ..infer.backend import BackendOptions
    from ..infer.classify import ClassifyConfig, log_smaller_batches
    from ..workflow.model_data import dataset_of
    from ..workflow.models import find_model
    from ..workflow.open_backends import BenchModel, check_names
    from ..workflow.select import backends_for, first_that_opens

    requested, chosen_precision = _single("--backend", backend), _single("--precision", precision)
    check_names([requested] if requested else [], [chosen_precision] if chosen_precision else [])
    BackendOptions(device=device)  # checks the name
    source = BenchModel(find_model(model), reference=reference)
    names = [requested] if requested else backends_for(source.found, device=device)
    config = ClassifyConfig()
    data = dataset_of(source.card, dataset, data_dir=data_dir)
    with ExitStack() as stack:
        shared, alone = first_that_opens(
            names,
            lambda name: _open_twice(
                name, chosen_precision, source, data, device=device, max_batch=config.batch_size, stack=stack
            ),
        )
        log_smaller_batches(alone, config.batch_size)
        loops = {"": alone}
        if (alone.name, chosen_precision or source.card.precision) != ("onnx", "fp32"):
            loops |= _fp32_loop(source, device=device, stack=stack)
        split = data.scored()
        with progress_bar("measuring", ROUNDS, unit="rounds") as advance:
            result = measure_files(
                shared,
                alone,
                loops,
                split,
                config,
                images=images,
                rounds=ROUNDS,
                advance=advance,
                before_round=before_each_round(wait=wait_quiet),
            )
        computes_in = alone.precision or alone.card.precision
        print(wrapped(f"{images:,} images to labels, {computes_in}, {alone.runs_on}; {this_machine().summary}"))
        print(f"\n{text_table(result.rows)}\n")
        if result.busy:
            print(wrapped(result.busy))
        for loop, times in result.allowed.items():
            print(wrapped(f"bound: no pipeline can be faster here than {times:.2f} times {loop}"))
        if memory:
            with progress_bar("measuring memory", memory, unit="images") as advance:
                print(f"\n{_memory_text(measure_memory(shared, split, config, count=memory, advance=advance))}")


def _single(option: str, values: Sequence[str] | None) -> str | None:
    """The value of an option that other commands can repeat; None without one. Raises UsageError for several."""
    if values is not None and len(values) > 1:
        raise UsageError(f"{option} {values[1]}: rtk bench-files takes one {option} only")
    return values[0] if values else None


def _open_twice(
    name: str,
    precision: str | None,
    source: "BenchModel",
    dataset: "Dataset",
    *,
    device: str,
    max_batch: int,
    stack: ExitStack,
) -> "tuple[Backend, Backend]":
    """The model on its backend: sharing its cores with decoding, and with all cores for itself."""
    from ..infer.backend import BackendOptions
    from ..infer.open_backend import open_backend
    from ..workflow.open_backends import artifact_and_hint

    artifact, hint = artifact_and_hint(
        name, precision, source, dataset=dataset, max_batch=max_batch, options=BackendOptions(device=device)
    )
    shared, alone = (
        stack.enter_context(
            open_backend(name, artifact, BackendOptions(device, hint=hint, shares_cores=shares, steady=True))
        )
        for shares in (True, False)
    )
    return shared, alone


def _fp32_loop(source: "BenchModel", *, device: str, stack: ExitStack) -> "dict[str, Backend]":
    """ONNX Runtime in fp32 for a second plain loop; empty without a checkpoint, and so without a graph in fp32."""
    from ..infer.backend import BackendOptions
    from ..infer.open_backend import open_backend

    with contextlib.suppress(ArtifactError):
        graph = source.fp32_graph
        return {", onnx fp32": stack.enter_context(open_backend("onnx", graph, BackendOptions(device=device)))}
    return {}


def _memory_text(held: "MemoryResult") -> str:
    return wrapped(
        f"memory over {held.entries:,} entries: at most {max(held.samples_mib):,.0f} MiB, including decoding "
        f"processes; {held.growth:.2f} times as much at the end as after the beginning"
    )
