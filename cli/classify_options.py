"""The options of rtk classify."""
# ruff: noqa: RUF009 - option() makes a dataclasses.field

from dataclasses import dataclass
from pathlib import Path

from ..core.card import ModelCard
from ..core.data.options import LARGEST_MEGAPIXELS, MAX_PIXELS, Fit
from ..core.errors import UsageError
from ..core.files import is_stream
from ..core.options import option
from ..core.zoo import DEFAULT as ZOO_DEFAULT
from ..infer.output.formats import (
    FILE_FORMATS,
    PAGE_SUFFIXES,
    RESUMABLE_FORMATS,
    SPREADSHEET_FORMATS,
    TABLE_SUFFIXES,
    Format,
)
from . import help as groups
from .network_options import ALLOW_CODE

NOT_WITH_RAY = "--resume, --sort-into, --link, --report, --cuda-graphs, --csv-bom, --format"


@dataclass(frozen=True)
class ClassifyOptions:
    """The options of one command. Raises UsageError for options that contradict each other."""

    paths: tuple[str, ...]
    model: str | None = option(
        None,
        group=groups.MODEL,
        names=("--model", "-m"),
        help=f"Model file or name of a zoo model; default: {ZOO_DEFAULT}.",
    )
    allow_code: tuple[str, ...] | None = option(None, group=groups.MODEL, metavar="MODULE", help=ALLOW_CODE)
    backend: str = option("auto", group=groups.BACKEND, help="Backend: auto, torch, onnx, openvino or trt.")
    device: str = option("auto", group=groups.BACKEND, help="Device: auto, cpu, cuda or cuda:N.")
    cuda_graphs: bool = option(
        False, group=groups.BACKEND, help="Record the run of each batch size as a CUDA graph (trt)."
    )
    batch_size: int = option(256, group=groups.BACKEND, minimum=1, help="Number of images per batch.")
    fit: Fit | None = option(
        None,
        group=groups.DATA,
        help="How to fit images of other proportions: crop the centre, letterbox (black bars), or stretch; default: as "
        "the model was trained.",
    )
    max_megapixels: float | None = option(
        None,
        group=groups.DATA,
        help="Largest images to read, in million pixels; default: as the model was trained, or 64.",
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
    csv_bom: bool = option(
        False, group=groups.OUTPUT, help="Begin CSV with the mark (BOM) by which Excel recognises UTF-8."
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
        help="Run on a Ray cluster, one actor per GPU, so without --device cuda:N; --output is then a folder of "
        "Parquet files.",
    )
    resume: bool = option(False, group=groups.RESUMING, help="Resume an unfinished --output file.")

    def __post_init__(self) -> None:
        if self.max_megapixels is not None and not 0 < self.max_megapixels <= LARGEST_MEGAPIXELS:
            raise UsageError(f"--max-megapixels {self.max_megapixels:g}: expected up to {LARGEST_MEGAPIXELS:,}")
        if self.ray is not None:
            self._check_ray()
        elif self.format_name is None:
            known = ", ".join(f".{name}" for name in FILE_FORMATS[:-1])
            raise UsageError(
                f"{self.output}: unknown suffix; expected {known} or .{FILE_FORMATS[-1]}, or give --format"
            )
        elif (self.resume or self.format == "parquet") and self.resumable_file is None:
            option = "--resume" if self.resume else "--format parquet"
            known = ", ".join(RESUMABLE_FORMATS[:-1])
            raise UsageError(f"{option}: needs --output with a file, in the format {known} or {RESUMABLE_FORMATS[-1]}")
        elif self.csv_bom and self.format not in SPREADSHEET_FORMATS:
            raise UsageError(f"--csv-bom: needs the format {' or '.join(SPREADSHEET_FORMATS)}, not {self.format}")
        elif self.link and self.sort_into is None:
            raise UsageError("--link: needs --sort-into")
        elif self.report is not None and self.resume:
            raise UsageError("--report: shows a run from its beginning; leave out --resume")
        elif self.report is not None and self.report.suffix.lower() not in PAGE_SUFFIXES:
            raise UsageError(f"--report {self.report}: unknown suffix; expected .html, because it is a page")

    def _check_ray(self) -> None:
        others = (self.resume, self.sort_into, self.link, self.report, self.cuda_graphs, self.csv_bom)
        if any(others) or self.requested_format not in (None, "parquet"):
            raise UsageError(f"--ray: writes only Parquet files; leave out {NOT_WITH_RAY}")
        if self.output is None:
            raise UsageError("--ray: needs --output with a folder")
        if self.device.startswith("cuda:"):
            raise UsageError(
                f"--ray with --device {self.device}: every actor has one GPU of its own; use --device cuda"
            )

    def max_pixels(self, card: ModelCard) -> int:
        """The largest images that are read."""
        if self.max_megapixels is not None:
            return round(self.max_megapixels * 1e6)
        return (card.data.max_pixels if card.data else 0) or MAX_PIXELS

    @property
    def model_name(self) -> str:
        """The requested model, or else the zoo's default."""
        return self.model or ZOO_DEFAULT

    @property
    def outputs(self) -> list[Path]:
        """The files and folders that the command writes."""
        return [one for one in (self.output, self.report, self.sort_into) if one is not None]

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
        """The output, if it can be resumed: tables, JSON arrays and pipes cannot."""
        return self.output if self.output and self.format in RESUMABLE_FORMATS and not is_stream(self.output) else None
