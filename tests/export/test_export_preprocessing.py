"""Preprocessing in the graph: every kind has parity in every precision, stays in fp32, and builds as an engine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fakes.tensorrt_stand_in import staged
from numpy.typing import NDArray
from onnx import TensorProto
from rtk.core.artifacts.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rtk.core.artifacts.graph import load_graph
from rtk.core.artifacts.graph_card import GraphArithmetic, arithmetic_of
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.models.model import build_model
from rtk.core.nvidia.flavor import FLAVORS
from rtk.export.config import EngineConfig, Int8Config
from rtk.export.int8.calibration import Calibration
from rtk.export.int8.quantize import int8_from_checkpoint
from rtk.export.to_onnx import onnx_from_checkpoint
from rtk.export.trt.build import engine_from_onnx

RunGraph = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]
real_rtx = pytest.mark.skipif(not FLAVORS["tensorrt-rtx"].installed, reason="needs the package tensorrt-rtx")

KINDS = {
    "resized": (Input(8, 7, 1), Preprocessing((0.0,), (1.0,), resize=(24, 20))),
    "repeated": (Input(8, 8, 1), Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
    "everything": (
        Input(8, 8, 3),
        Preprocessing((0.1,) * 3, (0.9,) * 3, per_pixel=True, image_mean=True, image_deviation=True, whitening=True,
                      resize=(12, 16)),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(
    card: ModelCard, randomise: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Checkpoint]:
    """A small network with random weights for each kind of preprocessing."""
    made = {}
    for kind, (size, preprocessing) in KINDS.items():
        chosen = replace(card, input=size, preprocessing=preprocessing)
        model = build_model(chosen)
        randomise(model.network, seed=0)
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            model.network.head.dense.weight.mul_(0.1)
            if preprocessing.whitening:
                model.normalise.whitening.add_(0.1 * torch.randn(192, 192, generator=random))
                model.normalise.mean.add_(0.1 * torch.rand(3, 8, 8, generator=random))
        path = tmp_path_factory.mktemp("preprocessing") / f"{kind}.pt"
        save_checkpoint(path, chosen, model.state_dict())
        made[kind] = load_checkpoint(path)
    return made


def types_before_the_network(path: Path) -> tuple[list[str], set[int]]:
    """The operators before the first convolution, and the data types of their outputs."""
    typed = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    names = [node.op_type for node in typed.node]
    first = names.index("Conv")
    kinds = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    before = [node for node in typed.node[:first] if not any(name.startswith("network.") for name in node.input)]
    return [node.op_type for node in before], {kinds[node.output[0]] for node in before[:-1]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_contains_its_preprocessing(
    checkpoints: dict[str, Checkpoint], tmp_path: Path, run_in_onnxruntime: RunGraph, kind: str
) -> None:
    exported = onnx_from_checkpoint(checkpoints[kind], tmp_path / "a.onnx", run_graph=run_in_onnxruntime)
    assert exported.largest_difference < 1e-4
    _, card = load_graph(exported.path)
    assert (card.input, card.preprocessing) == KINDS[kind]
    size = card.input
    images = np.random.default_rng(0).integers(0, 256, (5, *size.shape), dtype=np.uint8)
    with torch.inference_mode():
        expected = checkpoints[kind].model()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run_in_onnxruntime(exported.path.read_bytes(), images), expected, atol=1e-4)
    before, _ = types_before_the_network(exported.path)
    assert before[0] == "Cast"  # TensorRT accepts no other operator on uint8


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_lower_precision_leaves_preprocessing_in_fp32(
    checkpoints: dict[str, Checkpoint], tmp_path: Path, run_in_onnxruntime: RunGraph, precision: str
) -> None:
    path = tmp_path / "a.onnx"
    onnx_from_checkpoint(checkpoints["everything"], path, run_graph=run_in_onnxruntime, precision=precision)
    before, types = types_before_the_network(path)
    assert {"ReduceMean", "MatMul", "Resize"} <= set(before)
    assert before[-1] == "Cast"  # the last operator casts to the lower precision
    assert types == {TensorProto.FLOAT} or types == {TensorProto.FLOAT, TensorProto.INT64}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_a_lower_precision_only_whitening_multiplies_in_fp32(
    checkpoints: dict[str, Checkpoint], tmp_path: Path, run_in_onnxruntime: RunGraph, kind: str, precision: str
) -> None:
    """Without fp32 products ONNX Runtime may use tensor cores, which would compute these in TF32."""
    path = tmp_path / "a.onnx"
    onnx_from_checkpoint(checkpoints[kind], path, run_graph=run_in_onnxruntime, precision=precision)
    typed = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    products = [node for node in typed.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(products) > 8
    in_fp32 = [node.op_type for node in products if types[node.output[0]] == TensorProto.FLOAT]
    whitens = KINDS[kind][1].whitening
    assert in_fp32 == (["MatMul"] if whitens else [])
    assert arithmetic_of(path) == GraphArithmetic(precision, uniform=not whitens)


@pytest.mark.parametrize("flavor", ["tensorrt", "cpu"])
def test_int8_leaves_preprocessing_in_fp32(checkpoints: dict[str, Checkpoint], tmp_path: Path, flavor: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3), dtype=np.uint8)
    calibration = Calibration(images[:100], images[100:], "noise", 0)
    config = Int8Config(flavor, method="minmax")
    path = int8_from_checkpoint(
        checkpoints["everything"], tmp_path / "a.onnx", calibration=calibration, config=config
    ).path
    names = [node.op_type for node in onnx.load(path).graph.node]
    pixels = names[: names.index("Resize") + 1]
    assert "MatMul" in pixels
    assert names[len(pixels)] == "QuantizeLinear"
    on_pixels = {name for node in onnx.load(path).graph.node[: len(pixels)] for name in node.output}
    quantised = [node.input[0] for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"]
    assert on_pixels & set(quantised) == {onnx.load(path).graph.node[len(pixels) - 1].output[0]}


@real_rtx
@pytest.mark.parametrize("kind", KINDS)
def test_engines_are_built(
    checkpoints: dict[str, Checkpoint], tmp_path: Path, run_in_onnxruntime: RunGraph,
    monkeypatch: pytest.MonkeyPatch, kind: str,
) -> None:  # fmt: skip
    for stage in staged(monkeypatch):
        stage.libcuda()
        onnx_from_checkpoint(checkpoints[kind], tmp_path / "a.onnx", run_graph=run_in_onnxruntime)
        config = EngineConfig(tmp_path / "a.onnx", flavor="tensorrt-rtx", max_batch=64, cache=False)
        info = engine_from_onnx(config).info
        assert info.precision.label == "fp32"
        assert info.card.preprocessing == KINDS[kind][1]
