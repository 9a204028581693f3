"""rtk classify."""
# ruff: noqa: RUF009 - option() makes a dataclasses.field

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import DataError, OutputError, UnknownNameError, UsageError
from ..core.files import is_stream, whole_file
from ..core.options import option
from ..core.progress import Advance, progress_bar
from ..core.text import visible
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from ..infer.output.formats import FILE_FORMATS, TABLE_SUFFIXES, Fit, Format
from . import help as groups
from .config_options import options_from

if TYPE_CHECKING:
    from ..infer.backend import Backend
    from ..infer.classify import Answer
    from ..infer.sources.entry import Entry

_log = logging.getLogger(__name__)

SOME_UNREADABLE = 3
"""Exit code if at least one image cannot be read."""
NOT_WITH_RAY = "--resume, --sort-into, --link, --report, --cuda-graphs, --format"


@dataclass(frozen=True)
class ClassifyOptions:
    """The options of one command. Raises UsageError for options that contradict each other."""

    paths: tuple[str, ...]
    model: str = option(
        ZOO_DEFAULT, group=groups.MODEL, names=("--model", "-m"), help="Model file or name of a zoo model."
    )
    backend: str = option("auto", group=groups.BACKEND, help="Backend: auto, torch, onnx, openvino or trt.")
    device: str = option("auto", group=groups.BACKEND, help="Device: auto, cpu, cuda or cuda:N.")
    cuda_graphs: bool = option(
        False, group=groups.BACKEND, help="Record the run of each batch size as a CUDA graph (trt)."
    )
    batch_size: int = option(256, group=groups.BACKEND, minimum=1, help="Number of images per batch.")
    fit: Fit = option(
        "crop", group=groups.DATA, help="How to fit images of other proportions: crop the centre, or letterbox."
    )
    data_dir: Path | None = option(
        None, group=groups.DATA, envvar="RTK_DATA_DIR", help="Folder of the official data files."
    )
    strict: bool = option(False, group=groups.DATA, help="Stop at the first unreadable image.")
    top_k: int = option(
        1, group=groups.OUTPUT, minimum=1, help="Number of predictions per image; at most the number of classes."
    )
    requested_format: Format | None = option(
        None,
        group=groups.OUTPUT,
        names=("--format",),
        help="Output format; default: the suffix of --output, else table.",
    )
    output: Path | None = option(
        None, group=groups.OUTPUT, names=("--output", "-o"), help="Output file, written whole or not at all."
    )
    sort_into: Path | None = option(
        None, group=groups.OUTPUT, metavar="DIR", help="Also copy each image into DIR/<label>/."
    )
    link: bool = option(False, group=groups.OUTPUT, help="Make symbolic links instead of copies in --sort-into.")
    report: Path | None = option(
        None, group=groups.OUTPUT, metavar="FILE", help="Also write an HTML page of the least certain answers."
    )
    workers: int | None = option(
        None, group=groups.MACHINE, minimum=0, help="Decoding processes; default: one per core."
    )
    ray: str | None = option(
        None,
        group=groups.MACHINE,
        metavar="auto|local|ADDRESS",
        help="Run on a Ray cluster, one actor per GPU; --output is then a folder of Parquet files.",
    )
    resume: bool = option(False, group=groups.RESUMING, help="Resume an unfinished --output file.")

    def __post_init__(self) -> None:
        if self.ray is not None:
            self._check_ray()
        elif self.format_name is None:
            known = ", ".join(f".{name}" for name in FILE_FORMATS[:-1])
            raise UsageError(
                f"{self.output}: unknown suffix; expected {known} or .{FILE_FORMATS[-1]}, or give --format"
            )
        elif (self.resume or self.format == "parquet") and self.resumable_file is None:
            option = "--resume" if self.resume else "--format parquet"
            raise UsageError(f"{option}: needs --output with a file, in the format csv, jsonl or parquet")
        elif self.link and self.sort_into is None:
            raise UsageError("--link: needs --sort-into")
        elif self.report is not None and self.resume:
            raise UsageError("--report: shows a run from its beginning; leave out --resume")

    def _check_ray(self) -> None:
        others = (self.resume, self.sort_into, self.link, self.report, self.cuda_graphs)
        if any(others) or self.requested_format not in (None, "parquet"):
            raise UsageError(f"--ray: writes only Parquet files; leave out {NOT_WITH_RAY}")
        if self.output is None:
            raise UsageError("--ray: needs --output with a folder")

    @property
    def format(self) -> Format:
        """The requested format, or else the one that the output's suffix names, or else table."""
        return self.format_name or "table"

    @property
    def format_name(self) -> Format | None:
        """The format; None if the suffix of the output names none."""
        suffix = self.output.suffix.lower() if self.output and not is_stream(self.output) else ""
        if self.requested_format or suffix in TABLE_SUFFIXES:
            return self.requested_format or "table"
        return next((known for known in FILE_FORMATS if suffix == f".{known}"), None)

    @property
    def resumable_file(self) -> Path | None:
        """The output, if it can be resumed: tables and pipes cannot."""
        return self.output if self.output and self.format != "table" and not is_stream(self.output) else None


@options_from(ClassifyOptions)
def classify(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, quoted globs, zip and tar archives, .npy, .npz, idx and CIFAR binary files, "
            "data set splits such as cifar10:test, or - for paths on standard input."
        ),
    ],
    **values: Any,
) -> None:
    """Classify images: images -> labels. Unreadable images are listed, and the exit code is then 3."""
    from ..infer.backend import BACKENDS

    options = ClassifyOptions(tuple(paths), **values)
    if options.backend not in ("auto", *BACKENDS):
        raise UnknownNameError("backend", options.backend, ("auto", *BACKENDS))
    unreadable = _classify_here(options) if options.ray is None else _classify_on_ray(options, options.ray)
    if unreadable:
        raise typer.Exit(SOME_UNREADABLE)


def _classify_here(options: ClassifyOptions) -> int:
    """Classify on this machine, and return the number of unreadable images."""
    from ..infer.backend import BackendOptions
    from ..infer.classify import ClassifyConfig, log_smaller_batches
    from ..infer.classify import classify as answers_of
    from ..infer.decode import Decoder
    from ..infer.sources.listing import count, entries
    from ..workflow.select import open_model

    _check_outputs(options)
    backend_options = BackendOptions(device=options.device, shares_cores=True, cuda_graphs=options.cuda_graphs)
    with ExitStack() as stack:
        backend = stack.enter_context(
            open_model(options.model, backend=_backend(options), options=backend_options, max_batch=options.batch_size)
        )
        log_smaller_batches(backend, options.batch_size)
        if options.cuda_graphs and backend.name != "trt":
            _log.warning(f"--cuda-graphs: without effect on the {backend.name} backend")
        decoder = stack.enter_context(Decoder(backend.card.input, processes=options.workers, fit=options.fit))
        bar = stack.enter_context(progress_bar("classifying", lambda: count(options.paths), unit="images"))
        consumers = _consumers(options, backend, stack)
        config = ClassifyConfig(
            batch_size=options.batch_size,
            top_k=min(options.top_k, len(backend.card.classes)),
            keep_entries=bool(consumers),
        )

        def answers(found: "Iterator[Entry]") -> "Iterator[Answer]":
            for answer in answers_of(found, backend, decoder, config):
                for consume in consumers:
                    consume(answer)
                # Outputs may collect answers, and images are too large for that.
                yield replace(answer, entry=None) if answer.entry else answer

        found = entries(options.paths, data_dir=options.data_dir)
        watch = _Watch(bar, strict=options.strict)
        if options.resumable_file is None:
            _write_text(options, watch.logged(answers(found)), config.top_k)
            return watch.unreadable
        return _write_resumable(options, options.resumable_file, backend, found, answers, watch)


def _backend(options: ClassifyOptions) -> str:
    """The requested backend. A resumed run keeps its own: another one may compute other probabilities.

    Raises UsageError if another one is named.
    """
    from ..infer.output.resumable import RESTART, unfinished_backend

    file = options.resumable_file
    before = unfinished_backend(file) if options.resume and file is not None else None
    if before is None or options.backend == before:
        return options.backend
    if options.backend != "auto":
        raise UsageError(
            f"{file}: was started with backend {before}, not {options.backend}; leave out --backend, or {RESTART}"
        )
    _log.info(f"{file}: resuming on the {before} backend, with which it was started")
    return before


def _check_outputs(options: ClassifyOptions) -> None:
    """Raise UsageError or OutputError for outputs that cannot be written here."""
    if options.format == "parquet":
        from ..infer.output.parquet import check_parquet

        check_parquet()
    if options.output is not None and options.output.is_dir():
        raise OutputError(f"{options.output}: is a folder; expected the name of a file")
    if options.sort_into is not None:
        from ..infer.output.sort import check_outside

        check_outside(options.sort_into, options.paths)


def _consumers(options: ClassifyOptions, backend: "Backend", stack: ExitStack) -> "list[Callable[[Answer], None]]":
    """What each answer is passed to, with its image, before it is written."""
    consumers: list[Callable[[Answer], None]] = []
    if options.report is not None:
        from ..infer.output.contact_sheet import ContactSheet

        sheet = ContactSheet(options.report, backend.card)
        stack.callback(sheet.write)  # also if the run ends early
        consumers.append(sheet.add)
    if options.sort_into is not None:
        from ..infer.output.sort import Sorter

        consumers.insert(0, Sorter(options.sort_into, backend.card.classes, link=options.link).put)
    return consumers


def _write_text(options: ClassifyOptions, answers: "Iterator[Answer]", top_k: int) -> None:
    """Write lines to standard output or a file."""
    from ..infer.output.rows import lines

    assert options.format != "parquet"
    text = lines(answers, options.format, top_k=top_k)
    if options.output is None:
        for line in text:
            sys.stdout.write(line)
    else:
        with whole_file(options.output) as file:
            file.writelines(line.encode() for line in text)


def _write_resumable(
    options: ClassifyOptions,
    target: Path,
    backend: "Backend",
    found: "Iterator[Entry]",
    answers: "Callable[[Iterator[Entry]], Iterator[Answer]]",
    watch: "_Watch",
) -> int:
    """Write a file that can be resumed, and return the number of unreadable images, also of the run before."""
    from ..infer.classify import batch_size_on
    from ..infer.output.resumable import ResumableOutput, RunKey

    card = backend.card
    key = RunKey(
        model=f"{card.name} {card.precision} {card.checkpoint_sha256[:12]}".strip(),
        backend=backend.name,
        format=options.format,
        top_k=min(options.top_k, len(card.classes)),
        batch_size=batch_size_on(backend, options.batch_size),
        fit=options.fit,
    )
    with ResumableOutput(target, key, resume=options.resume) as output:
        if output.is_finished:
            _log.warning(f"{target}: already finished; to write it again, leave out --resume")
            return 0
        output.write(watch.logged(output.new(answers(output.remaining(found)))))
        output.finish()
        return watch.unreadable + output.unreadable_before


class _Watch:
    """Logs and counts unreadable images, and moves the progress bar."""

    def __init__(self, advance: Advance, *, strict: bool) -> None:
        self.advance, self.strict, self.unreadable = advance, strict, 0

    def logged(self, answers: "Iterable[Answer]") -> "Iterator[Answer]":
        """Pass the answers on. With `strict`, raises DataError at the first unreadable image."""
        for answer in answers:
            if answer.error:
                self.unreadable += 1
                if self.strict:
                    raise DataError(f"{answer.file}: {answer.error}; stopped because of --strict")
                _log.warning(f"{visible(answer.file)}: {visible(answer.error)}")
            self.advance(1)
            yield answer


def _classify_on_ray(options: ClassifyOptions, address: str) -> int:
    """Classify on a Ray cluster, into a folder of Parquet files, and return the number of unreadable images."""
    from ..infer.backend import Backend, BackendOptions
    from ..infer.classify import ClassifyConfig
    from ..infer.output.parquet import write_shards
    from ..infer.ray_cluster import Work, answers_on_ray
    from ..infer.sources.listing import count, standard_input
    from ..workflow.models import find_model, read_card
    from ..workflow.select import open_model

    if find_spec("ray") is None:
        raise UsageError("--ray: Ray Data is not installed; pip install 'ray[data]'")
    card = read_card(find_model(options.model))
    model, backend, batch_size = options.model, options.backend, options.batch_size

    def open_there(backend_options: BackendOptions) -> Backend:
        return open_model(model, backend=backend, options=backend_options, max_batch=batch_size)

    work = Work(
        open_there,
        folder=str(Path.cwd()),
        config=ClassifyConfig(options.batch_size, min(options.top_k, len(card.classes))),
        fit=options.fit,
        data_dir=options.data_dir,
        options=BackendOptions(device=options.device, shares_cores=True),
        processes=options.workers,
    )
    assert options.output is not None
    with progress_bar("classifying", lambda: count(options.paths), unit="images") as advance:
        watch = _Watch(advance, strict=options.strict)
        answers = answers_on_ray(standard_input(options.paths), work, address=address)
        write_shards(watch.logged(answers), options.output, top_k=work.config.top_k)
    return watch.unreadable
