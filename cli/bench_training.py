"""rtk bench --train."""

import logging

import typer

from ..bench.config import BenchConfig
from ..core.progress import progress_bar
from ..core.text import text_table
from ..train.config import TrainConfig
from .options import INTERRUPTED

_log = logging.getLogger(__name__)


def bench_training(config: TrainConfig, *, seconds: float, keras: bool) -> None:
    """rtk bench --train: images per second of rtk's training, as a ratio to the plain loop in the same run."""
    from ..bench.baselines.keras_example import BATCH, import_keras, keras_loop
    from ..bench.baselines.training import TrainingLoop, measure_training
    from ..bench.report.render import throughput_table
    from ..core.data.datasets import open_dataset
    from ..core.machine import this_machine
    from ..core.models.names import parse_architecture
    from ..train.throughput import endless_steps

    split = open_dataset(config.dataset, data_dir=config.data_dir).split("train")
    card, arithmetic, words, steps = endless_steps(config, split)
    batch = config.resolved_recipe.batch_size
    loops = [TrainingLoop("rtk", steps, batch)]
    if keras:
        library, example = import_keras(str(arithmetic.device)), parse_architecture(config.arch)
        theirs = keras_loop(library, example, split.images_NHWC, split.labels_N)
        loops.append(TrainingLoop(f"Keras {library.__version__}", theirs, BATCH))
    with progress_bar("measuring", None, unit="rounds") as advance:
        measured = measure_training(
            card,
            split,
            loops,
            BenchConfig(seconds=seconds),
            device=str(arithmetic.device),
            batch=batch,
            advance=advance,
        )
    rates = {cell.backend: cell.images_per_s for cell in measured.cells if cell.believed}
    print(f"Training {config.arch} on {config.dataset}, {words}; {this_machine().summary}\n")
    rows = throughput_table(measured.cells)
    for row in rows:
        del row["precision"], row["scope"]  # of inference
    print(text_table(rows))
    named = {"plain loop": "the plain loop", "bare loop": "the bare one"}
    pairs = [("rtk", "plain loop"), ("plain loop", "bare loop"), *(("rtk", one.name) for one in loops[1:])]
    found = [
        f"{named.get(one, one)} {rates[one] / rates[other]:.2f} x {named.get(other, other)}"
        for one, other in pairs
        if one in rates and other in rates
    ]
    if "rtk" in rates:
        found.append(f"an epoch of {len(split):,} images in {len(split) / rates['rtk']:.1f} s")
    print(f"\n{'; '.join(found)}")
    if measured.interrupted:
        _log.warning("stopped; the table holds what was measured until then")
        raise typer.Exit(INTERRUPTED)
