"""rtk classify."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import DataError, OutputError, UnknownNameError, UsageError
from ..core.files import check_local, make_folder, make_writable_folder, whole_file
from ..core.progress import Advance, progress_bar
from ..core.text import visible, wrapped
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from ..core.zoo import zoo_card
from .classify_options import ClassifyOptions
from .config_options import options_from
from .network_options import allow_named
from .streams import stdout_failure

if TYPE_CHECKING:
    from ..core.card import ModelCard
    from ..core.data.decode import Decoder
    from ..core.data.file_rules import LeftOut
    from ..core.data.sources.entry import Entry
    from ..infer.backend import Backend
    from ..infer.classify import Answer

_log = logging.getLogger(__name__)

SOME_UNREADABLE = 3
"""Exit code if at least one image cannot be read."""


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
    _check_outputs(options)
    allow_named(*(options.allow_code or ()))
    if options.model is None:
        _log.info(_default_model_text())
    started_at = time.monotonic()
    done = _classify_here(options) if options.ray is None else _classify_on_ray(options, options.ray)
    if options.outputs and done is not None:
        images = f"{done.answered:,} {'image' if done.answered == 1 else 'images'}"
        counts = f"{images}, {done.unreadable:,} unreadable, {time.monotonic() - started_at:.1f} s"
        _log.info(f"{counts}; output: {', '.join(visible(str(path)) for path in options.outputs)}")
    if done is not None and done.unreadable:
        raise typer.Exit(SOME_UNREADABLE)


def _default_model_text() -> str:
    """What the model is that answers when none was requested."""
    classes = ", ".join(zoo_card(ZOO_DEFAULT).classes[:3])
    return f"model: {ZOO_DEFAULT} ({classes} ...); another: --model"


@dataclass(frozen=True)
class _Done:
    """What a run, with the run that it resumed, has answered."""

    answered: int
    unreadable: int


def _classify_here(options: ClassifyOptions) -> _Done | None:
    """Classify on this machine; None if there was nothing to do."""
    from ..core.data.decode import Decoder
    from ..core.data.file_rules import LeftOut
    from ..infer.backend import BackendOptions
    from ..infer.classify import ClassifyConfig, log_smaller_batches
    from ..infer.classify import classify as answers_of
    from ..infer.sources.listing import count, entries
    from ..workflow.select import open_model

    backend_options = BackendOptions(device=options.device, shares_cores=True, cuda_graphs=options.cuda_graphs)
    with ExitStack() as stack:
        backend = stack.enter_context(
            open_model(
                options.model_name, backend=_backend(options), options=backend_options, max_batch=options.batch_size
            )
        )
        log_smaller_batches(backend, options.batch_size)
        if options.cuda_graphs and backend.name != "trt":
            _log.warning(f"--cuda-graphs: without effect on the {backend.name} backend")
        fit = options.fit or backend.card.image_fit
        decoder = stack.enter_context(
            Decoder(backend.card.input, processes=options.workers, fit=fit, max_pixels=options.max_pixels(backend.card))
        )
        left_out = LeftOut()
        stack.callback(lambda: _log_notes(decoder, left_out))
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

        found = entries(options.paths, data_dir=options.data_dir, left_out=left_out)
        watch = _Watch(bar, strict=options.strict)
        if options.resumable_file is None:
            _write_text(options, watch.logged(answers(found)), config.top_k)
            return watch.done
        return _write_resumable(options, options.resumable_file, backend, found, answers, watch)


def _log_notes(decoder: "Decoder", left_out: "LeftOut") -> None:
    """Log what folders and archives held besides images, and guessed ranges of images with more than 8 bits."""
    if text := left_out.to_text():
        _log.info(wrapped(f"left out: {text}"))
    if decoder.guessed:
        from ..core.data.decode import guessed_text

        _log.info(wrapped(guessed_text(decoder.guessed)))


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
    """Make the folder of the output. Raise UsageError or OutputError for outputs that cannot be written here."""
    if options.format == "parquet":
        from ..infer.output.parquet import check_parquet

        check_parquet()
    for path in options.outputs:
        check_local(path)
    if options.ray is None and options.output is not None:
        if options.output.is_dir():
            raise OutputError(f"{options.output}: is a folder; expected the name of a file")
        make_folder(options.output.parent)
    if options.sort_into is not None:
        from ..infer.output.sort import check_outside

        check_outside(options.sort_into, options.paths)
        make_writable_folder(options.sort_into)


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
    text = lines(answers, options.format, top_k=top_k, mark=options.csv_bom)
    if options.output is None:
        for line in text:
            sys.stdout.write(line)
            if stdout_failure() and not options.outputs:
                break
    else:
        with whole_file(options.output) as file:
            file.writelines(line.encode() for line in text)


def _model_text(card: "ModelCard") -> str:
    """The model of a resumable output: what its rows depend on, with the temperature if it has one."""
    temperature = "" if card.temperature == 1 else f" temperature {card.temperature!r}"
    return f"{card.name} {card.precision} {card.checkpoint_sha256[:12]}".strip() + temperature


def _write_resumable(
    options: ClassifyOptions,
    target: Path,
    backend: "Backend",
    found: "Iterator[Entry]",
    answers: "Callable[[Iterator[Entry]], Iterator[Answer]]",
    watch: "_Watch",
) -> _Done | None:
    """Write a file that can be resumed; None if it is finished already."""
    from ..infer.classify import batch_size_on
    from ..infer.output.resumable import ResumableOutput, RunKey

    card = backend.card
    key = RunKey(
        model=_model_text(card),
        backend=backend.name,
        format=options.format,
        top_k=min(options.top_k, len(card.classes)),
        batch_size=batch_size_on(backend, options.batch_size),
        fit=options.fit or card.image_fit,
        csv_bom=options.csv_bom,
    )
    with ResumableOutput(target, key, resume=options.resume) as output:
        if output.is_finished:
            _log.warning(f"{target}: already finished; to write it again, leave out --resume")
            return None
        output.write(watch.logged(output.new(answers(output.remaining(found)))))
        output.finish()
        return _Done(output.rows, watch.unreadable + output.unreadable_before)


class _Watch:
    """Logs and counts unreadable images, and moves the progress bar."""

    def __init__(self, advance: Advance, *, strict: bool) -> None:
        self.advance, self.strict, self.answered, self.unreadable = advance, strict, 0, 0

    @property
    def done(self) -> _Done:
        """What has been answered so far."""
        return _Done(self.answered, self.unreadable)

    def logged(self, answers: "Iterable[Answer]") -> "Iterator[Answer]":
        """Pass the answers on. With `strict`, raises DataError at the first unreadable image."""
        for answer in answers:
            if answer.error:
                self.unreadable += 1
                if self.strict:
                    raise DataError(f"{answer.file}: {answer.error}; stopped because of --strict")
                _log.warning(f"{visible(answer.file)}: {visible(answer.error)}")
            self.answered += 1
            self.advance(1)
            yield answer


def _classify_on_ray(options: ClassifyOptions, address: str) -> _Done:
    """Classify on a Ray cluster, into a folder of Parquet files."""
    from ..infer.backend import Backend, BackendOptions
    from ..infer.classify import ClassifyConfig
    from ..infer.output.parquet import write_shards
    from ..infer.ray_cluster import Work, answers_on_ray
    from ..infer.sources.listing import count, standard_input
    from ..workflow.models import find_model, read_card
    from ..workflow.select import open_model

    if find_spec("ray") is None:
        raise UsageError("--ray: Ray Data is not installed; pip install 'ray[data]'")
    card = read_card(find_model(options.model_name))
    model, backend, batch_size = options.model_name, options.backend, options.batch_size
    modules = options.allow_code or ()

    def open_there(backend_options: BackendOptions) -> Backend:
        allow_named(*modules)
        return open_model(model, backend=backend, options=backend_options, max_batch=batch_size)

    work = Work(
        open_there,
        folder=str(Path.cwd()),
        config=ClassifyConfig(options.batch_size, min(options.top_k, len(card.classes))),
        fit=options.fit or card.image_fit,
        max_pixels=options.max_pixels(card),
        data_dir=options.data_dir,
        options=BackendOptions(device=options.device, shares_cores=True),
        processes=options.workers,
    )
    assert options.output is not None
    with progress_bar("classifying", lambda: count(options.paths), unit="images") as advance:
        watch = _Watch(advance, strict=options.strict)
        answers = answers_on_ray(standard_input(options.paths), work, address=address)
        write_shards(watch.logged(answers), options.output, top_k=work.config.top_k)
    return watch.done
