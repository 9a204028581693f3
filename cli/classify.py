"""rtk classify."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.errors import DataError, UnknownNameError, UsageError
from ..core.files import is_stream, whole_file
from ..core.progress import Advance, progress_bar
from ..core.text import visible
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from ..infer.output.formats import FORMATS, Fit, Format
from .options import DataDir

if TYPE_CHECKING:
    from ..infer.classify import Answer, ClassifyConfig
    from ..infer.sources.entry import Entry

_log = logging.getLogger(__name__)

SOME_UNREADABLE = 3


def classify(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, quoted globs, zip and tar archives, .npy, .npz, idx and CIFAR binary files, "
            "cifar10:test and the like, or - for paths on stdin."
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="A file of rtk's, or a model of the zoo.")] = ZOO_DEFAULT,
    backend: Annotated[str, typer.Option(help="auto, torch, onnx, openvino or trt.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="trt: record each batch size's run as a CUDA graph.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 256,
    top_k: Annotated[int, typer.Option(min=1, help="Guesses for each image.")] = 1,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Default: by --output's name, else table.", show_default=False)
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file, whole or not at all.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an --output that was not finished.")] = False,
    sort_into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put each image into DIR/<label>/, too.", show_default=False)
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="--sort-into makes symbolic links instead of copies.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An HTML page of the least certain answers, too.", show_default=False),
    ] = None,
    fit: Annotated[Fit, typer.Option(help="Images of other proportions: crop the centre, or letterbox.")] = "crop",
    data_dir: DataDir = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; default: one a core.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unreadable input.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|local|ADDRESS",
            help="On a Ray cluster, one actor for each GPU; --output is then a folder of Parquet files.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Classify images: images -> labels. Unreadable ones are named, and the exit code is then 3."""
    from ..infer.backend import BackendOptions
    from ..infer.classify import ClassifyConfig
    from ..infer.classify import classify as answers_of
    from ..infer.decode import Decoder
    from ..infer.output.rows import lines
    from ..infer.sources.listing import count, entries
    from ..workflow.select import open_model

    if ray is not None:
        if resume or sort_into or link or report or cuda_graphs or format_ not in (None, "parquet"):
            raise UsageError(
                "--ray: writes Parquet files alone; leave out --resume, --sort-into, --report, --cuda-graphs, --format"
            )
        if output is None:
            raise UsageError("--ray: needs --output with a folder")
        config = ClassifyConfig(batch_size, top_k)
        classify_on_ray(
            paths,
            ray,
            output,
            model=model,
            backend=backend,
            device=device,
            config=config,
            fit=fit,
            data_dir=data_dir,
            workers=workers,
            strict=strict,
        )
        return
    by_name: Format = next((known for known in FORMATS if output and output.suffix.lower() == f".{known}"), "table")
    chosen = format_ or by_name
    journaled = output is not None and chosen != "table" and not is_stream(output)
    if (resume or chosen == "parquet") and not journaled:
        what = "--resume" if resume else "--format parquet"
        raise UsageError(f"{what}: needs --output with a file, in the format csv, jsonl or parquet")
    if chosen == "parquet":
        from ..infer.output.parquet import check_parquet

        check_parquet()
    if sort_into is not None:
        from ..infer.output.sort import check_outside

        check_outside(sort_into, paths)
    elif link:
        raise UsageError("--link: needs --sort-into")
    if report is not None and resume:
        raise UsageError("--report: shows a run from its beginning; leave out --resume")
    options = BackendOptions(device=device, shares_cores=True, cuda_graphs=cuda_graphs)
    with ExitStack() as stack:
        opened = stack.enter_context(open_model(model, backend=backend, options=options))
        if cuda_graphs and opened.name != "trt":
            _log.warning(f"--cuda-graphs: without effect on the {opened.name} backend")
        decoder = stack.enter_context(Decoder(opened.card.input, processes=workers, fit=fit))
        config = ClassifyConfig(batch_size=batch_size, top_k=min(top_k, len(opened.card.classes)))
        bar = progress_bar("classifying", lambda: count(paths), unit="images")
        watch = _Watch(stack.enter_context(bar), strict=strict)
        found = entries(paths, data_dir=data_dir)
        sorter, sheet = None, None
        if report is not None:
            from ..infer.output.contact_sheet import Sheet

            sheet = Sheet(report, opened.card)
            stack.callback(sheet.write)  # of what is done, if the run is ended early
        if sort_into is not None:
            from ..infer.output.sort import Sorter

            sorter = Sorter(sort_into, opened.card.classes, link=link)

        def answered(found: "Iterator[Entry]") -> "Iterator[Answer]":
            found = sheet.noted(found) if sheet else found
            found = sorter.noted(found) if sorter else found
            answers = answers_of(found, opened, decoder, config)
            answers = sorter.sorted(answers) if sorter else answers
            return sheet.seen(answers) if sheet else answers

        if journaled:
            from ..infer.output.resumable import Journal, RunKey

            assert output is not None
            card = opened.card
            key = RunKey(
                model=f"{card.name} {card.precision} {card.checkpoint_sha256[:12]}".strip(),
                backend=opened.name,
                format=chosen,
                top_k=config.top_k,
                batch_size=min(batch_size, opened.max_batch or batch_size),
                fit=fit,
            )
            journal = stack.enter_context(Journal(output, key, resume=resume))
            if journal.is_whole:
                _log.warning(f"{output}: is finished, there is nothing to go on with; without --resume it is made anew")
                return
            journal.write(watch.passed(journal.new(answered(journal.remaining(found)))))
            journal.finish()
            watch.unreadable += journal.unreadable_before
        else:
            assert chosen != "parquet"
            text = lines(watch.passed(answered(found)), chosen, top_k=config.top_k)
            if output is None:
                for line in text:
                    sys.stdout.write(line)
            else:
                with whole_file(output) as file:
                    file.writelines(line.encode() for line in text)
    watch.end()


class _Watch:
    """Names unreadable images while answers pass, moves the bar, and knows the exit code."""

    def __init__(self, advance: Advance, *, strict: bool) -> None:
        self.advance, self.strict, self.unreadable = advance, strict, 0

    def passed(self, answers: "Iterable[Answer]") -> "Iterator[Answer]":
        """The answers as they are. Raises DataError at the first unreadable one, if strict."""
        for answer in answers:
            if answer.error:
                self.unreadable += 1
                if self.strict:
                    raise DataError(f"{answer.file}: {answer.error}; stopped, as --strict says")
                _log.warning(f"{visible(answer.file)}: {visible(answer.error)}")
            self.advance(1)
            yield answer

    def end(self) -> None:
        """Leave the command with its exit code if an image was unreadable."""
        if self.unreadable:
            raise typer.Exit(SOME_UNREADABLE)


def classify_on_ray(
    paths: list[str],
    address: str,
    output: Path,
    *,
    model: str,
    backend: str,
    device: str,
    config: "ClassifyConfig",
    fit: Fit,
    data_dir: Path | None,
    workers: int | None,
    strict: bool,
) -> None:
    """rtk classify --ray: the same answers from a cluster, as Parquet files in a folder."""
    from ..infer.backend import BACKENDS, Backend, BackendOptions
    from ..infer.output.parquet import write_shards
    from ..infer.ray_cluster import Work, answers_on_ray
    from ..infer.sources.listing import count, standard_input
    from ..workflow.models import find_model, read_card
    from ..workflow.select import open_model

    if find_spec("ray") is None:
        raise UsageError("--ray: Ray Data is not installed; pip install 'ray[data]'")
    if backend not in ("auto", *BACKENDS):
        raise UnknownNameError("backend", backend, BACKENDS)
    card = read_card(find_model(model))

    def open_there(options: BackendOptions) -> Backend:
        return open_model(model, backend=backend, options=options)

    work = Work(
        open_there,
        folder=str(Path.cwd()),
        config=replace(config, top_k=min(config.top_k, len(card.classes))),
        fit=fit,
        data_dir=data_dir,
        options=BackendOptions(device=device, shares_cores=True),
        processes=workers,
    )
    with progress_bar("classifying", lambda: count(paths), unit="images") as advance:
        watch = _Watch(advance, strict=strict)
        answers = answers_on_ray(standard_input(paths), work, address=address)
        write_shards(watch.passed(answers), output, top_k=work.config.top_k)
    watch.end()
