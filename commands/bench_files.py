"""rtk bench --files."""

from pathlib import Path

from ..core.progress import progress_bar
from ..core.table import text_table
from .options import say


def bench_files(
    model: str, backend: str, *, device: str, dataset: str | None, data_dir: Path | None, images: int, memory: int
) -> None:
    """rtk bench --files: from files to labels, as a share of what decoding and the backend allow together."""
    from ..bench.files import measure_files, measure_memory
    from ..core.datasets import open_dataset
    from ..core.machine import this_machine
    from ..infer.backend import BackendOptions
    from ..infer.classify import ClassifyConfig
    from ..road import open_model

    shared, alone = BackendOptions(device=device, shares_cores=True), BackendOptions(device=device)
    with (
        open_model(model, backend=backend, options=shared, say=say) as opened,
        open_model(model, backend=backend, options=alone, say=say) as by_itself,
    ):
        split = open_dataset(dataset or opened.card.dataset, data_dir=data_dir).split("test")
        with progress_bar("measuring", 3, unit="rounds") as advance:
            result = measure_files(opened, by_itself, split, ClassifyConfig(), images=images, rounds=3, advance=advance)
        print(f"{result.images:,} images to labels, {opened.runs_on}; {this_machine().summary}\n")
        print(text_table(result.rows))
        if memory:
            with progress_bar("watching memory", memory, unit="images") as advance:
                held = measure_memory(opened, split, ClassifyConfig(), count=memory, advance=advance)
            print(
                f"\nmemory over {held.entries:,} entries: at most {max(held.samples_mib):,.0f} MiB, decoding processes "
                f"included; {held.growth:.2f} times as much at the end as after the beginning"
            )
