"""ONNX classifiers of other programs become graphs of rtk: same answers, any batch, or one line that says why not."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fakes.foreign_graphs import CLASSES, PREPROCESSING, SIZE, Ending, answers_of, by_hand, export, fitted
from fakes.parity_network import patterns
from onnx import TensorProto, helper, numpy_helper
from rtk.core.artifacts.graph import load_graph
from rtk.core.card import IMPORTED, Input, Preprocessing
from rtk.core.errors import ArtifactError, RtkError, UsageError
from rtk.core.models.normalise import build_normalise
from rtk.core.probe import probe_images
from rtk.export.onnx_preprocessing import preprocessing_nodes
from rtk.infer.backend import BackendOptions
from rtk.infer.open_backend import open_backend
from rtk.workflow.import_graph import Imported, import_graph
from torch import nn

IMAGES = patterns(1_000, seed=8)


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    return {kind: fitted(kind) for kind in ("conv", "attention")}


def imported(path: Path, **options: Any) -> Imported:
    """Import a graph of the ten patterns into a folder beside it."""
    options = {"classes": CLASSES, "preprocessing": PREPROCESSING, "size": SIZE, "out": path.parent / "in", **options}
    return import_graph(path, **options)


def answers_in_rtk(path: Path, images_NHWC: np.ndarray, *, batch: int = 250) -> np.ndarray:
    """The logits of the onnx backend."""
    with open_backend("onnx", path, BackendOptions(device="cpu")) as backend:
        return np.concatenate([backend(images_NHWC[k : k + batch]) for k in range(0, len(images_NHWC), batch)])


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


# The same answers.


@pytest.mark.parametrize("batch", [1, None], ids=["batch 1", "any batch"])
@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("kind", ["conv", "attention"])
def test_an_import_answers_a_thousand_images_as_the_original_does(
    networks: dict[str, nn.Module], tmp_path: Path, kind: str, opset: int, batch: int | None
) -> None:
    path = export(networks[kind], tmp_path / "net.onnx", opset=opset, batch=batch)
    done = imported(path)
    expected_NK = answers_of(path, IMAGES.images_NHWC, batch=batch or 250)
    found_NK = answers_in_rtk(done.path, IMAGES.images_NHWC)
    assert found_NK.dtype == np.float32
    assert np.array_equal(found_NK.argmax(axis=1), expected_NK.argmax(axis=1))
    assert np.abs(found_NK - expected_NK).max() <= 1e-4
    assert (found_NK.argmax(axis=1) == IMAGES.labels_N).mean() > 0.9  # else the comparison would show little
    graph = onnx.load(done.path)
    assert graph.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert [node.op_type for node in graph.graph.node if "images" in node.input] == ["Cast"]
    assert (graph.opset_import[0].version, graph.ir_version) in {(17, 8), (20, 9), (13, 8)}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4, None])
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", ["conv", "attention", "multi-head", "vit"])
def test_exports_of_both_exporters_in_fixed_batches_take_any(
    networks: dict[str, nn.Module], tmp_path: Path, kind: str, dynamo: bool, batch: int | None
) -> None:
    network = networks.get(kind) or (MultiHead() if kind == "multi-head" else vision_transformer()).eval()
    path = export(network, tmp_path / "net.onnx", opset=18, batch=batch, dynamo=dynamo)
    done = imported(path)
    images_NHWC = IMAGES.images_NHWC[:200]
    expected_NK = answers_of(path, images_NHWC, batch=batch or 50)
    assert (
        np.abs(answers_in_rtk(done.path, images_NHWC, batch=7) - expected_NK).max() <= 1e-5 + 1e-5 * expected_NK.std()
    )


class MultiHead(nn.Module):
    """PyTorch's own attention, which moves the batch to the second dimension, and merges it with others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.head = nn.Conv2d(3, 24, 4, 4), nn.Linear(24, 10)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24))
        self.attention, self.norm = nn.MultiheadAttention(24, 3, batch_first=True), nn.LayerNorm(24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions)
        return self.head(self.norm(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])[:, 0])


def vision_transformer() -> nn.Module:
    transformers = pytest.importorskip("transformers")

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            config = transformers.ViTConfig(
                image_size=16, patch_size=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=64, num_labels=10,
            )  # fmt: skip
            self.network = transformers.ViTForImageClassification(config)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x).logits

    return Logits()


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_the_preprocessing_is_that_of_rtk(run_in_onnxruntime: Callable[..., Any], opset: int) -> None:
    """Plain steps to the last bit; scaling by the rounding of another program's sums."""
    size, images = Input(12, 20, 3), probe_images(9, Input(12, 20, 3))
    for steps in (
        PREPROCESSING,
        Preprocessing((0.5,) * 3, (0.25,) * 3, image_mean=True, image_deviation=True),
        Preprocessing((0.5,) * 3, (0.25,) * 3, image_deviation=True, resize=(24, 30)),
    ):
        nodes, constants, last = preprocessing_nodes(steps, size, opset=opset)
        nodes[-1].output[0] = "logits"
        assert last != "logits"
        graph = helper.make_graph(
            nodes, "one", [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 12, 20, 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)], constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
        found = run_in_onnxruntime(model.SerializeToString(), images)
        expected = build_normalise(steps, size)(torch.from_numpy(images)).numpy()
        if steps.is_plain:
            assert np.array_equal(found, expected)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


# What the outputs are.


@pytest.mark.parametrize(
    ("end", "kind"),
    [(nn.Softmax(1), "probabilities"), (nn.LogSoftmax(1), "log-probabilities"), (nn.Identity(), "logits")],
)
def test_the_softmax_of_an_import_gives_the_original_probabilities(
    networks: dict[str, nn.Module], tmp_path: Path, end: nn.Module, kind: str
) -> None:
    path = export(Ending(networks["conv"], end), tmp_path / "net.onnx")
    done = imported(path)
    assert done.card.notes[IMPORTED]["kind"] == kind
    answers_NK = answers_of(path, IMAGES.images_NHWC[:100])
    expected_NK = answers_NK if kind == "probabilities" else softmax(answers_NK)
    found_NK = softmax(answers_in_rtk(done.path, IMAGES.images_NHWC[:100]))
    np.testing.assert_allclose(found_NK, expected_NK, atol=1e-6)


def test_probabilities_without_a_softmax_are_known_by_their_sum(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    class Shares(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.exp() / x.exp().sum(1, keepdim=True)

    path = export(Ending(networks["conv"], Shares()), tmp_path / "net.onnx")
    done = imported(path)
    assert done.card.notes[IMPORTED]["kind"] == "probabilities"
    expected_NK = answers_of(path, IMAGES.images_NHWC[:50])
    np.testing.assert_allclose(softmax(answers_in_rtk(done.path, IMAGES.images_NHWC[:50])), expected_NK, atol=1e-6)


def test_a_sigmoid_keeps_the_ratios_of_its_probabilities(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    path = export(Ending(networks["conv"], nn.Sigmoid()), tmp_path / "net.onnx")
    done = imported(path)
    assert done.card.notes[IMPORTED]["kind"] == "sigmoid"
    shares_NK = answers_of(path, IMAGES.images_NHWC[:50])
    expected_NK = shares_NK / shares_NK.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(answers_in_rtk(done.path, IMAGES.images_NHWC[:50])), expected_NK, atol=1e-6)


class TwoOutputs(nn.Module):
    def __init__(self, *, alike: bool) -> None:
        super().__init__()
        self.alike = alike

    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (2 * logits, logits) if self.alike else (logits[:, :4].contiguous(), logits)


def test_of_two_outputs_the_one_with_a_number_for_each_class_is_taken(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    names = ("x", "few", "all")
    path = export(Ending(networks["conv"], TwoOutputs(alike=False)), tmp_path / "net.onnx", names=names)
    assert imported(path).card.notes[IMPORTED]["output"] == "all"
    path = export(Ending(networks["conv"], TwoOutputs(alike=True)), tmp_path / "two.onnx", names=names)
    with pytest.raises(UsageError, match=r"2 of its outputs .*: few \(N x 10\), all \(N x 10\); name one of them$"):
        imported(path)
    assert imported(path, output="few").card.notes[IMPORTED]["output"] == "few"
    with pytest.raises(UsageError, match="has no output 'none'; expected one of: few, all$"):
        imported(path, output="none")


# Forms.


def test_fp16_graphs_become_fp32_and_stay_close(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    path = export(fitted("conv"), tmp_path / "net.onnx", half=True)
    done = imported(path)
    assert done.card.precision == "fp32"
    assert done.card.notes[IMPORTED]["precision"] == "fp16"
    assert not [one for one in onnx.load(done.path).graph.initializer if one.data_type == TensorProto.FLOAT16]
    found_NK = answers_in_rtk(done.path, IMAGES.images_NHWC[:100])
    expected_NK = answers_of(export(networks["conv"], tmp_path / "full.onnx"), IMAGES.images_NHWC[:100])
    assert np.abs(found_NK - expected_NK).max() < 0.01 * expected_NK.std()


def test_weights_in_another_file_are_read_and_a_missing_file_is_named(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    path = export(networks["conv"], tmp_path / "net.onnx")
    expected_NK = answers_of(path, IMAGES.images_NHWC[:20])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.weights", size_threshold=64)
    done = imported(path)
    assert np.abs(answers_in_rtk(done.path, IMAGES.images_NHWC[:20]) - expected_NK).max() <= 1e-5
    (tmp_path / "net.weights").unlink()
    with pytest.raises(ArtifactError, match=r"its weights cannot be read; expected it beside the graph: net\.weights$"):
        imported(path)


def test_initialisers_among_the_inputs_are_no_inputs(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    path = export(networks["conv"], tmp_path / "net.onnx", opset=13, keep_initializers_as_inputs=True)
    assert len(onnx.load(path).graph.input) > 1
    done = imported(path)
    assert [value.name for value in onnx.load(done.path).graph.input] == ["images"]


def test_channels_last_is_recognised(tmp_path: Path) -> None:
    """As Keras writes its graphs."""

    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = fitted("conv")

        def forward(self, x_NHWC: torch.Tensor) -> torch.Tensor:
            return self.network(x_NHWC.permute(0, 3, 1, 2).contiguous())

    path = export(ChannelsLast().eval(), tmp_path / "net.onnx", channels_last=True)
    done = imported(path)
    assert done.card.notes[IMPORTED]["layout"] == "N x H x W x C"
    expected_NK = answers_of(export(fitted("conv"), tmp_path / "nchw.onnx"), IMAGES.images_NHWC[:20])
    assert np.abs(answers_in_rtk(done.path, IMAGES.images_NHWC[:20]) - expected_NK).max() <= 1e-4


def test_the_card_names_the_original(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    path = export(networks["conv"], tmp_path / "net.onnx", opset=13)
    done = imported(path, name="mine", dataset="shapes", fit="letterbox")
    assert done.path == tmp_path / "in" / "mine.onnx"
    graph, card = load_graph(done.path)
    assert card == done.card
    assert (card.name, card.arch, card.dataset, card.fit, card.precision) == (
        "mine", "onnx net.onnx", "shapes", "letterbox", "fp32",
    )  # fmt: skip
    assert (card.classes, card.input, card.preprocessing) == (CLASSES, SIZE, PREPROCESSING)
    note = card.notes[IMPORTED]
    assert note["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (note["file"], note["input"], note["output"]) == ("net.onnx", "pixel_values", "scores")
    assert (note["opset"], note["batch"], note["kind"]) == (13, 1, "logits")
    assert note["producer"].startswith("pytorch ")
    del graph.metadata_props[:]  # it holds nothing but the card
    assert card.checkpoint_sha256 == hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()
    assert str(tmp_path).encode() not in done.path.read_bytes()
    assert done.summary().startswith(
        "net.onnx: logits of 10 classes, batches of 1, now any, opset 13, made by pytorch "
    )


# Refusals.


def small(**changes: Any) -> onnx.ModelProto:
    """A graph of one dense layer; changes: other parts of it."""
    values = {"input_type": TensorProto.FLOAT, "shape": ["n", 3, 16, 16], "domain": "", "opset": 17, **changes}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w"], ["y"], domain=values["domain"]),
    ]
    graph = helper.make_graph(
        nodes, "small", [helper.make_tensor_value_info("x", values["input_type"], values["shape"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.ones((768, 10), np.float32), "w")],
    )  # fmt: skip
    imports = [helper.make_opsetid("", values["opset"]), helper.make_opsetid("com.other", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, producer_name="someone")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"domain": "com.other"}, {}, "uses operators that are no part of ONNX: com.other.Gemm; export it again"),
        ({"input_type": TensorProto.UINT8}, {}, "its input 'x' is uint8 with 4 dimensions, expected float32 or"),
        ({"shape": ["n", 768]}, {}, "its input 'x' is float with 2 dimensions, expected float32 or float16 N x C"),
        ({}, {"classes": ("a", "b")}, "0 of its outputs have a number for each class: y (N x 10); expected N x 2"),
        ({}, {"classes": ("a", "a")}, "--classes: named more than once: a"),
        ({}, {"classes": ()}, "--classes: none; expected the names of the classes"),
        (
            {},
            {"size": Input(32, 32, 3)},
            "it takes images of 16 x 16 x 3 (height, width, channels), and the preprocessing gives 32 x 32 x 3",
        ),
        (
            {},
            {"size": Input(16, 16, 1), "preprocessing": Preprocessing((0.5,), (0.5,))},
            "it takes images of 16 x 16 x 3 (height, width, channels), and the preprocessing gives 16 x 16 x 1",
        ),
        ({}, {"preprocessing": Preprocessing((0.5,) * 3, (0.5,) * 3, whitening=True)}, "a graph has none"),
        ({}, {"name": "../x"}, "../x"),
        ({"opset": 99}, {}, "the graph has opset 99, and this ONNX Runtime knows opsets up to"),
    ],
)
def test_a_graph_that_cannot_be_taken_says_why_in_one_line(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(small(**changes).SerializeToString())
    with pytest.raises(RtkError) as caught:
        imported(path, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "in").exists()


def test_a_batch_that_cannot_be_changed_is_refused(tmp_path: Path) -> None:
    """The batch is part of what the graph computes: it averages over the images."""

    class OverTheBatch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - x.mean(0, keepdim=True)).flatten(1)[:, :10].contiguous()

    path = export(OverTheBatch(), tmp_path / "net.onnx", batch=4)
    with pytest.raises(ArtifactError, match=r"is made for batches of 4, .* export it again with a dynamic batch$"):
        imported(path)


@pytest.mark.parametrize("layer", ["BatchNormalization", "Dropout"])
def test_a_graph_in_training_mode_is_refused(tmp_path: Path, layer: str) -> None:
    graph = small()
    if layer == "Dropout":
        graph.graph.initializer.extend(
            [numpy_helper.from_array(np.array(0.5, np.float32), "p"), numpy_helper.from_array(np.array(True), "on")]
        )
        node = helper.make_node("Dropout", ["x", "p", "on"], ["changed"])
    else:
        names = ["scale", "bias", "mean", "var"]
        graph.graph.initializer.extend(numpy_helper.from_array(np.ones(3, np.float32), name) for name in names)
        node = helper.make_node(layer, ["x", *names], ["changed", "mean_out", "var_out"], training_mode=1)
    graph.graph.node.insert(0, node)
    graph.graph.node[1].input[0] = "changed"
    path = tmp_path / "net.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ArtifactError) as caught:
        imported(path)
    assert str(caught.value) == (
        f"{path}: was exported in training mode ({layer}); export it again after network.eval()"
    )
    if layer == "Dropout":
        node.input.pop()
    else:
        node.attribute[0].i = 0
        del node.output[1:]
    graph.graph.node[0].CopyFrom(node)
    path.write_bytes(graph.SerializeToString())
    imported(path)


def test_graphs_of_rtk_damaged_files_and_two_inputs_are_refused(graph_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is a graph of rtk already; it needs no import$"):
        imported(graph_path, out=tmp_path)
    with pytest.raises(ArtifactError, match="no such graph$"):
        imported(tmp_path / "none.onnx")
    (tmp_path / "cut.onnx").write_bytes(graph_path.read_bytes()[:5_000])
    with pytest.raises(ArtifactError, match="truncated, damaged, or not an ONNX file$"):
        imported(tmp_path / "cut.onnx")
    model = small()
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    (tmp_path / "two.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"2 inputs \(x, z\), expected one: a batch of images$"):
        imported(tmp_path / "two.onnx")


def test_no_file_of_another_model_is_replaced(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    path = export(networks["conv"], tmp_path / "net.onnx")
    with pytest.raises(UsageError, match="would be replaced by its import; choose another name with --name"):
        imported(path, out=None)
    imported(path)
    imported(path)  # the same one again
    other = export(networks["attention"], tmp_path / "other.onnx")
    with pytest.raises(UsageError, match="holds another model, net of checkpoint "):
        imported(other, name="net")
    assert imported(other, name="net", force=True).card.arch == "onnx other.onnx"


def test_preprocessing_by_hand_is_what_the_reference_of_these_tests_uses() -> None:
    pixel = np.array([[[[255, 0, 128]]]], np.uint8)
    np.testing.assert_allclose(by_hand(pixel).ravel(), [2.248908, -2.035714, 0.426492], atol=1e-5)
