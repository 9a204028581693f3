"""The parity gate of an export: an artifact that passes gets a note in its card, one that fails leaves no file."""

import copy
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fakes.parity_network import TEST_IMAGES, fitted_checkpoint, patterns_dataset
from onnx import numpy_helper
from rtk.bench.parity.compare import Parity
from rtk.bench.parity.trials import some_of
from rtk.bench.parity.verdict import Requirement, Verdict, judge
from rtk.cli.app import export as command
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.artifacts.engine import read_engine_info
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.card import ModelCard
from rtk.core.errors import DataError, InconclusiveError, ParityError, UsageError
from rtk.tools.planted_faults import faulty, overflowing_above
from rtk.workflow import export_model, parity_gate
from rtk.workflow.parity_gate import Gate


@pytest.fixture(scope="module")
def checkpoint(card: ModelCard, randomise: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    fitted = fitted_checkpoint(card, randomise)
    path = tmp_path_factory.mktemp("gate") / "fitted.pt"
    save_checkpoint(path, replace(fitted.card, checkpoint_sha256=""), fitted.weights)
    return path


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run rtk export --require-parity on the fitted network and the patterns; return its folder."""
    monkeypatch.setattr(export_model, "dataset_of", lambda card, name=None, data_dir=None: patterns_dataset())
    shutil.copy(checkpoint, tmp_path / "fitted.pt")

    def export(**options: Any) -> Path:
        command.export([str(tmp_path / "fitted.pt")], **{"require_parity": "default", **options})
        return tmp_path

    return export


def parity_of(graph: Path) -> dict[str, Any]:
    note: dict[str, Any] = load_graph(graph)[1].notes["parity"]
    return note


def test_the_card_of_a_graph_that_passes_has_its_parity(run: Callable[..., Path]) -> None:
    folder = run()
    note = parity_of(folder / "fitted.onnx")
    assert (note["images"], note["agreeing"], note["unchecked"]) == (TEST_IMAGES, TEST_IMAGES, [])
    assert note["right"] == note["reference_right"] > 0.95 * TEST_IMAGES
    loaded, _ = load_graph(folder / "fitted.onnx")
    del loaded.metadata_props[:]  # it holds nothing but the card
    assert note["measured_sha256"] == hashlib.sha256(loaded.SerializeToString(deterministic=True)).hexdigest()
    assert "ONNX Runtime" in note["ran_on"]
    assert sorted(path.name for path in folder.iterdir()) == ["fitted.onnx", "fitted.pt"]


def test_the_card_says_that_arithmetic_without_a_backend_is_unchecked(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.workflow.parity_gate._openvino_computes_in", lambda precision: False)
    note = parity_of(run(precision="bf16") / "fitted.bf16.onnx")
    assert "rounded to bf16" in note["ran_on"]
    assert note["unchecked"] == ["arithmetic in bf16 itself: the hardware's order of sums"]
    assert note["agreeing"] >= 0.99 * TEST_IMAGES


def test_an_fp16_graph_that_overflows_for_some_images_is_refused_on_every_processor(
    checkpoint: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor that computes fp16 graphs in fp32 hides the overflow; the rounded graph does not."""
    path = run(precision="fp16") / "fitted.fp16.onnx"
    brightest = float(patterns_dataset().split("test").images_NHWC.mean(axis=(1, 2, 3)).max())
    onnx.save(faulty(onnx.load(path), overflowing_above(brightest - 1e-3)), path)
    gate = Gate(checkpoint, patterns_dataset(), Requirement())
    for computes in (True, False):
        monkeypatch.setattr(parity_gate, "_openvino_computes_in", lambda precision, computes=computes: computes)
        with pytest.raises(
            ParityError, match=r"^rounded: no parity with the reference in fp16: every image answered .*, 1 "
        ):
            gate.judge_graph(path, add_note=False)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_graph_in_16_bits_is_judged_rounded_and_on_a_processor_that_computes_in_it(
    checkpoint: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    path = run(precision=precision) / f"fitted.{precision}.onnx"
    judged: list[str] = []

    def noted(parity: Parity, **options: Any) -> Verdict:
        judged.append(parity.candidate)
        return judge(parity, **options)

    monkeypatch.setattr(parity_gate, "judge", noted)
    gate = Gate(checkpoint, patterns_dataset(), Requirement())
    for computes, expected in ((True, ["rounded", "openvino"]), (False, ["rounded"])):
        monkeypatch.setattr(parity_gate, "_openvino_computes_in", lambda name, computes=computes: computes)
        judged.clear()
        gate.judge_graph(path, add_note=False)
        assert judged == expected


def test_an_int8_graph_for_openvino_is_judged_on_openvino_or_the_card_says_that_it_was_not(
    checkpoint: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    options: dict[str, Any] = {"precision": "int8", "int8_flavor": "openvino", "int8_method": "minmax"}
    options |= {"int8_weight_bits": "7"}  # which no processor refuses
    note = parity_of(run(require_parity="1", **options) / "fitted.int8.onnx")
    assert note["ran_on"].startswith("OpenVINO")
    assert note["unchecked"] == []
    monkeypatch.setattr(parity_gate, "find_spec", lambda name: None)
    note = parity_of(run(require_parity="1", **options) / "fitted.int8.onnx")
    assert note["ran_on"].startswith("ONNX Runtime")
    assert note["unchecked"] == ["integer kernels of OpenVINO"]


def test_a_graph_whose_card_has_other_classes_is_refused(checkpoint: Path, run: Callable[..., Path]) -> None:
    path = run() / "fitted.onnx"
    graph, card = load_graph(path)
    set_card(graph, replace(card, classes=(*card.classes[1:], card.classes[0])))
    onnx.save(graph, path)
    with pytest.raises(ParityError, match="the reference's card: its card has other classes"):
        Gate(checkpoint, patterns_dataset(), Requirement()).judge_graph(path, add_note=False)


def test_the_json_of_an_engine_says_that_this_machine_cannot_run_it(run: Callable[..., Path]) -> None:
    folder = run(trt=True, flavor="tensorrt-rtx", target=["8.9"])
    notes = read_engine_info(folder / "fitted.engine").card.notes
    assert notes["graph_parity"]["agreeing"] == TEST_IMAGES
    assert "agreeing" not in notes["parity"]
    (unchecked,) = notes["parity"]["unchecked"]
    assert unchecked.startswith("the engine itself: trt: ")
    assert sorted(path.name for path in folder.iterdir()) == [
        "fitted.engine", "fitted.engine.json", "fitted.onnx", "fitted.pt",
    ]  # fmt: skip


def test_an_export_that_fails_leaves_no_file_and_keeps_the_old_one(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fitted.onnx").write_bytes(b"the old one")
    with pytest.raises(InconclusiveError, match=r"inconclusive in fp32: .* 8,000 images cannot show so small a loss"):
        run(require_parity="0.01", force=True)  # 8,000 images cannot show so small a margin
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fitted.onnx", "fitted.pt"]
    assert (tmp_path / "fitted.onnx").read_bytes() == b"the old one"


def test_the_error_for_a_faulty_graph_has_the_numbers(checkpoint: Path, run: Callable[..., Path]) -> None:
    path = run() / "fitted.onnx"
    graph = onnx.load(path)
    dense = next(tensor for tensor in graph.graph.initializer if tensor.name.endswith("dense.weight"))
    dense.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(dense) * np.float32(1.5), dense.name))
    path.write_bytes(graph.SerializeToString())
    gate = Gate(checkpoint, patterns_dataset(), Requirement())
    with pytest.raises(
        ParityError, match=r"onnx: no parity with the reference in fp32: within fp32 tolerance: relative"
    ):
        gate.judge_graph(path, add_note=True)


def test_a_data_set_with_other_classes_is_refused(checkpoint: Path) -> None:
    other = replace(patterns_dataset(), classes=tuple(reversed(patterns_dataset().classes)))
    with pytest.raises(DataError, match="its classes are not the model's"):
        Gate(checkpoint, other, Requirement())


def test_the_gate_measures_the_rounding_of_its_reference(
    checkpoint: Path, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = run() / "fitted.onnx"
    seen: list[Parity] = []
    monkeypatch.setattr(parity_gate, "judge", lambda parity, **options: seen.append(parity) or judge(parity, **options))
    Gate(checkpoint, patterns_dataset(), Requirement()).judge_graph(graph, add_note=False)
    images = patterns_dataset().split("test").images_NHWC[some_of(TEST_IMAGES)[:64]]
    model = load_checkpoint(checkpoint).model()
    with torch.inference_mode():
        rounded_NK, exact_NK = (one(torch.from_numpy(images)).numpy() for one in (model, copy.deepcopy(model).double()))
    assert seen[0].rounding == pytest.approx(np.abs(rounded_NK - exact_NK).max(), rel=0.5)  # another order of sums
    assert 0 < seen[0].rounding < 1e-4


def test_explain_and_require_parity_exclude_each_other(run: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="--explain writes no file that --require-parity could judge"):
        run(precision="int8", explain=True)
