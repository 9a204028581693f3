"""fp16 and bf16: the graphs, the check of their logits, and the precision that TensorRT builds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from rtk.core.artifacts.checkpoint import Checkpoint, load_checkpoint
from rtk.core.artifacts.graph import load_graph
from rtk.core.card import Input
from rtk.core.errors import ArtifactError, UnknownNameError, UsageError
from rtk.core.nvidia.flavor import FLAVORS
from rtk.core.probe import probe_images
from rtk.export import to_onnx
from rtk.export.config import EngineConfig
from rtk.export.reduced_precision import HALVES, LowerPrecision, rounded_after_every_layer
from rtk.export.to_onnx import folded, onnx_from_checkpoint
from rtk.export.trt.build import engine_from_onnx

RunGraph = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]
real_rtx = pytest.mark.skipif(not FLAVORS["tensorrt-rtx"].installed, reason="needs the package tensorrt-rtx")


@pytest.fixture(scope="module")
def lower_graphs(
    checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory, run_in_onnxruntime: RunGraph
) -> dict[str, Path]:
    """The graphs of the small checkpoint in fp16 and bf16."""
    folder, checkpoint = tmp_path_factory.mktemp("lower"), load_checkpoint(checkpoint_path)
    return {
        name: onnx_from_checkpoint(
            checkpoint, folder / f"tiny.{name}.onnx", run_graph=run_in_onnxruntime, precision=name
        ).path
        for name in HALVES
    }


@pytest.fixture(params=list(HALVES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_input_is_uint8_and_the_output_float32(lower_graphs: dict[str, Path], name: str) -> None:
    graph = onnx.load(lower_graphs[name]).graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert graph.output[0].name == "logits"


def test_weights_have_the_precision_and_normalisation_is_fp32(lower_graphs: dict[str, Path], name: str) -> None:
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(lower_graphs[name]).graph.initializer}
    network = {kind for tensor, kind in weights.items() if tensor.startswith("network.")}
    constants = {kind for tensor, kind in weights.items() if tensor.startswith("normalise.")}
    assert network == {HALVES[name].onnx_type}
    assert constants == {TensorProto.FLOAT}


def test_the_graph_passes_the_checker(lower_graphs: dict[str, Path], name: str) -> None:
    onnx.checker.check_model(onnx.load(lower_graphs[name]), full_check=True)


def test_the_card_names_the_precision_and_what_is_unchecked(lower_graphs: dict[str, Path], name: str) -> None:
    _, card = load_graph(lower_graphs[name])
    assert card.precision == name
    note = card.notes["export"]
    assert 1e-6 < note["relative_logit_error"] < {"fp16": 0.005, "bf16": 0.04}[name]
    assert name in note["checked"]
    assert note["unchecked"] == f"arithmetic in {name} itself: the hardware's order of sums"


def test_the_rounded_graph_has_the_logits_of_pytorch_in_that_precision(
    lower_graphs: dict[str, Path], name: str, checkpoint_path: Path, run_in_onnxruntime: RunGraph
) -> None:
    """PyTorch's CPU kernels compute in fp16 and bf16. The limits are one unit in the last place of a logit near ten."""
    checkpoint = load_checkpoint(checkpoint_path)
    images_NHWC = probe_images(12, checkpoint.card.input, seed=3)
    rounded = rounded_after_every_layer(onnx.load(lower_graphs[name]), HALVES[name])
    logits_NK = run_in_onnxruntime(rounded.SerializeToString(), images_NHWC)
    with torch.inference_mode():
        expected_NK = LowerPrecision(folded(checkpoint.model()), HALVES[name])(torch.from_numpy(images_NHWC)).numpy()
    assert np.abs(logits_NK - expected_NK).max() <= {"fp16": 2**-6, "bf16": 2**-3}[name]
    low = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}[name]
    assert np.array_equal(logits_NK, logits_NK.astype(low).astype(np.float32)), "every logit was rounded"


def test_the_error_follows_the_length_of_the_mantissa(lower_graphs: dict[str, Path], checkpoint_path: Path) -> None:
    """fp16 has 11 bits and bf16 8, so its error is eight times as large, within a factor of three."""
    errors = {name: load_graph(path)[1].notes["export"]["relative_logit_error"] for name, path in lower_graphs.items()}
    assert 8 / 3 < errors["bf16"] / errors["fp16"] < 8 * 3


@real_rtx
@pytest.mark.parametrize("arch", ["resnet8v1", "resnet11v2"])
def test_tensorrt_builds_the_precision_of_the_card(
    tmp_path: Path, save_untrained: Any, run_in_onnxruntime: RunGraph, name: str, arch: str
) -> None:
    checkpoint = load_checkpoint(save_untrained(tmp_path / "a.pt", arch=arch))
    path = tmp_path / f"a.{name}.onnx"
    onnx_from_checkpoint(checkpoint, path, run_graph=run_in_onnxruntime, precision=name)
    built = engine_from_onnx(EngineConfig(path, max_batch=16, targets=("8.9",)))
    assert built.path.name == f"a.{name}.engine"
    assert built.info.card.precision == name == built.info.precision.label
    with pytest.raises(ArtifactError, match=rf"fp32 was requested, but .* products are: \d+ {name}"):
        engine_from_onnx(EngineConfig(path, max_batch=16, precision="fp32", targets=("8.9",)))


@pytest.mark.parametrize("size", [Input(28, 25, 1)], ids=["odd sides, grey"])
def test_models_for_grey_images_with_odd_sides_are_exported(
    tmp_path: Path, save_untrained: Any, run_in_onnxruntime: RunGraph, name: str, size: Input
) -> None:
    checkpoint = load_checkpoint(save_untrained(tmp_path / "a.pt", size=size))
    done = onnx_from_checkpoint(checkpoint, tmp_path / "a.onnx", run_graph=run_in_onnxruntime, precision=name)
    assert 0 < done.relative_error < 0.04


def test_weights_that_overflow_fp16_leave_no_file(
    tmp_path: Path, checkpoint_path: Path, run_in_onnxruntime: RunGraph
) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    weights = {**checkpoint.weights, "network.stem.1.weight": checkpoint.weights["network.stem.1.weight"] * 1e6}
    overflowing = Checkpoint(checkpoint.card, weights, None)
    with pytest.raises(ArtifactError, match=r"a\.onnx: not written: some of its logits are not finite in fp16$"):
        onnx_from_checkpoint(overflowing, tmp_path / "a.onnx", run_graph=run_in_onnxruntime, precision="fp16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (
            1.5,
            r"largest logit error \d\.\d+ standard deviations of .*, expected at most 0\.\d+ in (fp|bf)16",
        ),
        (1.05, r"relative RMS error of the logits \d+\.\d+%, expected at most 4"),
    ],
)
def test_logits_with_too_large_an_error_leave_no_file(
    factor: float,
    message: str,
    tmp_path: Path,
    checkpoint_path: Path,
    lower_graphs: dict[str, Path],
    run_in_onnxruntime: RunGraph,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(to_onnx, "_traced", lambda *args, **options: onnx.load(lower_graphs["bf16"]))
    with pytest.raises(ArtifactError, match=message):
        onnx_from_checkpoint(
            load_checkpoint(checkpoint_path),
            tmp_path / "a.onnx",
            run_graph=lambda graph, images_NHWC: factor * run_in_onnxruntime(graph, images_NHWC),
            precision="bf16",
        )
    assert list(tmp_path.iterdir()) == []


def test_unknown_precisions_and_int8_are_refused(
    tmp_path: Path, checkpoint_path: Path, run_in_onnxruntime: RunGraph
) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    with pytest.raises(UnknownNameError, match="precision 'fp17' is unknown; did you mean fp16"):
        onnx_from_checkpoint(checkpoint, tmp_path / "a.onnx", run_graph=run_in_onnxruntime, precision="fp17")
    with pytest.raises(UsageError, match="--precision int8: needs images of the training split"):
        onnx_from_checkpoint(checkpoint, tmp_path / "a.onnx", run_graph=run_in_onnxruntime, precision="int8")
