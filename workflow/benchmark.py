"""rtk bench from its options to the report: opens all backends, measures them, and judges their answers."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ..bench.config import PRESETS
from .bench_contenders import contenders_of
from .bench_request import BenchRequest
from .open_backends import BenchModel
from .open_reference import open_reference, reference_text
from .speed import run_speed_alone

if TYPE_CHECKING:
    from ..bench.measure.cell import Cell
    from ..bench.parity.verdict import Requirement
    from ..bench.report.report import Report
    from ..infer.backend import BackendOptions


__all__ = ["BenchRequest", "is_faster", "note_openvino", "run_benchmark"]


def run_benchmark(request: BenchRequest) -> "tuple[Report, list[str]]":
    """Run the benchmark; return the report, and the labels of the backends whose parity can be required.

    Notes in the cache what --backend auto should choose. Raises what opening a backend and `run` raise.
    """
    from ..bench.parity.verdict import requirement
    from ..infer.trt.preflight import check_engine, check_machine
    from .models import find_model

    required = requirement(request.require_parity)
    if not request.measures_parity:
        return run_speed_alone(request, _backend_options(request)), []
    found = find_model(request.model)
    if "trt" in request.backends:
        # fails before anything heavy is loaded
        if found.engine:
            check_engine(found.engine, device=request.device)
        else:
            check_machine(device=request.device)
    model = BenchModel(found, reference=request.reference, force=request.force)
    model.checkpoint  # noqa: B018 - an error if it is missing, before data and backends are opened
    report, judged = _measured(request, model, required)
    if not request.force:  # the answers may have been compared with those of another checkpoint
        note_openvino(report, model, requirement=request.require_parity)
    return report, judged


def _measured(request: BenchRequest, model: "BenchModel", required: "Requirement") -> "tuple[Report, list[str]]":
    from ..bench.measure.contenders import RanFile
    from ..bench.parity.compare import check_labels
    from ..bench.run import run
    from .model_data import dataset_of, report_other_score

    data = dataset_of(model.card, request.dataset, data_dir=request.data_dir)
    options = _backend_options(request)
    with ExitStack() as stack:
        reference_file = RanFile.of(model.checkpoint)
        reference = stack.enter_context(open_reference(model.checkpoint, replace(options, cuda_graphs=False)))
        check_labels(reference.card.classes, data.scored(), data.classes, name=data.name)  # before any export
        contenders = contenders_of(request, model, reference, options=options, dataset=data, stack=stack)
        report = run(
            contenders.opened,
            reference,
            data,
            contenders.config,
            unusable=contenders.unusable,
            required=required,
            graph=contenders.graph,
            reference_file=reference_file,
            reference_text=reference_text(model.checkpoint),
        )
        for parity in report.parity[:1]:
            report_other_score(reference.card, data, correct=parity.reference_correct, total=parity.images)
    return report, [one.label for one in contenders.opened if not one.baseline]


def _backend_options(request: BenchRequest) -> "BackendOptions":
    from ..infer.backend import BackendOptions

    preset = PRESETS.get(request.config.preset)
    return BackendOptions(device=request.device, cuda_graphs=preset is not None and preset.cuda_graphs, steady=True)


def note_openvino(report: "Report", model: "BenchModel", *, requirement: str) -> None:
    """Note in the cache whether `--backend auto` may choose OpenVINO for this model.

    It may if this run showed parity by the margin of the precision, and that OpenVINO is not slower than ONNX Runtime.
    Without parity, or if OpenVINO is slower, an earlier note is removed. A run that measured only one of the two, or
    that asked for another margin, or beside which other processes used the cores, changes nothing about speed.
    """
    from ..bench.measure.cell import label_of
    from ..core.artifacts.parity_cache import forget_parity, remember_parity

    onnx, openvino = (label_of(name, model.card.precision) for name in ("onnx", "openvino"))
    verdict = next((one for one in report.verdicts if one.candidate == openvino), None)
    if verdict is None or requirement != "default":
        return
    slower = is_faster(report.cells, onnx, openvino)
    if not verdict.passed or slower:
        forget_parity(model.own_graph, "openvino")
    elif slower is not None:
        remember_parity(model.own_graph, "openvino")


def is_faster(cells: "Sequence[Cell]", one: str, other: str) -> bool | None:
    """Whether the first backend has the higher rate, at the largest batch of a scope in which both have figures.

    None if there is no such batch, or if other processes disturbed the measurement.
    """
    undisturbed = [cell for cell in cells if cell.valid and not cell.disturbed]
    rates = {(cell.batch, cell.scope, cell.label): cell.images_per_s for cell in undisturbed}
    both = [(batch, scope) for batch, scope, label in rates if label == one and (batch, scope, other) in rates]
    return rates[*max(both), one] > rates[*max(both), other] if both else None
