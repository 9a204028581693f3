"""The options of ONNX Runtime's CUDA provider, which follow from the precision in the graph's card."""

import json
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import onnx
import pytest
from fakes.cuda_session import CudaSession
from onnx import TensorProto, helper
from rtk.core.artifacts.graph_card import ARITHMETIC_KEY, CARD_KEY, GraphArithmetic, arithmetic_of, metadata_of
from rtk.core.card import ModelCard
from rtk.core.errors import BackendError
from rtk.core.tolerances import PRECISIONS
from rtk.export.reduced_precision import HALVES, rounded_after_every_layer
from rtk.infer.backend import BackendOptions
from rtk.infer.cuda_options import BY_PRECISION, HEURISTIC, cuda_options
from rtk.infer.onnx_backend import open_session
from rtk.tools.gpu_results import RECORDS

PLAIN = {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def graph_of(precision: str | None, card: ModelCard, *, weights: int = 100_000) -> onnx.ModelProto:
    """A graph of one node, whose card has that precision; None: without a card."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [weights]) for name in ("images", "logits")]
    constant = helper.make_tensor("w", TensorProto.FLOAT, [weights], bytes(4 * weights), raw=True)
    node = helper.make_node("Add", ["images", "w"], ["logits"])
    graph = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [constant]), producer_name="p")
    if precision is not None:
        graph.metadata_props.add(key=CARD_KEY, value=replace(card, precision=precision).to_json())
    return graph


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("fp32", PLAIN),
        ("fp16", PLAIN | {"prefer_nhwc": "1", "use_tf32": "1"}),
        ("bf16", PLAIN | {"use_tf32": "1"}),
        ("int8", PLAIN),
        (None, PLAIN),  # a graph of another program
    ],
)
def test_the_options_follow_from_the_precision(
    precision: str | None, options: dict[str, str], card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = CudaSession().use(monkeypatch)
    with pytest.raises(BackendError, match="not here"):
        open_session(graph_of(precision, card).SerializeToString(), BackendOptions(device="cuda"))
    assert session.arguments["providers"] == [("CUDAExecutionProvider", options)]
    assert session.entries["disable_quant_qdq"] == "1"  # no integer kernels: the int8 graph runs as it is written


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nothing_in_fp32_is_computed_in_tf32(precision: str, card: ModelCard) -> None:
    """Neither the pixels that are whitened before the network, nor a graph's copy that rounds after every layer."""
    half = replace(card, precision=precision)
    whitened = replace(half, preprocessing=replace(card.preprocessing, whitening=True, image_mean=True))
    content = graph_of(precision, whitened).SerializeToString()
    assert arithmetic_of(content) == GraphArithmetic(precision, uniform=False)
    assert cuda_options(arithmetic_of(content))["use_tf32"] == "0"
    rounded = rounded_after_every_layer(graph_of(precision, card), HALVES[precision])
    assert [one.value for one in rounded.metadata_props if one.key == ARITHMETIC_KEY] == ["fp32"]
    assert cuda_options(arithmetic_of(rounded.SerializeToString())) == cuda_options(
        GraphArithmetic("fp32", uniform=True)
    )


def test_every_precision_has_options_and_none_fuses_biases() -> None:
    """With fuse_conv_bias ONNX Runtime 1.31 computes wrong logits in fp32."""
    assert set(BY_PRECISION) == set(PRECISIONS)
    assert not any("fuse_conv_bias" in options for options in BY_PRECISION.values())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_options_are_the_fastest_of_those_that_were_compared(precision: str) -> None:
    """On batches of 1,024 images; `fuse_conv_bias` is refused, and CUDA graphs are the backend's business."""
    record = json.loads((RECORDS / "nvidia-h100_2026-11-28_onnxruntime-options.json").read_text(encoding="utf-8"))
    compared = {
        "as rtk": {},  # ONNX Runtime's defaults, at that time
        "nhwc": {"prefer_nhwc": "1"},
        "heuristic": HEURISTIC,
        "nhwc heuristic": HEURISTIC | {"prefer_nhwc": "1"},
    }
    rows = [one for one in record["found"] if one["precision"] == precision and one["options"] in compared]
    assert len(rows) == len(compared)
    for where in ("call 1024", "resident 1024"):
        assert compared[max(rows, key=itemgetter(where))["options"]] == BY_PRECISION[precision]


def test_metadata_is_read_without_the_graph_and_as_onnx_reads_it(card: ModelCard, tmp_path: Path) -> None:
    graph = graph_of("fp16", card)
    graph.metadata_props.add(key="Größe", value="")
    path = tmp_path / "a.onnx"
    onnx.save(graph, path)
    expected = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert metadata_of(path) == metadata_of(path.read_bytes()) == expected
    assert arithmetic_of(path) == GraphArithmetic("fp16", uniform=True)


def test_damaged_files_have_no_precision(card: ModelCard, tmp_path: Path) -> None:
    content = graph_of("fp16", card, weights=10).SerializeToString()
    for size in range(0, len(content), 7):
        assert arithmetic_of(content[:size]) is None
    for damaged in (
        b"",
        b"\xff" * 100,
        b"not an ONNX file",
        bytes(100),
        content.replace(b'"precision"', b'"precisiom"'),
    ):
        assert arithmetic_of(damaged) is None
    assert arithmetic_of(tmp_path / "missing.onnx") is None
