"""A whole benchmark with fakes: backends that fail or return early, and the report after Ctrl-C."""

from pathlib import Path

import numpy as np
import pytest
from fakes.early_backend import EarlyFake
from rtk.bench import run as module
from rtk.bench.config import BenchConfig
from rtk.bench.measure.contenders import Contender
from rtk.bench.report.render import report_markdown, report_text
from rtk.bench.report.report import Report
from rtk.bench.report.tables import report_table
from rtk.core.data.datasets import Dataset, Split
from rtk.core.errors import RtkError
from rtk.core.probe import probe_images
from rtk.infer.backend import Backend, BackendOptions
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
            if self.calls == 40:
                raise KeyboardInterrupt
            return super()._run(images_NHWC)

    config = BenchConfig((4,), seconds=5, warm_up_s=0.05)
    report = measured(Interrupting(name="other", delay_s=0.005), config=config)
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


def test_a_preset_prints_its_figure_for_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "early_return", lambda backend, batches: "")  # a busy machine may fail the self-check
    config = BenchConfig.from_preset("mlperf-singlestream", batches=None, seconds=0.3)
    report = measured(FakeBackend(name="other", delay_s=0.002), config=config)
    assert [cell.batch for cell in report.cells] == [1, 1]
    lines = report_text(report).splitlines()[-2:]
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
