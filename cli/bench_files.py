"""rtk bench --files."""

import contextlib
from contextlib import ExitStack
from pathlib import Path

from ..bench.config import BenchConfig
from ..core.errors import ArtifactError
from ..core.progress import progress_bar
from ..core.text import text_table
from ..workflow.open_backends import artifact_in

ROUNDS = 3


def bench_files(
    model: str,
    *,
    backend: str | None,
    precision: str | None,
    device: str,
    dataset: str | None,
    reference: Path | None,
    data_dir: Path | None,
    images: int,
    memory: int,
) -> None:
    """rtk bench --files: from files to labels, as a share of what decoding and the backend allow together.

    Beside it runs the plain loop that one writes first: on the same backend, and on ONNX Runtime in fp32 where that is
    another one and its graph is at hand.
    """
    from ..bench.files import measure_files, measure_memory
    from ..core.data.datasets import open_dataset
    from ..core.machine import this_machine
    from ..infer.backend import BackendOptions
    from ..infer.classify import ClassifyConfig
    from ..infer.open_backend import open_backend
    from ..workflow.artifacts import artifact_for
    from ..workflow.models import find_model, find_reference, read_card
    from ..workflow.select import choose_backend

    found, config = find_model(model), ClassifyConfig()
    own = read_card(found)
    name = backend or choose_backend(found, on_cpu=device == "cpu")
    options = BackendOptions(device=device)
    data = open_dataset(dataset or own.dataset, data_dir=data_dir)
    artifact, hint = artifact_in(
        precision,
        name,
        found,
        reference=reference,
        dataset=data,
        config=BenchConfig(batches=(config.batch_size,)),
        options=options,
    )
    with ExitStack() as stack:
        shared, alone = (
            stack.enter_context(open_backend(name, artifact, BackendOptions(device, hint=hint, shares_cores=shares)))
            for shares in (True, False)
        )
        loops = {"": alone}
        if (name, precision or own.precision) != ("onnx", "fp32"):
            with contextlib.suppress(ArtifactError):  # without the checkpoint there is no graph in fp32
                checkpoint = find_model(str(find_reference(found, explicit=reference)))
                graph = artifact_for("onnx", checkpoint)
                loops[", onnx fp32"] = stack.enter_context(open_backend("onnx", graph, options))
        split = data.split("test")
        with progress_bar("measuring", ROUNDS, unit="rounds") as advance:
            result = measure_files(shared, alone, loops, split, config, images=images, rounds=ROUNDS, advance=advance)
        computes_in = alone.precision or alone.card.precision
        print(f"{result.images:,} images to labels, {computes_in}, {alone.runs_on}; {this_machine().summary}\n")
        print(text_table(result.rows))
        allowed = ", ".join(f"{times:.2f} times {loop}" for loop, times in result.allowed.items())
        print(f"\ndecoding and the backend, each alone, allow together at most {allowed}")
        if memory:
            with progress_bar("watching memory", memory, unit="images") as advance:
                held = measure_memory(shared, split, config, count=memory, advance=advance)
            print(
                f"\nmemory over {held.entries:,} entries: at most {max(held.samples_mib):,.0f} MiB, decoding processes "
                f"included; {held.growth:.2f} times as much at the end as after the beginning"
            )
