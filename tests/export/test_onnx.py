"""Export to ONNX: the graph, the check of its logits before it is written, and the logits of another ONNX tool."""

import contextlib
import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from rtk.core.artifacts.checkpoint import Checkpoint, load_checkpoint
from rtk.core.artifacts.graph import load_graph
from rtk.core.card import Input
from rtk.core.errors import ArtifactError, OutputError
from rtk.core.models.model import Model
from rtk.core.paths import home_dir
from rtk.core.probe import probe_images
from rtk.export import to_onnx
from rtk.export.to_onnx import folded, onnx_from_checkpoint

RunGraph = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]


def reference_logits(checkpoint: Checkpoint, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """PyTorch in fp32."""
    with torch.inference_mode():
        logits_NK: NDArray[np.float32] = checkpoint.model()(torch.from_numpy(images_NHWC)).numpy()
    return logits_NK


def shape_of(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def operators(graph: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in graph.graph.node]


# The graph.


def test_the_graph_takes_uint8_pixels_and_returns_float32_logits(graph_path: Path) -> None:
    graph = onnx.load(graph_path).graph
    assert [value.name for value in graph.input] == ["images"]
    assert [value.name for value in graph.output] == ["logits"]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert shape_of(graph.input[0]) == ["batch", 32, 32, 3]
    assert shape_of(graph.output[0]) == ["batch", 10]


def test_the_graph_passes_the_checker_and_has_opset_20(graph_path: Path) -> None:
    graph = onnx.load(graph_path)
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import if entry.domain == ""] == [("", 20)]
    assert all(node.domain == "" for node in graph.graph.node)
    assert not graph.functions


def test_the_graph_is_one_file(graph_path: Path) -> None:
    assert [path.name for path in graph_path.parent.iterdir()] == ["tiny.onnx"]
    assert all(not tensor.external_data for tensor in onnx.load(graph_path).graph.initializer)


def test_only_a_cast_reads_the_pixels(graph_path: Path) -> None:
    """TensorRT refuses any other operator on uint8."""
    readers = [node.op_type for node in onnx.load(graph_path).graph.node if "images" in node.input]
    assert readers == ["Cast"]


def test_batch_norm_is_folded_into_convolutions(graph_path: Path) -> None:
    found = operators(onnx.load(graph_path))
    assert "BatchNormalization" not in found
    assert found.count("Conv") == 9  # stem, three blocks of two, two projections
    assert found.count("Relu") == 7


def test_folding_changes_the_logits_only_by_rounding(checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    images = torch.from_numpy(probe_images(16, checkpoint.card.input))
    model = checkpoint.model()
    with torch.inference_mode():
        before, after = model(images), folded(model)(images)
    assert float((before - after).abs().max()) < 1e-4
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in model.modules()), "the original model is unchanged"
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded(model).modules())


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_gives_the_logits_of_pytorch(
    graph_path: Path, checkpoint_path: Path, run_in_onnxruntime: RunGraph, batch: int
) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    images = np.random.default_rng(batch).integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8)
    logits_NK = run_in_onnxruntime(graph_path.read_bytes(), images)
    assert logits_NK.dtype == np.float32
    assert logits_NK.shape == (batch, 10)
    assert np.abs(logits_NK - reference_logits(checkpoint, images)).max() <= 1e-4


# The card.


def test_the_card_is_that_of_the_checkpoint_with_a_note_on_the_export(graph_path: Path, checkpoint_path: Path) -> None:
    _, card = load_graph(graph_path)
    original = load_checkpoint(checkpoint_path).card
    assert replace(card, notes={}) == original
    assert card.precision == "fp32"
    assert card.checkpoint_sha256 == original.checkpoint_sha256 != ""
    assert set(card.notes) == {"export"}
    assert card.notes["export"]["largest_logit_difference"] <= 1e-4
    assert card.notes["export"]["images"] >= 16
    assert torch.__version__.startswith(card.notes["export"]["libraries"]["torch"])  # builds may add "+cu130"


def test_the_file_names_rtk_and_no_path_of_this_machine(graph_path: Path, checkpoint_path: Path) -> None:
    graph = onnx.load(graph_path)
    assert graph.producer_name == "rtk"
    for tensor in graph.graph.initializer:
        tensor.ClearField("raw_data")  # random weights may contain any short text
    content = graph.SerializeToString()
    package = Path(onnx_from_checkpoint.__code__.co_filename).parent.parent
    for path in (
        package,
        package.resolve(),
        Path.cwd(),
        home_dir() or Path.cwd(),
        Path(torch.__file__).parent,
        checkpoint_path.parent,
    ):
        assert str(path).encode() not in content
    for trace in (b"site-packages", b".py", b'File "', b"pkg.torch", b"stack_trace"):
        assert trace not in content


def test_exporting_twice_gives_the_same_bytes(
    graph_path: Path, checkpoint_path: Path, tmp_path: Path, run_in_onnxruntime: RunGraph
) -> None:
    again = onnx_from_checkpoint(load_checkpoint(checkpoint_path), tmp_path / "b.onnx", run_graph=run_in_onnxruntime)
    assert again.path.read_bytes() == graph_path.read_bytes()
    assert 0 <= again.largest_difference <= 1e-4


def test_only_the_cast_reads_the_pixels_whatever_the_exporter_makes() -> None:
    """Older exporters take the size of the batch from the input."""
    make = onnx.helper.make_node
    nodes = [
        make("Shape", ["images"], ["size"]),
        make("Cast", ["images"], ["x"]),
        make("Reshape", ["x", "size"], ["y"]),
    ]
    graph = onnx.GraphProto(node=nodes)
    to_onnx._read_pixels_by_cast_alone(graph)
    assert [(node.op_type, list(node.input)) for node in graph.node] == [
        ("Cast", ["images"]),
        ("Shape", ["x"]),
        ("Reshape", ["x", "size"]),
    ]


# Graphs of other programs.


def test_the_error_for_a_foreign_graph_names_its_program(graph_path: Path, tmp_path: Path) -> None:
    graph = onnx.load(graph_path)
    del graph.metadata_props[:]
    graph.producer_name = "pytorch"
    onnx.save(graph, tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError) as caught:
        load_graph(tmp_path / "foreign.onnx")
    assert str(caught.value) == (
        f"{tmp_path / 'foreign.onnx'}: an ONNX file of pytorch, without a card from rtk; "
        f"to make it a graph of rtk's: rtk import {tmp_path / 'foreign.onnx'} --classes FILE --preprocess imagenet "
        "--out DIR"
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_graph_has_its_own_error(graph_path: Path, tmp_path: Path, share: float) -> None:
    content = graph_path.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactError, match=r"cut\.onnx: truncated, damaged, or not an ONNX file$"):
        load_graph(tmp_path / "cut.onnx")


def test_a_missing_graph_and_a_text_file_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.onnx: no such graph$"):
        load_graph(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(ArtifactError, match=r"text\.onnx: truncated, damaged, or not an ONNX file$"):
        load_graph(tmp_path / "text.onnx")


# Refusals.


@pytest.fixture
def traced_before(graph_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a graph that was traced before, because tracing takes seconds."""
    monkeypatch.setattr(to_onnx, "_traced", lambda model, images_NHWC, *, opset: onnx.load(graph_path))


@pytest.mark.usefixtures("traced_before")
@pytest.mark.parametrize("wrong", ["small error", "not a number", "another shape", "classes swapped"])
def test_an_export_with_other_logits_leaves_no_file(
    checkpoint_path: Path, tmp_path: Path, run_in_onnxruntime: RunGraph, wrong: str
) -> None:
    def run_with_error(graph: bytes, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits_NK = run_in_onnxruntime(graph, images_NHWC)
        match wrong:
            case "small error":
                logits_NK[3, 4] += 0.01
            case "not a number":
                logits_NK[0, 0] = np.nan
            case "another shape":
                return logits_NK[:, :1]
            case "classes swapped":
                return logits_NK[:, ::-1]
        return logits_NK

    path = tmp_path / "a.onnx"
    with pytest.raises(ArtifactError, match=rf"^{path}: not written: "):
        onnx_from_checkpoint(load_checkpoint(checkpoint_path), path, run_graph=run_with_error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("traced_before")
@pytest.mark.parametrize(("multiple", "accepted"), [(0.0, True), (4.0, True), (16.0, False)])
def test_the_limit_of_fp32_follows_from_the_rounding_of_pytorch(
    checkpoint_path: Path, tmp_path: Path, multiple: float, accepted: bool
) -> None:
    """Logits in the thousands, as in networks that diverged; errors are multiples of PyTorch's own on this machine."""
    loaded = load_checkpoint(checkpoint_path)
    *_, weight = (name for name, value in loaded.weights.items() if value.ndim == 2)
    checkpoint = replace(loaded, weights={**loaded.weights, weight: loaded.weights[weight] * 1000})
    images = torch.from_numpy(probe_images(to_onnx.PROBE_IMAGES, checkpoint.card.input))
    with torch.inference_mode():
        exact_NK = checkpoint.model().double()(images).numpy()
        rounding = np.abs(checkpoint.model()(images).numpy() - exact_NK).max()
    assert rounding > 1e-4, "the logits are large"
    exact_NK[0, 0] += multiple * rounding
    path = tmp_path / "a.onnx"
    with contextlib.nullcontext() if accepted else pytest.raises(ArtifactError, match=f"most {8 * rounding:.2g} "):
        onnx_from_checkpoint(checkpoint, path, run_graph=lambda graph, images_NHWC: exact_NK)
    assert path.exists() is accepted


@pytest.mark.usefixtures("traced_before")
@pytest.mark.parametrize("factor", [1.0001, 0.9999])
def test_logits_scaled_by_a_ten_thousandth_are_refused(
    checkpoint_path: Path, tmp_path: Path, run_in_onnxruntime: RunGraph, factor: float
) -> None:
    def run_scaled(graph: bytes, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return run_in_onnxruntime(graph, images_NHWC) * np.float32(factor)

    with pytest.raises(ArtifactError, match="not written: its logits differ from PyTorch's in fp64"):
        onnx_from_checkpoint(load_checkpoint(checkpoint_path), tmp_path / "a.onnx", run_graph=run_scaled)


@pytest.mark.parametrize("factor", [0.01, 0.5, 1.5])
def test_another_epsilon_of_batch_norm_is_refused(
    checkpoint_path: Path, tmp_path: Path, run_in_onnxruntime: RunGraph, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    def folded_wrongly(model: Model) -> Model:
        wrong = copy.deepcopy(model)
        for layer in wrong.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eps *= factor
        return folded(wrong)

    monkeypatch.setattr(to_onnx, "folded", folded_wrongly)
    with pytest.raises(ArtifactError, match="not written: its logits differ from PyTorch's in fp64"):
        onnx_from_checkpoint(load_checkpoint(checkpoint_path), tmp_path / "a.onnx", run_graph=run_in_onnxruntime)


@pytest.mark.usefixtures("traced_before")
def test_a_refused_export_keeps_the_old_graph(checkpoint_path: Path, tmp_path: Path) -> None:
    def all_zero(graph: bytes, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((len(images_NHWC), 10), np.float32)

    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ArtifactError, match=r"in fp64 by up to .*, expected at most .* \(PyTorch's own .*\)$"):
        onnx_from_checkpoint(load_checkpoint(checkpoint_path), path, run_graph=all_zero)
    assert path.read_bytes() == b"old"


@pytest.mark.usefixtures("traced_before")
def test_a_path_that_cannot_be_written_is_an_output_error(
    checkpoint_path: Path, tmp_path: Path, run_in_onnxruntime: RunGraph
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"file/a\.onnx: cannot be written: Not a directory$"):
        onnx_from_checkpoint(
            load_checkpoint(checkpoint_path), tmp_path / "file" / "a.onnx", run_graph=run_in_onnxruntime
        )


# Another ONNX tool: the reference evaluator of the onnx package.


def assert_reference_evaluator_agrees(checkpoint: Checkpoint, graph_path: Path, *, images: int) -> None:
    pixels = probe_images(images, checkpoint.card.input, seed=5)
    evaluator = ReferenceEvaluator(str(graph_path))
    logits_NK = evaluator.run(["logits"], {"images": pixels})[0]
    expected_NK = reference_logits(checkpoint, pixels)
    assert np.ptp(expected_NK) > 1  # else the comparison would show nothing
    assert np.abs(logits_NK - expected_NK).max() <= 1e-4


@pytest.mark.parametrize(
    ("arch", "size", "norms"),
    [  # in v2, one batch norm per block follows an addition and cannot be folded
        ("resnet20v1", Input(32, 32, 3), 0),
        ("resnet8v1", Input(28, 25, 1), 0),
        ("resnet11v2", Input(32, 32, 3), 3),
        ("resnet56v2", Input(32, 32, 3), 18),
    ],
    ids=lambda value: "x".join(map(str, value.shape)) if isinstance(value, Input) else str(value),
)
def test_the_onnx_reference_evaluator_gives_the_logits_of_pytorch(
    tmp_path: Path, save_untrained: Any, run_in_onnxruntime: RunGraph, arch: str, size: Input, norms: int
) -> None:
    checkpoint = load_checkpoint(save_untrained(tmp_path / "a.pt", arch=arch, size=size))
    exported = onnx_from_checkpoint(checkpoint, tmp_path / "a.onnx", run_graph=run_in_onnxruntime)
    assert_reference_evaluator_agrees(checkpoint, exported.path, images=2)
    assert operators(onnx.load(exported.path)).count("BatchNormalization") == norms


def test_probe_images_contain_noise_blots_and_flat_greys() -> None:
    images = probe_images(48, Input(28, 25, 1))
    assert images.shape == (48, 28, 25, 1)
    assert images.dtype == np.uint8
    assert set(np.unique(images)) == set(range(256))
    assert all(np.ptp(images[index]) == 0 for index in range(2, 48, 3))
    assert np.array_equal(images, probe_images(48, Input(28, 25, 1)))
    pairs = itertools.combinations((image.tobytes() for image in images[:12]), 2)
    assert all(first != second for first, second in pairs)
