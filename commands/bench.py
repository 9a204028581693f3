"""rtk bench, with its other forms: --train, --files, --compare."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ..bench.config import BenchConfig
from ..core.errors import ArtifactError, BackendError, LimitError, ParityError
from ..core.progress import progress_bar
from ..core.table import text_table
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from ..train.config import TrainConfig
from .options import DataDir, say


def bench(
    model: Annotated[str, typer.Argument(help="A file of rtk's, or a model of the zoo.")] = ZOO_DEFAULT,
    backend: Annotated[
        list[str] | None, typer.Option(help="torch, onnx, openvino or trt; repeatable. Default: all that work here.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = ",".join(map(str, BenchConfig.batches)),
    dataset: Annotated[
        str | None, typer.Option(help="Whose test split is answered; default: the one the model was trained on.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Checkpoint that answers are compared with.")] = None,
    seconds: Annotated[float, typer.Option(help="Measuring time, all cells together.")] = BenchConfig.seconds,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    require_parity: Annotated[
        str | None,
        typer.Option(
            help="Points that may be lost, default, mlperf-99 or mlperf-99.9; exit code 4.", show_default=False
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for report.json, .md and .html.")] = None,
    train_: Annotated[
        str | None,
        typer.Option("--train", metavar="ARCH", help="Measure training of this network instead.", show_default=False),
    ] = None,
    files: Annotated[
        bool, typer.Option("--files", help="Measure from PNG files to labels instead, as a share of what is possible.")
    ] = False,
    images: Annotated[int, typer.Option(min=1, help="With --files: how many.")] = 10_000,
    memory: Annotated[int, typer.Option(min=0, help="With --files: watch the memory over so many, too.")] = 0,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="OLD NEW", help="Compare two reports instead of measuring.", show_default=False),
    ] = None,
    limit: Annotated[float, typer.Option(help="With --compare: per cent that may be lost.")] = 5.0,
    data_dir: DataDir = None,
) -> None:
    """Measure throughput, latency and test-set parity of every backend."""
    if compare is not None:
        compare_benches(*compare, limit=limit)
        return
    if train_ is not None:
        bench_training(train_, dataset or "cifar10", device=device, seconds=seconds, data_dir=data_dir)
        return
    if files:
        name = (backend or ["auto"])[0]
        bench_files(model, name, device=device, dataset=dataset, data_dir=data_dir, images=images, memory=memory)
        return
    from ..bench.config import parse_batches
    from ..bench.page import page_of
    from ..bench.run import run
    from ..bench.verdict import requirement
    from ..core.datasets import open_dataset
    from ..core.files import make_folder, write_whole
    from ..infer.backend import BACKENDS, BackendOptions, open_backend
    from ..road import artifact_for, find_model, find_reference, read_card

    config = BenchConfig(batches=parse_batches(batch), seconds=seconds)
    required = requirement(require_parity or "default")
    found = find_model(model)
    data = open_dataset(dataset or read_card(found).dataset, data_dir=data_dir)
    options = BackendOptions(device=device)
    with ExitStack() as stack:
        answers_to = stack.enter_context(open_backend("torch", find_reference(found, explicit=reference), options))
        opened, unusable = {}, {}
        for name in backend or BACKENDS:
            try:
                if name == "torch" and reference is None:
                    opened[name] = answers_to
                else:
                    artifact = artifact_for(name, found, say=say, max_batch=max(config.batches))
                    opened[name] = stack.enter_context(open_backend(name, artifact, options))
            except (BackendError, ArtifactError) as error:
                if backend:
                    raise
                unusable[name] = str(error)
        found_out = run(opened, answers_to, data, config, unusable=unusable, required=required)
    print(found_out.to_text())
    if report:
        make_folder(report)
        write_whole(report / "report.json", found_out.to_json())
        write_whole(report / "report.md", found_out.to_markdown())
        write_whole(report / "report.html", page_of(found_out))
        print(f"\n{report / 'report.html'}")
    if require_parity is not None:
        if not found_out.verdicts:
            raise ParityError("--require-parity: no backend but the reference could be judged")
        for verdict in found_out.verdicts:
            verdict.enforce()
        unjudged = sorted({*opened} - {"torch"} - {verdict.candidate for verdict in found_out.verdicts})
        if unjudged:
            raise ParityError(f"--require-parity: {unjudged[0]} could not be judged: {found_out.unusable[unjudged[0]]}")


def compare_benches(old: Path, new: Path, *, limit: float) -> None:
    """rtk bench --compare: what changed beyond noise; exit code 4 when a cell lost more than the limit."""
    from ..bench.compare import change_rows, compare_reports

    changes = compare_reports(old, new)
    print(text_table(change_rows(changes)))
    lost = [change for change in changes if change.slower_by_more_than(limit)]
    if lost:
        worst = min(lost, key=lambda change: change.ratio)
        raise LimitError(
            f"{len(lost)} of {len(changes)} cells are slower by more than {limit:g} %, "
            f"{worst.backend} at batch {worst.batch} by {100 * (1 - worst.ratio):.1f} %"
        )


def bench_training(arch: str, dataset: str, *, device: str, seconds: float, data_dir: Path | None) -> None:
    """rtk bench --train: images per second of rtk's training, as a ratio to the plain loop in the same run."""
    from ..bench.report import throughput_table
    from ..bench.training import Contender, measure_training
    from ..core.datasets import open_dataset
    from ..core.machine import this_machine
    from ..train.steps import endless_steps

    config = TrainConfig(arch, dataset=dataset, device=device)
    split = open_dataset(dataset, data_dir=data_dir).split("train")
    card, arithmetic, words, steps = endless_steps(config, split)
    with progress_bar("measuring", None, unit="rounds") as advance:
        cells = measure_training(
            card,
            split,
            [Contender("rtk", steps)],
            BenchConfig(seconds=seconds),
            device=str(arithmetic.device),
            batch=config.values.batch_size,
            advance=advance,
        )
    rates = {cell.backend: cell.images_per_s for cell in cells}
    print(f"Training {arch} on {dataset}, {words}; {this_machine().summary}\n")
    print(text_table(throughput_table(cells)))
    print(f"\nrtk {rates['rtk'] / rates['plain loop']:.2f} x the plain loop", end="; ")
    print(f"the plain loop {rates['plain loop'] / rates['bare loop']:.2f} of the bare one", end="; ")
    print(f"an epoch of {len(split):,} images in {len(split) / rates['rtk']:.1f} s")


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
