"""A whole benchmark with fakes: backends that fail or return early, and the report after Ctrl-C."""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes.early_backend import EarlyFake
from fakes.simulated_clock import SimulatedClock
from numpy.typing import NDArray
from rtk.bench import run as module
from rtk.bench.config import BenchConfig
from rtk.bench.measure.contenders import Contender
from rtk.bench.report.render import report_markdown, report_text
from rtk.bench.report.report import Report, read_report
from rtk.bench.report.tables import report_table
from rtk.bench.roofline import device_rates
from rtk.bench.roofline.roofline import DeviceRates, Operations
from rtk.core.data.datasets import Dataset, Split
from rtk.core.errors import ArtifactError, RtkError
from rtk.core.probe import probe_images
from rtk.infer.backend import Backend, BackendOptions, Resident
from rtk.infer.fake import FakeBackend

CONFIG = BenchConfig((4,), seconds=0.5, warm_up_s=0.05)


def dataset() -> Dataset:
    """Twelve images, labelled as the fake answers them."""
    reference = FakeBackend()
    images_NHWC = probe_images(12, reference.card.input)
    labels_N = reference(images_NHWC).argmax(axis=1)
    return Dataset("fake", reference.card.classes, lambda split: Split(images_NHWC, labels_N))


def measured(*backends: Backend, config: BenchConfig = CONFIG) -> Report:
    reference = FakeBackend(name="torch", delay_s=0.002)
    contenders = [Contender(one) for one in (reference, *backends)]
    return module.run(contenders, reference, dataset(), config, unusable={"trt": "trt: a.engine: not there"})


def test_a_backend_that_returns_early_has_no_figures_and_the_others_have_theirs() -> None:
    for _ in range(3):  # if the process stalls for the whole delay, the answer is ready before it is read
        report = measured(EarlyFake("reading", delay_s=0.02))
        synchronous, early = report.cells
        if early.rejected:
            break
    assert early.rejected.startswith("rejected: asynchronous result: ")
    assert not synchronous.rejected
    assert report.self_checked
    assert "the self-check for asynchronous results rejected early" in report_text(report, verbose=True)
    assert report_table(report)[1]["images/s"].startswith("rejected: asynchronous result")


def test_a_backend_that_fails_while_answers_are_compared_is_unusable() -> None:
    report = measured(FakeBackend(name="bad", fail_at_call=0))
    assert report.unusable == {"bad": "bad: failed on purpose at call 0", "trt": "trt: a.engine: not there"}
    assert [cell.backend for cell in report.cells] == ["torch"]


class OnGpu(FakeBackend):
    """A fake on a GPU, whose library runs out of memory where a test says so."""

    def __init__(self, *, largest: int = 1_000_000, largest_resident: int = 1_000_000) -> None:
        super().__init__(name="full")
        self.device, self.largest, self.largest_resident = "cuda:0", largest, largest_resident

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.check(len(images_NHWC), self.largest)
        return super()._run(images_NHWC)

    def _stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        return map(self._run, batches)

    def _resident(self, images_NHWC: NDArray[np.uint8]) -> Resident:
        check, largest = self.check, self.largest_resident

        class Images(Resident):
            def run(self, start: int, count: int) -> None:
                check(count, largest)

        return Images()

    @staticmethod
    def check(count: int, largest: int) -> None:
        """Fail as PyTorch does."""
        if count > largest:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 4 GiB")


@pytest.mark.parametrize(
    ("backend", "failed"),
    [
        (OnGpu(largest=20), {("sync", 64), ("stream", 64)}),
        (OnGpu(largest_resident=20), {("compute", 64)}),
    ],
)
def test_a_cell_that_runs_out_of_memory_fails_alone(
    backend: OnGpu, failed: set[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DeviceProbe", None)  # no graph is given, so it is not opened
    report = measured(backend, config=BenchConfig((4, 64), seconds=0.5, warm_up_s=0.01))
    cells = {(cell.scope, cell.batch): cell for cell in report.cells if cell.backend == "full"}
    assert set(cells) == {(scope, batch) for scope in ("compute", "sync", "stream") for batch in (4, 64)}
    assert {key for key, cell in cells.items() if not cell.rounds} == failed
    for key in failed:
        assert cells[key].error.split(";")[0] == (
            f"full: a batch of {'a stream' if key[0] == 'stream' else 64}: out of GPU memory (2 GiB requested)"
        )
    assert all(cell.rounds for cell in report.cells if cell.backend == "torch")
    shown = next(row for row in report_table(report) if (row["backend"], row["batch"]) == ("full", "64"))
    assert "failed: full: " in str(report_table(report))
    assert shown["backend"] == "full"
    assert "out of GPU memory" in " ".join(report_text(report).split())


def test_a_ceiling_that_cannot_be_measured_is_noted_and_the_cells_are_measured(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> list[object]:
        raise RuntimeError("CUDA out of memory. Tried to allocate 256.00 MiB.")

    reference = FakeBackend(name="torch")
    in_a_turn = [device_rates._Work("copy", 1.0, full)]
    for copies in (full, lambda device: in_a_turn):
        monkeypatch.setattr(device_rates, "_copies", copies)
        report = module.run([Contender(reference)], reference, dataset(), CONFIG, unusable={}, graph=graph_path)
        assert report.unusable["ceiling"].startswith("cpu: out of GPU memory (256 MiB requested)")
        assert [bool(cell.rounds) for cell in report.cells] == [True]
        assert not report.rates


def test_the_cells_of_a_graph_that_cannot_be_counted_are_measured_without_a_ceiling(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uncounted(graph: Path) -> Operations:
        raise ArtifactError(f"{graph.name}: the shape of 'a' is unknown, so the operations cannot be counted")

    monkeypatch.setattr(module, "operations_of", uncounted)
    reference = FakeBackend(name="torch")
    report = module.run([Contender(reference)], reference, dataset(), CONFIG, unusable={}, graph=graph_path)
    assert [bool(cell.rounds) for cell in report.cells] == [True]
    assert (report.graph, report.rates) == (None, [])
    text = " ".join(report_text(report).split())
    assert (
        f"ceiling: not run: {graph_path.name}: the shape of 'a' is unknown, so the operations cannot be counted" in text
    )


class FakeProbe:
    """Finds the same rates in every turn, a thousand times as high on a GPU."""

    rate = 1e9

    def __init__(self, device: str) -> None:
        self.device, self.error, self.turns = device, "", 0

    @classmethod
    def open(cls, device: str, precisions: tuple[str, ...]) -> "FakeProbe":
        return cls(device)

    def measure(self) -> None:
        self.turns += 1

    def rates(self) -> DeviceRates:
        rate = self.rate * (1 if self.device == "cpu" else 1000)
        return DeviceRates.of(self.device, {}, {"fp32": [rate] * self.turns, "copy": [1e12] * self.turns})


def test_the_rates_of_a_device_are_measured_in_turns_with_the_cells(
    graph_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SimulatedClock(late=0.1).use(monkeypatch)
    reference = FakeBackend(name="torch", delay_s=0.01)
    report = module.run([Contender(reference)], reference, dataset(), CONFIG, unusable={}, graph=graph_path)
    (rates,), (cell,) = report.rates, report.cells
    assert set(rates.turns) == {"fp32", "copy"}
    assert len(rates.turns["fp32"]) >= min(10, len(cell.rounds)) - 1
    assert rates.matrix_per_s["fp32"] == pytest.approx(np.median(rates.turns["fp32"]))
    low, high = rates.interval("fp32") or (0, 0)
    assert 0 < low <= rates.matrix_per_s["fp32"] <= high
    share = report.share(cell)
    assert share
    assert share.interval
    assert share.interval[0] <= share.value <= share.interval[1]
    assert share.value == pytest.approx(cell.images_per_s / report.ceiling(cell).images_per_s, rel=0.2)  # type: ignore[union-attr]
    again = read_report(write(report, graph_path.parent / "turns.json"))
    assert again.share(again.cells[0]).value == pytest.approx(share.value)  # type: ignore[union-attr]


def test_a_ceiling_that_a_cell_exceeds_is_called_wrong(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SimulatedClock(late=0.1).use(monkeypatch)
    monkeypatch.setattr(module, "DeviceProbe", FakeProbe)
    monkeypatch.setattr(FakeProbe, "rate", 1e5)
    reference = FakeBackend(name="torch", delay_s=0.01)
    report = module.run([Contender(reference)], reference, dataset(), CONFIG, unusable={}, graph=graph_path)
    assert re.fullmatch(r"[\d.]+% ±[\d.]+ wrong", report_table(report)[0]["of ceiling"])
    text = " ".join(report_text(report).split())
    assert "wrong ceiling: 1 measurement exceeds it by more than 10 %, torch, host, batch 4 reaches " in text
    assert json.loads(report.to_json())["cells"][0]["share_of_ceiling"]["wrong"] is True


def write(report: Report, path: Path) -> Path:
    path.write_text(report.to_json())
    return path


def test_each_ceiling_is_that_of_the_device_of_its_backend(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DeviceProbe", FakeProbe)
    monkeypatch.setattr(module, "this_moment", lambda device: None)
    reference, on_gpu = FakeBackend(name="torch"), FakeBackend(name="onnx")
    on_gpu.device = "cuda:0"
    contenders = [Contender(reference), Contender(on_gpu)]
    report = module.run(contenders, reference, dataset(), CONFIG, unusable={}, graph=graph_path)
    assert [one.device for one in report.rates] == ["cpu", "cuda:0"]
    ceilings = {cell.backend: report.ceiling(cell) for cell in report.cells}
    assert ceilings["torch"]
    assert ceilings["onnx"]
    assert ceilings["onnx"].images_per_s == pytest.approx(1000 * ceilings["torch"].images_per_s, rel=0.3)
    for schema in ("rtk-bench-2", "rtk-bench-3"):  # these judged all backends by one device
        content = json.loads(report.to_json()) | {"schema": schema, "rates": dataclasses.asdict(report.rates[1])}
        del content["rates"]["turns"]
        del content["devices"], content["verdicts"]
        (path := graph_path.parent / f"{schema}.json").write_text(json.dumps(content))
        assert {cell.backend: read_report(path).ceiling(cell) for cell in report.cells}["torch"] == ceilings["onnx"]


def test_debug_shows_the_traceback_of_an_error_that_the_report_only_notes(capsys: pytest.CaptureFixture[str]) -> None:
    from rtk.cli.options import log_to_stderr

    log_to_stderr(debug=True)
    try:
        measured(FakeBackend(name="bad", fail_at_call=0, failure=RuntimeError("a mistake")))
    finally:
        log_to_stderr()
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "RuntimeError: a mistake" in printed
    measured(FakeBackend(name="bad", fail_at_call=0, failure=RuntimeError("a mistake")))
    assert "Traceback" not in capsys.readouterr().err


def test_backends_that_cannot_run_for_the_same_reason_share_a_line() -> None:
    report = measured(FakeBackend(name="other"))
    report.unusable["trt int8"] = report.unusable["trt"]
    report.unusable["openvino"] = "openvino is not installed: pip install openvino"
    lines = report_text(report).splitlines()
    assert "  trt, trt int8: not run: a.engine: not there" in lines
    assert "  openvino: not run: openvino is not installed: pip install openvino" in lines


def test_ctrl_c_while_measuring_leaves_a_report_of_the_cells_so_far() -> None:
    class Interrupting(FakeBackend):
        def _run(self, images_NHWC):  # type: ignore[no-untyped-def]
            if self.calls == 700:  # the answers take about 550 calls
                raise KeyboardInterrupt
            return super()._run(images_NHWC)

    config = BenchConfig((4,), seconds=5, warm_up_s=0.05)
    report = measured(Interrupting(name="other", delay_s=0.002), config=config)
    assert report.interrupted
    assert report.cells
    assert report.parity[1].agreeing == 12
    assert "stopped by Ctrl-C" in report_markdown(report)


def test_ctrl_c_while_answers_are_compared_leaves_a_report_without_cells() -> None:
    class Interrupting(FakeBackend):
        def _run(self, images_NHWC):  # type: ignore[no-untyped-def]
            raise KeyboardInterrupt

    report = measured(Interrupting(name="other"))
    assert report.interrupted
    assert [one.candidate for one in report.parity] == ["torch"]
    assert not report.cells


@pytest.mark.usefixtures("without_self_check")
def test_a_preset_prints_its_figure_for_every_backend() -> None:
    config = BenchConfig.from_preset("mlperf-singlestream", batches=None, seconds=0.3)
    report = measured(FakeBackend(name="other", delay_s=0.002), config=config)
    assert [cell.batch for cell in report.cells] == [1, 1]
    lines = report_text(report).partition("\n\nWhat did not run")[0].splitlines()[-2:]
    assert lines[0].startswith("  torch, batch 1, host: ")
    assert lines[0].endswith(" ms (p90)")


def test_the_plain_loop_answers_as_the_model_does(checkpoint_path: Path) -> None:
    from rtk.bench.baselines.inference import PlainLoop
    from rtk.infer.torch_backend import TorchBackend

    options = BackendOptions(device="cpu")
    plain, reference = PlainLoop(checkpoint_path, options), TorchBackend(checkpoint_path, options)
    images_NHWC = probe_images(6, reference.card.input)
    np.testing.assert_allclose(plain(images_NHWC), reference(images_NHWC), atol=1e-4)


def test_without_a_compiler_torch_compile_says_so(checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtk.bench.baselines import inference as inference_baselines

    monkeypatch.setattr(inference_baselines.shutil, "which", lambda name: None)
    with pytest.raises(RtkError, match=r"torch.compile: needs a C\+\+ compiler on a CPU"):
        inference_baselines.CompiledTorch(checkpoint_path, BackendOptions(device="cpu"))
