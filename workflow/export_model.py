"""Export a model: write its graph, build its engine, judge both by the parity gate, and write a Triton repository.

The graph is written first, the engine is built from it, and each is judged as soon as it exists. If parity is required,
they are made in a temporary folder and moved to their folder only after all verdicts.
"""

import logging
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..bench.parity.verdict import Verdict, requirement
from ..core.artifacts.engine import SUFFIX, Profile, json_path
from ..core.errors import UsageError
from ..core.file_names import check_name
from ..core.files import make_folder, make_writable_folder, temporary_folder, write_whole
from ..core.library_errors import translated_errors
from ..core.nvidia.flavor import choose_flavor
from ..core.text import wrapped
from ..core.tolerances import precision_named
from ..export.config import EngineConfig, Int8Config
from ..export.opset import opset_of
from .export_files import ExportFiles, converts, export_files, name_in_triton
from .model_data import dataset_of
from .models import NAME_IT, ModelFiles, check_card, find_model, find_reference, read_card
from .parity_gate import Gate

if TYPE_CHECKING:
    from ..core.artifacts.checkpoint import Checkpoint
    from ..core.card import ModelCard
    from ..export.int8.calibration import Calibration
    from ..export.int8.quantize import Int8Exported
    from ..export.int8.sensitivity import LayerCost

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportConfig:
    """What is exported, and how. Raises UsageError or UnknownNameError for options that do not fit together."""

    models: tuple[str, ...]
    """Files, or names of the zoo. Several checkpoints become one ensemble."""
    out: Path | None = None
    """Folder for the files; default: the folder of the model."""
    precision: str | None = None
    """fp32, fp16, bf16 or int8; default: fp32, or the precision of the given graph."""
    opset: int | None = None
    """The opset of the graph; default: see `opset_of`."""
    int8: Int8Config = field(default_factory=Int8Config)
    require_parity: str | None = None
    """The requirement in words, as --require-parity takes it; None means no gate."""
    dataset: str | None = None
    """Its training split calibrates int8, its test split is for the gate; default: the data set of the model."""
    data_dir: Path | None = None
    trt: bool = False
    """Build an engine."""
    engine: EngineConfig = field(default_factory=lambda: EngineConfig(Path()))
    """How the engine is built; `graph`, `out` and `precision` are replaced by those of this export. Its batch sizes are
    also those of the Triton configuration."""
    triton: Path | None = None
    """Model repository for NVIDIA Triton; None writes none."""
    explain: bool = False
    """Write no file; list the error that int8 adds in each layer."""
    name: str | None = None
    """Name of the files; default: that of the given file, or for a run's best.pt or last.pt that of the card."""
    force: bool = False
    """Replace files of other models."""

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)
        if self.precision is not None:
            precision_named(self.precision)
        opset_of(self.precision or "fp32", self.opset)
        if self.require_parity is not None:
            requirement(self.require_parity)
        if self.precision != "int8" and self.int8_only:
            raise UsageError(f"{', '.join(self.int8_only)}: only for --precision int8")
        if self.precision != "int8" and self.dataset and self.require_parity is None:
            raise UsageError("--dataset: only for --precision int8 and --require-parity")
        if not self.trt and self.engine_only:
            raise UsageError(f"{', '.join(self.engine_only)}: only with --trt")
        if self.explain and self.require_parity is not None:
            raise UsageError("--explain writes no file that --require-parity could judge; omit one of them")
        if self.explain and self.files_only:
            raise UsageError(f"{', '.join(self.files_only)}: --explain writes no file; omit one of them")

    @property
    def engine_only(self) -> list[str]:
        """Names of the given options that apply only to the build of an engine."""
        given = {
            "--flavor": self.engine.flavor != EngineConfig.flavor,
            "--device": self.engine.device != EngineConfig.device,
            "--target": self.engine.targets,
            "--workspace-mib": self.engine.workspace_mib is not None,
            "--hardware-compatibility": self.engine.hardware_compatibility != EngineConfig.hardware_compatibility,
            "--no-cache": not self.engine.cache,
        }
        if self.triton is None:  # they are also the batch sizes of the Triton configuration
            given["--max-batch"] = self.engine.max_batch != EngineConfig.max_batch
            given["--opt-batch"] = self.engine.opt_batch is not None
        return [name for name, value in given.items() if value]

    @property
    def files_only(self) -> list[str]:
        """Names of the given options that apply only to files that are written."""
        given = {"--name": self.name is not None, "--force": self.force, "--opset": self.opset is not None}
        return [name for name, value in given.items() if value]

    @property
    def int8_only(self) -> list[str]:
        """Names of the given options that apply only to int8."""
        given = {
            "--keep-fp32": self.int8.keep_fp32,
            "--int8-flavor": self.int8.flavor != Int8Config.flavor,
            "--int8-weight-bits": self.int8.weight_bits != Int8Config.weight_bits,
            "--int8-method": self.int8.method != Int8Config.method,
            "--calibration-images": self.int8.calibration_images != Int8Config.calibration_images,
            "--explain": self.explain,
        }
        return [name for name, value in given.items() if value]


def export_model(config: ExportConfig) -> list[Path]:
    """Write the graph, the engine, or both, and return their paths; empty if only a Triton repository is requested.

    Raises UsageError for options that do not fit the model, and before any work if a file of another model is in the
    place of one that would be written (without `force`); ParityError or InconclusiveError if an artifact does not
    pass the gate (then there is no file), and the errors of the exporters.
    """
    found = _find_source(config)
    folder = config.out or (Path() if found.in_zoo else found.given.parent)
    with ExitStack() as stack:
        source = _source_checkpoint(config, found, stack)
        files = _files(config, source, folder)
        if not config.force:
            files.check(source)
        if config.triton is not None:
            make_writable_folder(config.triton)
        make_folder(folder)
        working = folder if config.require_parity is None else stack.enter_context(temporary_folder(folder))
        if source is not found:
            source = _copied(source, working)
        if config.require_parity is None:  # the gate has a check of its own
            check_card(source)
        gate = _open_gate(config, source)
        written = _write_graph(config, source, working / f"{files.stem}.onnx")
        graph = written or source.graph
        if gate and graph:
            _log.info(gate.judge_graph(graph, add_note=written is not None).summary())
        engine = None
        if config.trt:
            assert graph is not None  # _find_source has checked it
            request = replace(config.engine, graph=graph, out=working, name=files.stem, precision=config.precision)
            engine = _build_engine(request)
            if gate:
                _judge_engine(gate, engine, config)
        made = [path for path in (written, engine) if path is not None]
        if working != folder:
            _move([*made, *([source.given] if source is not found else [])], folder)
    return [folder / path.name for path in made]


def judges_only(config: ExportConfig) -> bool:
    """Whether the gate is all that the user asked for: a given graph, from which nothing is made."""
    if config.require_parity is None or config.trt:
        return False
    found = find_model(config.models[0])
    return found.checkpoint is None and not converts(found, config.precision)


def judge_given_graph(config: ExportConfig) -> Verdict:
    """Judge the graph that the user named, and write nothing.

    Raises UsageError for options that have no effect, and what Gate.judge_graph raises for a graph that does not pass.
    """
    if len(config.models) > 1:
        raise UsageError(f"{config.models[1]}: an ensemble is made of checkpoints, and {config.models[0]} is none")
    found = _find_source(config)
    assert found.graph is not None  # _find_source has checked it
    gate = _open_gate(config, found)
    assert gate is not None
    return gate.judge_graph(found.graph, add_note=False)


def explain_layers(config: ExportConfig) -> "list[LayerCost]":
    """Return the error that int8 adds in each layer, the largest first. Raises the errors of export_model."""
    from ..export.int8.sensitivity import explain, explain_graph

    found = _find_source(config)
    if found.graph is not None and converts(found, config.precision):
        with translated_errors(f"{found.graph}: --explain fails"):
            return explain_graph(found.graph, calibration=_calibration(config, read_card(found)), config=config.int8)
    with ExitStack() as stack:
        source = _source_checkpoint(config, found, stack)
        assert source.checkpoint is not None  # _find_source has checked it
        checkpoint, calibration = _load_for_int8(config, source.checkpoint)
        with translated_errors(f"{source.checkpoint}: --explain fails"):
            return explain(checkpoint, calibration=calibration, config=config.int8)


def write_triton_repository(config: ExportConfig, made: Sequence[Path]) -> Path:
    """Write the last of the exported files, or else the given one, for Triton; return the folder of the model."""
    from ..export.triton import triton_from_artifact

    assert config.triton is not None
    artifact = made[-1] if made else find_model(config.models[0]).given
    profile = Profile(config.engine.optimal_batch, config.engine.max_batch)
    source, stem = find_model(str(artifact)), artifact.stem
    if not made:  # export_model has named and checked what it made
        files = _files(config, source, artifact.parent)
        stem = files.stem
        if not config.force:
            files.check(source)
    name = name_in_triton(stem, source, config.name)
    return triton_from_artifact(artifact, config.triton, profile=profile, name=name)


# The steps.


def _find_source(config: ExportConfig) -> ModelFiles:
    """Find the first model. Raises UsageError, before any file is made, if the options do not fit it."""
    name = config.models[0]
    found = find_model(name)
    converted = converts(found, config.precision)
    unchanged = not found.checkpoint and not config.trt and not converted
    judged = bool(found.graph) and config.require_parity is not None
    if found.engine and (config.trt or config.triton is None):
        raise UsageError(f"{name}: is an engine already; expected a checkpoint or a graph")
    if unchanged and config.triton is None and not judged:
        raise UsageError(f"{name}: is a graph already; to build an engine: rtk export --trt {shlex.quote(name)}")
    if unchanged and config.precision:
        raise UsageError(f"{name}: --precision: expected a checkpoint, or a graph with --trt")
    if unchanged and config.require_parity is not None and not judged:
        raise UsageError(
            f"{name}: --require-parity judges graphs, and what is exported; run: rtk bench {shlex.quote(name)} "
            f"--require-parity {config.require_parity}"
        )
    for option in (["--out"] if config.out is not None else []) + config.files_only:
        if unchanged and config.triton is None:
            raise UsageError(f"{name}: {option}: --require-parity judges this graph and writes no file; omit {option}")
    if not found.checkpoint and config.opset is not None:
        raise UsageError(f"{name}: --opset: a graph keeps its opset; expected a checkpoint")
    if not found.checkpoint and config.int8_only and not converted:
        raise UsageError(f"{name}: {', '.join(config.int8_only)}: expected a checkpoint, not a graph")
    if config.trt:
        from ..export.trt.hardware import hardware_for

        flavor = choose_flavor(config.engine.flavor)
        hardware_for(config.engine, flavor)  # an error if this machine does not build such an engine
        if config.triton is not None:
            from ..export.triton import check_flavor

            check_flavor(flavor.name)
    return found


def _source_checkpoint(config: ExportConfig, found: ModelFiles, stack: ExitStack) -> ModelFiles:
    """Return the files to export: `found`, or the ensemble of several checkpoints, in a folder that `stack` removes."""
    if len(config.models) == 1:
        return found
    from ..export.ensemble import ensemble_from_checkpoints

    checkpoints = []
    for name in config.models:
        member = find_model(name)
        if member.checkpoint is None:
            raise UsageError(f"{name}: an ensemble is made of checkpoints")
        checkpoints.append(member.checkpoint)
    aside = stack.enter_context(temporary_folder(None))
    ensemble = find_model(str(ensemble_from_checkpoints(checkpoints, aside, name=config.name)))
    _log.info(f"{ensemble.name}: an ensemble of {len(checkpoints)}")
    return ensemble


def _copied(source: ModelFiles, folder: Path) -> ModelFiles:
    """Copy the checkpoint of an ensemble into a folder and return it there."""
    path = folder / source.given.name
    write_whole(path, source.given.read_bytes())
    return find_model(str(path))


def _files(config: ExportConfig, source: ModelFiles, folder: Path) -> ExportFiles:
    return export_files(
        source,
        folder,
        name=config.name,
        precision=config.precision,
        trt=config.trt,
        triton=config.triton,
        is_ensemble=len(config.models) > 1,
    )


def _open_gate(config: ExportConfig, source: ModelFiles) -> Gate | None:
    """Return the parity gate with the reference's logits, if parity is required."""
    if config.require_parity is None:
        return None
    dataset = dataset_of(read_card(source), config.dataset, data_dir=config.data_dir)
    return Gate(find_reference(source, advice=NAME_IT), dataset, requirement(config.require_parity))


def _write_graph(config: ExportConfig, source: ModelFiles, path: Path) -> Path | None:
    """Write the graph of a checkpoint; return None if the user gave a graph or an engine."""
    if source.graph is not None and converts(source, config.precision):
        return _converted(config, source.graph, path)
    if source.checkpoint is None:
        return None
    precision = config.precision or "fp32"
    if config.trt and source.in_zoo and source.graph and precision == "fp32" and config.opset is None:
        write_whole(path, source.graph.read_bytes())
        return path
    if precision == "int8":
        return _write_int8_graph(config, source.checkpoint, path)
    from ..core.artifacts.checkpoint import load_checkpoint
    from .artifacts import export_graph

    exported = export_graph(load_checkpoint(source.checkpoint), path, precision=precision, opset=config.opset)
    _log.info(f"largest logit difference from PyTorch: {exported.largest_difference:.2g}")
    return exported.path


def _converted(config: ExportConfig, source: Path, path: Path) -> Path:
    """Write an imported graph in another precision."""
    from ..core.artifacts.graph import load_graph
    from ..export.convert_graph import converted_from_graph
    from ..export.int8.quantize import int8_from_graph

    assert config.precision is not None  # converts() has checked it
    with translated_errors(f"{path}: not written: the conversion fails"):
        if config.precision != "int8":
            done = converted_from_graph(source, path, precision=config.precision)
            _log.info(f"largest logit difference from the imported graph: {done.largest_difference:.2g}")
            return done.path
        calibration = _calibration(config, load_graph(source)[1])
        exported = int8_from_graph(source, path, calibration=calibration, config=config.int8)
    _log_int8(exported, len(calibration.images_NHWC), "the imported graph's")
    return exported.path


def _write_int8_graph(config: ExportConfig, source: Path, path: Path) -> Path:
    """Calibrate, quantise, and log how close the logits are."""
    from ..export.int8.quantize import int8_from_checkpoint

    checkpoint, calibration = _load_for_int8(config, source)
    with translated_errors(f"{path}: not written: the export fails"):
        exported = int8_from_checkpoint(
            checkpoint, path, calibration=calibration, config=config.int8, opset=config.opset
        )
    _log_int8(exported, len(calibration.images_NHWC), "PyTorch's")
    return exported.path


def _log_int8(exported: "Int8Exported", images: int, whose: str) -> None:
    _log.info(
        wrapped(
            f"calibrated by {exported.method} on {images:,} training images; "
            f"{exported.agreeing:,} of {exported.images:,} held-out images have {whose} prediction, "
            f"largest logit difference {exported.tried[exported.method].largest_difference:.2g}"
        )
    )


def _load_for_int8(config: ExportConfig, path: Path) -> "tuple[Checkpoint, Calibration]":
    """Load a checkpoint and draw its calibration images."""
    from ..core.artifacts.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    return checkpoint, _calibration(config, checkpoint.card)


def _calibration(config: ExportConfig, card: "ModelCard") -> "Calibration":
    """Draw the calibration images of a model."""
    from ..export.int8.calibration import draw_calibration

    dataset = dataset_of(card, config.dataset, data_dir=config.data_dir)
    return draw_calibration(dataset, card, images=config.int8.calibration_images)


def _build_engine(config: EngineConfig) -> Path:
    """Build the engine, or take it from the cache, and log its properties."""
    from ..export.trt.build import engine_from_onnx

    built = engine_from_onnx(config)
    info = built.info
    _log.info(f"from the cache: {info.plan_bytes:,} bytes" if built.cached else f"built in {info.build_s:.1f} s")
    _log.info(wrapped(f"{info.flavor} {info.version} for {info.built_for}"))
    _log.info(wrapped(str(info.profile)))
    _log.info(wrapped(f"precision: {info.precision}"))
    return built.path


def _judge_engine(gate: Gate, engine: Path, config: ExportConfig) -> None:
    """Judge the engine on the GPU that it was built on, if it is for this machine; log the verdict, or why not."""
    verdict = gate.judge_engine(engine, device=f"cuda:{config.engine.device}")
    if isinstance(verdict, str):
        _log.info(wrapped(f"engine not judged: {verdict}; its JSON file records it as unchecked"))
    else:
        _log.info(verdict.summary())


def _move(paths: Sequence[Path], folder: Path) -> None:
    """Move files from the temporary folder to their folder, engines with their JSON."""
    for path in paths:
        path.replace(folder / path.name)
        if path.suffix == SUFFIX:
            json_path(path).replace(json_path(folder / path.name))
