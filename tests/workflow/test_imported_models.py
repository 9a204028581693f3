"""What an imported graph is worth: it is the reference of its precisions and engines, and faults in them are found."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fakes.foreign_graphs import CLASSES, PREPROCESSING, SIZE, export, fitted
from fakes.parity_network import TEST_IMAGES, patterns, patterns_dataset
from fakes.tensorrt_stand_in import Stage, staged
from onnx import TensorProto, numpy_helper
from rtk.bench.report.html import page_of
from rtk.bench.report.render import report_markdown
from rtk.bench.report.report import read_report
from rtk.cli.app import export as command
from rtk.core.artifacts.engine import read_engine_info
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.card import IMPORTED
from rtk.core.errors import ArtifactError, BackendError, ParityError, UsageError
from rtk.core.nvidia.flavor import FLAVORS
from rtk.export.config import EngineConfig
from rtk.export.half_graph import half_graph, rounded_results
from rtk.export.reduced_precision import HALVES, rounded_after_every_layer
from rtk.export.trt.build import engine_from_onnx
from rtk.infer.backend import BackendOptions
from rtk.infer.onnx_backend import session_settings
from rtk.workflow import export_model
from rtk.workflow.import_graph import import_graph
from rtk.workflow.models import find_model, find_reference
from rtk.workflow.select import open_model

IMAGES = patterns(300, seed=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both networks, imported from opset 17 and batches of 1."""
    folder = tmp_path_factory.mktemp("imported")
    return {
        kind: import_graph(
            export(fitted(kind), folder / f"{kind}.onnx"),
            classes=CLASSES,
            preprocessing=PREPROCESSING,
            size=SIZE,
            out=folder / "in",
        ).path
        for kind in ("conv", "attention")
    }


@pytest.fixture
def rtk(made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run rtk export on a copy of an imported graph, with the patterns as its data set; return the folder."""
    monkeypatch.setattr(export_model, "dataset_of", lambda card, name=None, data_dir=None: patterns_dataset())

    def run(kind: str, **options: Any) -> Path:
        shutil.copy(made[kind], tmp_path / f"{kind}.onnx")
        command.export([str(tmp_path / f"{kind}.onnx")], **options)
        return tmp_path

    return run


def changed_weight(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Set a quarter of the largest weight of the network to zero."""
    tensor = max(graph.graph.initializer, key=lambda one: int(np.prod(one.dims)))
    values = numpy_helper.to_array(tensor).copy()
    values[: max(1, len(values) // 4)] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return graph


# The gate.


def test_an_imported_graph_is_its_own_reference_and_passes(
    rtk: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = rtk("conv", require_parity="default")
    assert "onnx (fp32): parity (" in capsys.readouterr().out
    path = folder / "conv.onnx"
    assert find_reference(find_model(str(path))) == path


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_its_precisions_pass_the_gate_and_say_what_they_are(
    rtk: Callable[..., Path], kind: str, precision: str
) -> None:
    folder = rtk(kind, precision=precision, require_parity="default")
    graph, card = load_graph(folder / f"{kind}.{precision}.onnx")
    original = load_graph(folder / f"{kind}.onnx")[1]
    assert (card.precision, card.checkpoint_sha256) == (precision, original.checkpoint_sha256)
    assert card.notes[IMPORTED] == original.notes[IMPORTED]
    assert card.notes["parity"]["images"] == TEST_IMAGES
    assert find_reference(find_model(str(folder / f"{kind}.{precision}.onnx"))) == folder / f"{kind}.onnx"
    assert graph.ir_version <= 10
    if precision != "int8":
        types = {one.data_type for one in graph.graph.initializer if one.name.startswith("net.") and len(one.dims) > 1}
        assert types == {HALVES[precision].onnx_type}
        pixels = {one.data_type for one in graph.graph.initializer if one.name.startswith("rtk.preprocessing")}
        assert pixels == {TensorProto.FLOAT}


def test_a_fault_planted_after_the_import_is_refused_in_every_place(
    made: dict[str, Path], tmp_path: Path, rtk: Callable[..., Path]
) -> None:
    folder = rtk("conv", precision="fp16")
    for name in ("conv.fp16.onnx", "conv.onnx"):
        (folder / f"bad-{name}").write_bytes(changed_weight(load_graph(folder / name)[0]).SerializeToString())
        with pytest.raises(ParityError, match="no parity with the reference in"):
            command.export([str(folder / f"bad-{name}")], require_parity="default")
    shutil.copy(folder / "bad-conv.onnx", folder / "conv.onnx")  # now the imported graph itself is another one
    (folder / "bad-conv.onnx").unlink()
    with pytest.raises(
        ArtifactError, match=r"conv\.onnx: the imported graph .* is not beside it, or has changed since"
    ):
        command.export([str(folder / "conv.onnx")], require_parity="default")


def test_a_note_in_the_card_does_not_change_what_a_graph_is(made: dict[str, Path], tmp_path: Path) -> None:
    graph, card = load_graph(made["conv"])
    set_card(graph, replace(card, temperature=2.0, notes={**card.notes, "more": 1}))
    path = tmp_path / "conv.onnx"
    path.write_bytes(graph.SerializeToString())
    assert find_reference(find_model(str(path))) == path


def test_the_reference_is_found_beside_a_file_and_by_name_alone(made: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(made["conv"], tmp_path / "alone.onnx")
    graph, card = load_graph(made["conv"])
    set_card(graph, replace(card, precision="fp16"))
    lonely = tmp_path / "elsewhere" / "conv.fp16.onnx"
    lonely.parent.mkdir()
    lonely.write_bytes(graph.SerializeToString())
    with pytest.raises(ArtifactError, match="is not beside it, or has changed since its import; name it with"):
        find_reference(find_model(str(lonely)))
    found = find_reference(find_model(str(lonely)), explicit=tmp_path / "alone.onnx")
    assert found == tmp_path / "alone.onnx"
    with pytest.raises(ArtifactError, match="--reference: is not the graph that .* was imported as"):
        find_reference(find_model(str(lonely)), explicit=made["attention"])


# Other commands.


def test_torch_says_that_there_is_no_network(made: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match="imported as a graph, so there is no network for PyTorch; use onnx"):
        open_model(str(made["conv"]), backend="torch")


def test_it_runs_on_onnx_and_openvino_with_the_same_answers(made: dict[str, Path]) -> None:
    logits = []
    for name in ("onnx", "openvino"):
        with open_model(str(made["attention"]), backend=name, options=BackendOptions(device="cpu")) as backend:
            logits.append(backend(IMAGES.images_NHWC))
    assert np.abs(logits[0] - logits[1]).max() < 1e-4
    assert (logits[0].argmax(axis=1) == IMAGES.labels_N).mean() > 0.9


@pytest.mark.usefixtures("without_self_check")
def test_bench_compares_with_the_imported_graph_and_leaves_pytorch_out(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., tuple[str, str]]
) -> None:
    monkeypatch.setattr("rtk.workflow.model_data.dataset_of", lambda *_, **__: patterns_dataset())
    words = ["--batch", "8", "--seconds", "0.2", "--device", "cpu", "--backend", "onnx", "--precision", "fp16"]
    printed, _ = command_line("bench", str(made["conv"]), *words, "--report", "report", "--require-parity", "default")
    report = read_report(tmp_path / "report")
    assert {verdict.candidate for verdict in report.verdicts} == {"onnx fp16", "rounded fp16"}
    assert all(verdict.passed for verdict in report.verdicts)
    words_of_reference = "against the imported graph in ONNX Runtime, fp32"
    for text in (" ".join(printed.split()), page_of(report), report_markdown(report)):
        assert words_of_reference in text
        assert "PyTorch fp32" not in text


def test_export_refuses_what_a_graph_does_not_have(made: dict[str, Path], rtk: Callable[..., Path]) -> None:
    for options, message in (
        ({"precision": "fp16", "explain": True}, "--explain: only for --precision int8"),
        ({"precision": "fp16", "opset": 20}, "--opset: a graph keeps its opset"),
        ({}, "is a graph already"),
    ):
        with pytest.raises(UsageError, match=message):
            rtk("conv", **options)


@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_explain_lists_what_int8_costs_in_each_layer(
    rtk: Callable[..., Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = rtk(kind, precision="int8", explain=True)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert len(rows) > 2
    assert {row[1] for row in rows} <= {"Conv", "Gemm", "MatMul"}
    errors = [float(row[2].rstrip("%")) for row in rows]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[0] < 20
    assert [one.name for one in folder.iterdir()] == [f"{kind}.onnx"]
    without = rtk(kind, precision="int8", keep_fp32=[rows[0][0]])
    assert load_graph(without / f"{kind}.int8.onnx")[1].precision == "int8"


def test_a_triton_repository_takes_it(rtk: Callable[..., Path], tmp_path: Path) -> None:
    rtk("conv", triton=tmp_path / "models")
    assert (tmp_path / "models" / "conv" / "1" / "model.onnx").is_file()
    assert "onnx conv.onnx, fp32" in (tmp_path / "models" / "conv" / "config.pbtxt").read_text()


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for stage in staged(monkeypatch):
        stage.libcuda()
        yield stage


@pytest.mark.skipif(not FLAVORS["tensorrt-rtx"].installed, reason="needs the package tensorrt-rtx")
@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_tensorrt_rtx_builds_engines_of_it(made: dict[str, Path], tmp_path: Path, kind: str) -> None:
    config = EngineConfig(made[kind], out=tmp_path, flavor="tensorrt-rtx", targets=("8.9",), max_batch=8, cache=False)
    info = engine_from_onnx(config).info
    assert info.card.notes[IMPORTED]["file"] == f"{kind}.onnx"
    assert set(info.precision.products) == {"fp32"}


@pytest.mark.skipif(not FLAVORS["tensorrt-rtx"].installed, reason="needs the package tensorrt-rtx")
@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize(("kind", "precision"), [("conv", "int8"), ("attention", "fp16"), ("attention", "bf16")])
def test_one_command_converts_it_and_builds_an_engine_in_that_precision(
    rtk: Callable[..., Path], kind: str, precision: str
) -> None:
    folder = rtk(kind, precision=precision, trt=True, flavor="tensorrt-rtx", target=["8.9"], max_batch=8, cache=False)
    info = read_engine_info(folder / f"{kind}.{precision}.engine")
    assert info.card.precision == precision
    assert info.precision.products[precision] >= 2
    assert find_reference(find_model(str(folder / f"{kind}.{precision}.engine"))) == folder / f"{kind}.onnx"


def test_on_a_gpu_only_imported_graphs_may_compute_shapes_on_the_cpu() -> None:
    key = "session.disable_cpu_ep_fallback"
    strict, lenient = (session_settings("cuda", BackendOptions(), shapes_on_cpu=one) for one in (False, True))
    assert strict.get_session_config_entry(key) == "1"
    with pytest.raises(RuntimeError):
        lenient.get_session_config_entry(key)


# The conversion.


def test_operators_that_take_no_16_bits_stay_in_fp32(made: dict[str, Path]) -> None:
    """The scales of a Resize are float32 in every graph."""
    graph, _ = load_graph(made["conv"])
    first = next(node for node in graph.graph.node if node.name.startswith("net."))
    graph.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "net.scales"))
    resize = onnx.helper.make_node("Resize", [first.output[0], "", "net.scales"], ["net.resized"], name="net.resize")
    for node in graph.graph.node:
        node.input[:] = ["net.resized" if name == first.output[0] else name for name in node.input]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.graph.node]
    nodes.insert(nodes.index(first) + 1, resize)
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    converted = half_graph(graph, HALVES["fp16"], precision="fp16")
    types = {one.name: one.data_type for one in converted.graph.initializer}
    assert types["net.scales"] == TensorProto.FLOAT


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_the_yardstick_is_as_far_off_as_the_graph_that_it_judges(
    made: dict[str, Path], run_in_onnxruntime: Callable[..., Any], kind: str, precision: str
) -> None:
    graph, _ = load_graph(made[kind])
    half = HALVES[precision]
    exact_NK = run_in_onnxruntime(graph.SerializeToString(), IMAGES.images_NHWC)
    judged = rounded_after_every_layer(half_graph(graph, half, precision=precision), half)
    errors = [
        np.sqrt(np.mean((run_in_onnxruntime(one.SerializeToString(), IMAGES.images_NHWC) - exact_NK) ** 2))
        for one in (judged, rounded_results(graph, half))
    ]
    assert 0 < errors[0] < 2 * errors[1]
    assert errors[1] < 2 * errors[0]
