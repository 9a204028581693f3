"""What the parity gate finds in correct and in faulty exports: python -m rtk.tools.parity_figures [MODEL...].

Each model is exported in every precision, in int8 by rtk's quantiser and by ONNX Runtime's, and judged on the whole
test split. The limits in core/tolerances.py come from the figures of the correct exports. The second table says which
check refuses each planted fault.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import onnx
import typer
from numpy.typing import NDArray

from ..bench.parity.compare import Parity, compare
from ..bench.parity.reference import ROUNDED_IMAGES
from ..bench.parity.trials import BATCH, some_of
from ..bench.parity.verdict import Verdict, judge
from ..cli.options import DataDir, run_module
from ..core.artifacts.checkpoint import Checkpoint, load_checkpoint
from ..core.artifacts.graph_card import INPUT_NAME
from ..core.data.datasets import Split
from ..core.data.open_dataset import open_dataset
from ..core.files import temporary_folder
from ..core.models.rounded import rounded_logits
from ..core.text import text_table
from ..core.tolerances import PRECISIONS, differences, precision_named
from ..core.zoo import zoo_names
from ..export.config import INT8_FLAVORS, Int8Config
from ..export.int8.calibration import Calibration, draw_calibration
from ..export.int8.quantize import int8_from_checkpoint, reference_logits
from ..export.int8.ranges import logits_as_written
from ..export.reduced_precision import HALVES, rounded_after_every_layer
from ..export.to_onnx import graph_from_checkpoint
from ..infer.backend import BackendOptions
from ..infer.onnx_backend import open_session
from ..workflow.models import find_model, find_reference
from .int8_graphs import by_onnxruntime
from .planted_faults import faulty, mean_off

if TYPE_CHECKING:
    from ..export.config import Method

Logits = NDArray[np.float32]
Fault = Callable[["Export", Logits, "Subject"], Logits]
"""The logits of a faulty export, from a correct one and its logits."""


@dataclass(frozen=True)
class Export:
    """A correct export: a graph that ONNX Runtime runs on a CPU with the arithmetic of its precision."""

    name: str
    precision: str
    graph: onnx.ModelProto

    def logits(self, images_NHWC: NDArray[np.uint8]) -> Logits:
        """Run the graph, in int8 as it is written."""
        if self.precision == "int8":
            return logits_as_written(self.graph, images_NHWC)
        session = open_session(self.graph.SerializeToString(), BackendOptions(device="cpu"))
        starts = range(0, len(images_NHWC), BATCH)
        return np.concatenate([session.run(None, {INPUT_NAME: images_NHWC[i : i + BATCH]})[0] for i in starts])


@dataclass(frozen=True)
class Subject:
    """A model, its test split, and its reference."""

    checkpoint: Checkpoint
    test: Split
    reference_NK: Logits
    expected: dict[str, float]
    """What fp16 and bf16 cost this network."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, test: Split) -> "Subject":
        """Run the reference."""
        reference_NK = reference_logits(checkpoint, test.images_NHWC)
        model, chosen_N = checkpoint.model(), some_of(len(test))[:ROUNDED_IMAGES]  # the gate's
        expected = {
            name: differences(
                rounded_logits(model, test.images_NHWC[chosen_N], half.torch_type), reference_NK[chosen_N]
            )[1]
            for name, half in HALVES.items()
        }
        return cls(checkpoint, test, reference_NK, expected)

    def parity(self, logits_NK: Logits, precision: str, *, only: NDArray[np.int64] | None = None) -> Parity:
        """Compare logits with the reference's; `only`: indices of the images that count."""
        expected = self.expected.get(precision_named(precision).yardstick, 0.0)
        reference_NK, labels_N = self.reference_NK, self.test.labels_N
        if only is not None:
            reference_NK, logits_NK, labels_N = reference_NK[only], logits_NK[only], labels_N[only]
        return compare("candidate", reference_NK, logits_NK, labels_N, expected_error=expected)

    def verdict(self, logits_NK: Logits, precision: str = "fp32", *, only: NDArray[np.int64] | None = None) -> Verdict:
        """Judge logits by the checks that need no trials."""
        return judge(self.parity(logits_NK, precision, only=only), precision=precision)


def correct_exports(
    checkpoint: Checkpoint,
    calibration: Calibration,
    *,
    method: str = "auto",
    precisions: Collection[str] = tuple(PRECISIONS),
) -> Iterator[Export]:
    """Export in these precisions, in int8 by two quantisers; `method`: of rtk's, as for --int8-method."""
    graph = graph_from_checkpoint(checkpoint)
    if "fp32" in precisions:
        yield Export("fp32", "fp32", graph)
    for precision, half in HALVES.items():
        if precision in precisions:
            halved = graph_from_checkpoint(checkpoint, precision)
            yield Export(precision, precision, rounded_after_every_layer(halved, half))
    if "int8" not in precisions:
        return
    with temporary_folder(None) as folder:
        for flavor in INT8_FLAVORS:
            path = folder / f"{flavor}.onnx"
            config = Int8Config(flavor, cast("Method", method))
            int8_from_checkpoint(checkpoint, path, calibration=calibration, config=config)
            yield Export(f"int8 {flavor}", "int8", onnx.load(path))
    plain = by_onnxruntime(graph, calibration.images_NHWC, "MinMax", "cpu")
    yield Export("int8 by ONNX Runtime", "int8", plain)


def _moved(label: int, by: float) -> Fault:
    def plant(export: Export, logits_NK: Logits, subject: Subject) -> Logits:
        del export, subject
        moved_NK = logits_NK.copy()
        moved_NK[:, label] += by
        return moved_NK

    return plant


def _scaled(by: float) -> Fault:
    return lambda export, logits_NK, subject: (by * logits_NK).astype(np.float32)


def _mean_off(export: Export, logits_NK: Logits, subject: Subject) -> Logits:
    del logits_NK
    return Export(export.name, export.precision, faulty(export.graph, mean_off)).logits(subject.test.images_NHWC)


FAULTS: dict[str, Fault] = {
    "logit of class 5 + 1": _moved(5, 1.0),
    "logit of class 3 - 1": _moved(3, -1.0),
    "one mean + 8/255": _mean_off,
    "logits x 1.03": _scaled(1.03),
    "logits x 1.05": _scaled(1.05),
}


def false_refusals(subject: Subject, logits_NK: Logits, precision: str, *, trials: int = 200, seed: int = 0) -> float:
    """How often another test split of this size would refuse a correct export: images are drawn with replacement."""
    random, images = np.random.default_rng(seed), len(subject.test)
    draws = (random.integers(0, images, images) for _ in range(trials))
    refused = sum(subject.verdict(logits_NK, precision, only=draw_N).outcome == "failed" for draw_N in draws)
    return refused / trials


def figures(
    name: str, *, data_dir: Path | None = None, trials: int = 200, method: str = "auto"
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The rows of both tables for one model."""
    found = find_model(name)
    checkpoint = load_checkpoint(find_reference(found))
    dataset = open_dataset(checkpoint.card.dataset, data_dir=data_dir)
    subject = Subject.of(checkpoint, dataset.scored())
    correct, wrong = [], []
    for export in correct_exports(checkpoint, draw_calibration(dataset, checkpoint.card), method=method):
        logits_NK = export.logits(subject.test.images_NHWC)
        parity = subject.parity(logits_NK, export.precision)
        expected = parity.expected_error or float("nan")
        shift = max(map(abs, parity.class_shifts)) / parity.spread
        correct.append(
            {
                "model": checkpoint.card.name,
                "export": export.name,
                "RMS error": f"{parity.relative_error:.2g}",
                "multiple": f"{parity.relative_error / expected:.1f}",
                "mean difference": f"{shift:.2g}",
                "multiple of it": f"{shift / expected:.1f}",
                "slope": f"{parity.slope:.4f}",
                "verdict": subject.verdict(logits_NK, export.precision).outcome,
                "refused": f"{false_refusals(subject, logits_NK, export.precision, trials=trials):.1%}",
            }
        )
        for fault, plant in FAULTS.items():
            checks = subject.verdict(plant(export, logits_NK, subject), export.precision).checks
            refusing = [check.name for check in checks if check.outcome == "failed"]
            row = {"model": checkpoint.card.name, "export": export.name, "fault": fault}
            wrong.append(row | {"refused by": ", ".join(refusing) or "no check"})
    return correct, wrong


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Checkpoints or models; default: the zoo.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print what the gate finds in correct exports, and which check refuses each planted fault."""
    correct, wrong = [], []
    for name in models or zoo_names():
        rows = figures(name, data_dir=data_dir)
        correct += rows[0]
        wrong += rows[1]
    print(text_table(correct), text_table(wrong), sep="\n\n")


if __name__ == "__main__":
    run_module(main)
