"""The comparison of int8 graphs: its figures, its tables, and what is missing."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from fakes.parity_network import fitted_checkpoint, patterns, patterns_dataset
from rtk.bench.measure.cell import Cell
from rtk.core.card import ModelCard
from rtk.core.errors import UsageError
from rtk.core.machine import this_machine
from rtk.core.zoo import zoo_names
from rtk.export import config
from rtk.export.config import Int8Flavor
from rtk.export.to_onnx import graph_from_checkpoint
from rtk.tools import int8_graphs, int8_table
from rtk.tools.int8_record import RECORDS, Answers, Record, Timed, int8_block, read_record
from rtk.tools.readme_tables import block_in

VNNI = ("avx2", "avx512_vnni")


def on_processor(monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...]) -> None:
    """Let weights be quantised as for an x86 processor with these features."""
    machine = replace(this_machine(), system="Linux x86_64", features=features)
    monkeypatch.setattr(config, "this_machine", lambda: machine)


def test_graphs_are_compared_and_then_timed(
    card: ModelCard, randomise: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_graphs, "PLAIN", ("MinMax",))
    monkeypatch.setattr(int8_graphs, "find_spec", lambda name: None)  # no NNCF
    checkpoint = fitted_checkpoint(card, randomise)
    splits = {"train": patterns(2_500, seed=1), "test": patterns(300, seed=2)}
    dataset = replace(patterns_dataset(), read=lambda split: splits[split])
    with pytest.raises(UsageError, match=r"fitted\.json: no such file; find the answers first, with --part answers"):
        int8_table.compare("fitted", checkpoint, dataset, tmp_path, part="speed", seconds=0.1)
    path = int8_table.compare("fitted", checkpoint, dataset, tmp_path, part="answers", seconds=0.1)
    record = read_record(path)
    plain = "ONNX Runtime MinMax"
    assert [(one.graph, one.runtime) for one in record.answers] == [
        ("rtk tensorrt", "as written"),
        ("rtk cpu", "onnx"),
        ("rtk cpu", "openvino"),
        ("rtk openvino", "onnx"),
        ("rtk openvino", "openvino"),
        (plain, "onnx"),
        (plain, "openvino"),
        (plain, "as written"),
    ]
    assert record.images == 300
    assert min(one.same for one in record.answers) > 280
    errors = {(one.graph, one.runtime): one.relative_error for one in record.answers}
    assert errors["rtk cpu", "onnx"] < errors[plain, "onnx"]
    assert errors["rtk openvino", "openvino"] < errors[plain, "openvino"]
    assert errors["rtk tensorrt", "as written"] < errors[plain, "as written"]
    assert record.timed == []

    int8_table.compare("fitted", checkpoint, dataset, tmp_path, part="speed", seconds=0.1)
    timed = read_record(path)
    assert timed.answers == record.answers
    assert [(one.runtime, [cell.backend for cell in one.cells]) for one in timed.timed] == [
        (runtime, ["rtk cpu", "rtk openvino", plain]) for runtime in ("onnx", "openvino")
    ]
    assert all(cell.valid for one in timed.timed for cell in one.cells)
    assert "load average" in timed.timed_on


def test_the_tables_have_a_ratio_with_its_interval_once_graphs_are_timed(tmp_path: Path) -> None:
    answers = [
        Answers("rtk cpu", "onnx", 9_281, 9_950, 0.0187),
        Answers("ONNX Runtime MinMax", "onnx", 9_291, 9_921, 0.0281),
        Answers("rtk tensorrt", "as written", 9_298, 9_918, 0.0279),
    ]
    record = Record("small", 10_000, 9_278, "a machine", {}, answers)
    record.write(tmp_path)
    untimed = int8_block(tmp_path)
    assert "| rtk cpu | 9,281 | 9,950 | 1.87% |\n" in untimed
    assert "speed" not in untimed.lower()
    assert "For TensorRT, computed in fp32 arithmetic" in untimed
    rounds = {"rtk cpu": [[0.1]] * 16, "ONNX Runtime MinMax": [[0.2]] * 16}
    cells = [Cell(name, 64, "int8", rounds=times) for name, times in rounds.items()]
    record.timed, record.timed_on = [Timed("onnx", cells)], "quietly"
    record.write(tmp_path)
    timed = int8_block(tmp_path)
    assert "| rtk cpu | 9,281 | 9,950 | 1.87% | 2.00 (2.00 to 2.00) |\n" in timed
    assert "| ONNX Runtime MinMax | 9,291 | 9,921 | 2.81% | 1 |" in timed
    assert "| rtk tensorrt | 9,298 | 9,918 | 2.79% |" in timed
    assert timed.endswith("Speed: quietly.")


def test_the_table_says_how_to_get_nncf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(int8_table, "find_spec", lambda name: None)
    monkeypatch.setattr(int8_table, "compare", lambda name, *arguments, **options: name)
    monkeypatch.setattr(int8_table, "open_dataset", lambda name: None)
    monkeypatch.setattr(int8_table, "fill_pages", lambda root, blocks: {})
    int8_table.int8_table(model=None, part="answers", folder=tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "NNCF is not installed, its row is left out; to have it: pip install nncf",
        *zoo_names(),
    ]


@pytest.mark.parametrize(("features", "options"), [(("avx2",), {"advanced_parameters": "no overflow"}), (VNNI, {})])
def test_nncf_gets_a_copy_of_the_graph_and_every_image_by_itself(
    card: ModelCard,
    randomise: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    features: tuple[str, ...],
    options: dict[str, str],
) -> None:
    """NNCF is optional, so a stand-in takes its place."""
    given: list[onnx.ModelProto] = []
    shapes: list[tuple[int, ...]] = []

    def quantize(
        graph: onnx.ModelProto, data: list[dict[str, Any]], *, subset_size: int, **more: Any
    ) -> onnx.ModelProto:
        given.append(graph)
        shapes.extend(one["images"].shape for one in data)
        assert subset_size == len(data)
        assert more == options
        del graph.graph.node[:]
        return graph

    stand_in = SimpleNamespace(
        quantize=quantize,
        Dataset=lambda images, transform: [transform(one) for one in images],
        OverflowFix=SimpleNamespace(ENABLE="no overflow"),
        AdvancedQuantizationParameters=lambda overflow_fix: overflow_fix,
    )
    monkeypatch.setitem(sys.modules, "nncf", stand_in)
    on_processor(monkeypatch, features)
    graph = graph_from_checkpoint(fitted_checkpoint(card, randomise))
    made = int8_graphs._by_nncf(graph, patterns(20, seed=1).images_NHWC, "", "cpu")
    assert given == [made]
    assert shapes == [(1, 16, 16, 3)] * 20
    assert graph.graph.node, "NNCF changes the graph that it gets"


@pytest.mark.parametrize(
    ("features", "target", "bits"), [(("avx2",), "cpu", 7), (VNNI, "cpu", 8), (("avx2",), "tensorrt", 8)]
)
def test_the_quantiser_of_onnxruntime_writes_weights_that_do_not_overflow_here(
    card: ModelCard,
    randomise: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    features: tuple[str, ...],
    target: Int8Flavor,
    bits: int,
) -> None:
    on_processor(monkeypatch, features)
    graph = graph_from_checkpoint(fitted_checkpoint(card, randomise))
    made = int8_graphs.by_onnxruntime(graph, patterns(200, seed=1).images_NHWC, "MinMax", target)
    weights = [onnx.numpy_helper.to_array(one) for one in made.graph.initializer if one.name.endswith("_quantized")]
    largest = max(np.abs(one.astype(np.int64)).max() for one in weights if one.dtype == np.int8)
    assert largest == {7: 64, 8: 127}[bits]  # two products of 255 x 64 fit into 16 bits


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(UsageError, match="--part both: expected one of all, answers, speed, table"):
        int8_table.int8_table(part="both")


def test_the_int8_tables_of_the_docs_are_those_of_the_records() -> None:
    page = Path(int8_table.__file__).parent.parent / "docs" / "int8.md"
    assert block_in(page.read_text(encoding="utf-8"), "int8") == int8_block()


@pytest.mark.parametrize("model", zoo_names())
def test_rtk_changes_no_more_answers_than_the_best_other_program(model: str) -> None:
    record = read_record(RECORDS / f"{model}.json")
    for runtime, ours in (("onnx", "rtk cpu"), ("openvino", "rtk openvino"), ("as written", "rtk tensorrt")):
        same = {one.graph: one.same for one in record.answers if one.runtime == runtime}
        assert same[ours] >= max(count for graph, count in same.items() if not graph.startswith("rtk"))
