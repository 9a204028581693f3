"""rtk bench-train."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..bench.config import BenchConfig
from ..core.progress import progress_bar
from ..core.text import text_table, wrapped
from ..train.config import TrainConfig
from . import help as groups
from .network_options import NetArg, named_network
from .options import INTERRUPTED, DataDir, WaitQuiet

if TYPE_CHECKING:
    from ..bench.baselines.training import TrainingLoop
    from ..bench.baselines.training_loops import Steps
    from ..bench.measure.cell import Cell
    from ..bench.measure.ratio import Ratio
    from ..bench.measure.timing import Measured
    from ..core.card import ModelCard
    from ..core.data.datasets import Split

_log = logging.getLogger(__name__)


def bench_train(
    arch: Annotated[
        str, typer.Argument(help="Architecture, such as resnet20v1 (see rtk models), or package.module:function.")
    ],
    net_arg: NetArg = None,
    dataset: Annotated[
        str,
        typer.Option(help="Data set: cifar10, fashion-mnist, shapes, or a folder.", rich_help_panel=groups.DATA),
    ] = TrainConfig.dataset,
    data_dir: DataDir = None,
    seconds: Annotated[
        float, typer.Option(help="Measuring time of all loops together.", rich_help_panel=groups.MEASUREMENT)
    ] = BenchConfig.seconds,
    keras: Annotated[
        bool,
        typer.Option(
            "--keras", help="Also measure the training of the Keras example.", rich_help_panel=groups.MEASUREMENT
        ),
    ] = False,
    wait_quiet: WaitQuiet = False,
    device: Annotated[
        str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.", rich_help_panel=groups.MACHINE)
    ] = TrainConfig.device,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print all columns.", rich_help_panel=groups.OUTPUT)
    ] = False,
) -> None:
    """Measure the speed of training, as a ratio to a plain PyTorch loop."""
    from ..core.data.open_dataset import open_dataset
    from ..core.machine import this_machine
    from ..train.throughput import endless_steps

    arch = named_network(arch, net_arg)
    config = TrainConfig(arch, dataset=dataset, device=device, data_dir=data_dir)
    bench_config = BenchConfig(seconds=seconds, wait_quiet=wait_quiet)
    split = open_dataset(config.dataset, data_dir=config.data_dir, options=config.data_options()).split("train")
    card, arithmetic, description, steps = endless_steps(config, split)
    loops = _loops(config, split, steps, device=str(arithmetic.device), keras=keras)
    measured = _measured(card, split, loops, bench_config, device=str(arithmetic.device))
    print(wrapped(f"Training {arch} on {dataset}, {description}; {this_machine().summary}"))
    _print_tables(measured.cells, verbose=verbose)
    print("\n" + "\n".join(map(wrapped, _ratios(measured.cells, [one.name for one in loops], images=len(split)))))
    if measured.interrupted:
        _log.warning("stopped; the table holds what was measured until then")
        raise typer.Exit(INTERRUPTED)


def _loops(config: TrainConfig, split: "Split", steps: "Steps", *, device: str, keras: bool) -> "list[TrainingLoop]":
    """rtk's training, and that of the Keras example if requested."""
    from ..bench.baselines.keras_example import BATCH, import_keras, keras_loop
    from ..bench.baselines.training import TrainingLoop
    from ..core.models.names import parse_architecture

    loops = [TrainingLoop("rtk", steps, config.resolved_recipe.batch_size)]
    if keras:
        library = import_keras(device)
        keras_steps = keras_loop(library, parse_architecture(config.arch), split.images_NHWC, split.labels_N)
        loops.append(TrainingLoop(f"Keras {library.__version__}", keras_steps, BATCH))
    return loops


def _measured(
    card: "ModelCard",
    split: "Split",
    loops: "list[TrainingLoop]",
    config: BenchConfig,
    *,
    device: str,
) -> "Measured":
    """These loops, the plain loop and the bare loop, measured with a progress bar. The first loop is rtk's."""
    from ..bench.baselines.training import measure_training

    with progress_bar("measuring", None, unit="rounds") as advance:
        return measure_training(card, split, loops, config, device=device, batch=loops[0].batch, advance=advance)


def _print_tables(cells: "Sequence[Cell]", *, verbose: bool) -> None:
    """Throughput of every loop; precision and scope belong to inference and are left out."""
    from ..bench.measure.ratio import compares_nothing
    from ..bench.report.not_run import cells_without_figures
    from ..bench.report.notes import noise
    from ..bench.report.tables import compact_tables

    nothing = compares_nothing(cells)
    if nothing:
        print(f"\n{wrapped(nothing)}")
    for table in compact_tables(cells, verbose=verbose):
        print(f"\n{text_table([{name: row[name] for name in row if name != 'scope'} for row in table])}")
    failed = [f"{names}: {cause}" for names, cause in cells_without_figures(cells).items()]
    for line in [*failed, *noise(cells)]:
        print(wrapped(line, first="  ", rest="    "))


def _ratios(cells: "Sequence[Cell]", names: Sequence[str], *, images: int) -> list[str]:
    """A line for each ratio of two loops that have rates, and one for the time of an epoch.

    `names`: rtk, then other libraries.
    """
    from ..bench.measure.ratio import ratio_of

    by_name = {cell.backend: cell for cell in cells if cell.valid}
    shown = {"plain loop": "the plain loop", "bare loop": "the bare loop"}
    pairs = [("rtk", "plain loop"), ("plain loop", "bare loop"), *(("rtk", other) for other in names[1:])]
    found = [
        _ratio_text(one, ratio_of(by_name[one], by_name[other]), shown.get(other, other))
        for one, other in pairs
        if one in by_name and other in by_name
    ]
    if "rtk" in by_name:
        found.append(f"rtk: {images / by_name['rtk'].images_per_s:.1f} s per epoch of {images:,} images")
    return found


def _ratio_text(one: str, ratio: "Ratio", other: str) -> str:
    busy = " (busy)" if ratio.disturbed else ""
    return f"{one}: {ratio.text.removesuffix(' busy')} times {other}{busy}"
