"""The parity gate of an export: a graph or an engine must predict the whole test split as the reference does.

A graph is judged on a backend that computes in its precision on this machine. A graph in fp16 or bf16 is also judged in
fp32 arithmetic with the result of every layer rounded, which is the same on every processor. An engine is judged if
it is built for the GPU and the TensorRT of this machine. The card of the artifact records the results, and what could
not be checked.
"""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..bench.parity.compare import Parity, check_labels
from ..bench.parity.reference import Reference
from ..bench.parity.verdict import Requirement, Verdict, judge
from ..core.artifacts.engine import EngineInfo, read_engine_info, read_plan, write_engine
from ..core.card import MEASURED, PARITY, ModelCard, engine_card
from ..core.data.datasets import Dataset, Split
from ..core.errors import ArtifactError, BackendError, noted
from ..core.files import write_whole
from ..core.progress import progress_bar
from ..core.tolerances import PRECISIONS
from ..infer.backend import Backend, BackendOptions
from ..infer.open_backend import open_backend
from .model_data import report_other_score
from .open_reference import open_reference
from .rounded_graph import NAME as ROUNDED
from .rounded_graph import open_rounded

ON_CPU = BackendOptions(device="cpu")
OTHERS = "the other GPUs that it was built for"


class Gate:
    """Judges the exports of one checkpoint or imported graph on one test split; the reference runs on it once."""

    def __init__(self, checkpoint: Path, dataset: Dataset, required: Requirement) -> None:
        """Raises ArtifactError for the checkpoint, DataError if the classes of the data set are not the model's."""
        split = dataset.scored()
        self._dataset, self._required = f"{dataset.name}, {dataset.scored_split} split", required
        with open_reference(checkpoint, ON_CPU) as reference:
            check_labels(reference.card.classes, split, dataset.classes, name=dataset.name)
            with _progress_bar(reference, split) as advance:
                self._reference = Reference.of(reference, split, precisions=PRECISIONS, advance=advance)
            correct = int((self._reference.logits_NK.argmax(axis=1) == split.labels_N).sum())
            report_other_score(reference.card, dataset, correct=correct, total=len(split))

    def judge_graph(self, graph: Path, *, add_note: bool) -> Verdict:
        """Judge a graph and, if `add_note`, write the results into its card.

        Raises ParityError with the numbers if it does not have parity, InconclusiveError if the images are too few.
        """
        from ..core.artifacts.graph import load_graph, set_card, sha256_without_card
        from ..export.reduced_precision import UNCHECKED

        loaded, card = load_graph(graph)
        with contextlib.ExitStack() as stack:
            judged = [(backend, *self._judge(backend, card.precision)) for backend in _open_graph(graph, card, stack)]
            for _, verdict, _ in judged:
                verdict.enforce()
            backend, verdict, parity = judged[-1]
            ran_on, unchecked = backend.runs_on, _unchecked(backend, card)
        if add_note:
            note = self._note(parity, ran_on, unchecked)
            if UNCHECKED.format(precision=card.precision) not in unchecked:  # otherwise a rounded copy of it was judged
                note[MEASURED] = sha256_without_card(loaded)
            set_card(loaded, replace(card, notes={**card.notes, PARITY: note}))
            write_whole(graph, loaded.SerializeToString())
        return verdict

    def judge_engine(self, engine: Path, *, device: str = "auto") -> Verdict | str:
        """Judge an engine on a GPU of this machine, write the results into the JSON beside it, and return the verdict.

        If the engine is not for this machine, write and return the reason instead. Raises ParityError with the numbers
        if the engine does not have parity, InconclusiveError if the images are too few, ArtifactError if it is damaged,
        BackendError if it fails on its own GPU.
        """
        info = read_engine_info(engine)
        plan = read_plan(engine, info)
        result = _engine_obstacle(info, device) or self._judged_engine(engine, info, device)
        if isinstance(result, str):
            note: dict[str, Any] = {"unchecked": [f"the engine itself: {result}"]}
            verdict: Verdict | str = result
        else:
            verdict, note = result
        measured = info.card.notes.get(PARITY)
        # before engines had notes of their own, this one was the graph's
        kept = info.card if isinstance(measured, dict) and MEASURED in measured else engine_card(info.card)
        card = replace(info.card, notes={**kept.notes, PARITY: {**note, MEASURED: info.plan_sha256}})
        write_engine(engine, plan, replace(info, card=card))
        return verdict

    def _judged_engine(self, engine: Path, info: EngineInfo, device: str) -> tuple[Verdict, dict[str, Any]] | str:
        """The verdict and the note; or why an engine that was built for other machines too does not run on this one."""
        try:
            backend = open_backend("trt", engine, BackendOptions(device=device, steady=True))
        except (BackendError, ArtifactError) as error:
            if not info.built_for_others:
                raise
            return noted(error)
        with backend:
            verdict, parity = self._judge(backend, info.card.precision)
            note = self._note(parity, backend.runs_on, (OTHERS,) if info.built_for_others else ())
        verdict.enforce()
        return verdict, note

    def _judge(self, backend: Backend, precision: str) -> tuple[Verdict, Parity]:
        with _progress_bar(backend, self._reference.split) as advance:
            parity = self._reference.parity_of(backend.name, backend, precision=precision, advance=advance)
        classes = self._reference.card.classes
        return judge(parity, precision=precision, required=self._required, classes=classes), parity

    def _note(self, parity: Parity, ran_on: str, unchecked: tuple[str, ...]) -> dict[str, Any]:
        return {
            "dataset": self._dataset,
            "images": parity.images,
            "right": parity.candidate_correct,
            "reference_right": parity.reference_correct,
            "agreeing": parity.agreeing,
            "largest_logit_difference": parity.largest_difference,
            "relative_logit_error": parity.relative_error,
            "ran_on": ran_on,
            "unchecked": list(unchecked),
        }


def _engine_obstacle(info: EngineInfo, device: str) -> str:
    """Return why this engine is not for this GPU and TensorRT, or why this machine runs no engines; empty if it is."""
    from ..infer.trt.preflight import check_machine, mismatch

    try:
        found, flavor = check_machine(device=device, flavor=info.flavor)
    except BackendError as error:
        return noted(error)
    here = f"this machine has {found.name} (compute capability {found.compute_capability})"
    if flavor.checks_engines:
        built_for = info.targets or (info.compute_capability,)
        return "" if found.compute_capability in built_for else f"built for {info.built_for}, {here}"
    return mismatch(info, flavor, found)


def _progress_bar(backend: Backend, split: Split) -> AbstractContextManager[Callable[[int], None]]:
    return progress_bar(f"logits of {backend.name}", len(split), unit="images")


def _open_graph(graph: Path, card: ModelCard, stack: contextlib.ExitStack) -> list[Backend]:
    """Open a graph on the backends that judge it; the last one computes in its precision if this machine can."""
    rounded = open_rounded(graph, stack)
    if rounded is None:
        name = "openvino" if _is_for_openvino(card) and find_spec("openvino") else "onnx"
        return [stack.enter_context(open_backend(name, graph, ON_CPU))]
    if not _openvino_computes_in(card.precision):
        return [rounded]
    return [rounded, stack.enter_context(open_backend("openvino", graph, ON_CPU))]


def _unchecked(backend: Backend, card: ModelCard) -> tuple[str, ...]:
    """What stays unchecked if a graph was judged on this backend."""
    from ..export.reduced_precision import UNCHECKED

    if backend.name == ROUNDED:
        return (UNCHECKED.format(precision=card.precision),)
    if _is_for_openvino(card) and backend.name != "openvino":
        return ("integer kernels of OpenVINO",)
    return ("integer kernels of a GPU",) if _int8_flavor(card) == "tensorrt" else ()


def _is_for_openvino(card: ModelCard) -> bool:
    return _int8_flavor(card) == "openvino"


def _int8_flavor(card: ModelCard) -> str:
    """The runtime that an int8 graph was quantised for; empty for another graph."""
    made = card.notes.get("export")
    return str(made.get("flavor", "")) if card.precision == "int8" and isinstance(made, dict) else ""


def _openvino_computes_in(precision: str) -> bool:
    if find_spec("openvino") is None:
        return False
    from ..infer.openvino_backend import processor_computes_in

    return processor_computes_in(precision)
