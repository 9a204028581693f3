"""Model repositories follow Triton's own schema and serve the content of the artifact."""

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

import onnx
import onnxruntime
import pytest
from fakes.engine_files import INFO, PLAN
from google.protobuf import text_format
from rtk.core.artifacts.engine import Profile, write_engine
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.card import ModelCard
from rtk.core.data.datasets import CIFAR10_CLASSES, Split
from rtk.core.errors import ArtifactError, UsageError
from rtk.export.triton import checkpoint_in, triton_from_artifact

TYPES = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}


@pytest.fixture(scope="module")
def schema() -> ModuleType:
    """Triton's ModelConfig from its client package; only this file is loaded, because the package needs gRPC."""
    path = Path(str(distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")))
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def read(schema: ModuleType) -> Callable[[Path], object]:
    """Read a model's configuration and check what Triton checks when it loads a model."""

    def parsed(folder: Path) -> object:
        config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
        assert config.name == folder.name
        assert (
            folder / "1" / {"onnxruntime_onnx": "model.onnx", "tensorrt_plan": "model.plan"}[config.platform]
        ).is_file()
        batching = config.dynamic_batching
        assert all(1 <= size <= config.max_batch_size for size in batching.preferred_batch_size)
        for output in config.output:
            labels = (folder / output.label_filename).read_text().splitlines()
            assert [len(labels)] == list(output.dims)
        return config

    return parsed


def test_a_graph_is_served_unchanged(
    graph_path: Path, tmp_path: Path, read: Callable[..., ModuleType], schema: ModuleType, shapes64: Split
) -> None:
    folder = triton_from_artifact(graph_path, tmp_path / "models", profile=Profile(64, 256))
    assert folder == tmp_path / "models" / "tiny"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    config = read(folder)
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == 256
    assert list(config.dynamic_batching.preferred_batch_size) == [64, 256]
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert (folder / "labels.txt").read_text().splitlines() == list(CIFAR10_CLASSES)
    (group,) = config.instance_group
    assert schema.ModelInstanceGroup.Kind.Name(group.kind) == "KIND_AUTO"
    # Names, types and sizes are those of the graph, without its first size, N, which Triton adds.
    graph = onnx.load(folder / "1" / "model.onnx").graph
    for declared, real in zip([*config.input, *config.output], [*graph.input, *graph.output], strict=True):
        assert declared.name == real.name
        assert schema.DataType.Name(declared.data_type) == TYPES[real.type.tensor_type.elem_type]
        first, *others = real.type.tensor_type.shape.dim
        assert first.dim_param
        assert list(declared.dims) == [size.dim_value for size in others]
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    (logits_NK,) = session.run([config.output[0].name], {config.input[0].name: shapes64.images_NHWC})
    assert logits_NK.shape == (64, *config.output[0].dims)


def test_plan_and_profile_are_those_of_the_engine(tmp_path: Path, read: Callable[..., ModuleType]) -> None:
    write_engine(tmp_path / "small.fp16.engine", PLAN, INFO)
    folder = triton_from_artifact(tmp_path / "small.fp16.engine", tmp_path / "models", profile=Profile(64, 256))
    config = read(folder)
    assert config.name == "small.fp16"
    assert config.platform == "tensorrt_plan"
    assert config.max_batch_size == 16
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert (folder / "1" / "model.plan").read_bytes() == PLAN
    assert list(config.input[0].dims) == list(INFO.card.input.shape)
    assert (folder / "config.pbtxt").read_text().startswith("# ")
    assert "tensorrt 11.4.0.106 for NVIDIA H100" in (folder / "config.pbtxt").read_text().splitlines()[0]


def test_engines_of_rtx_and_damaged_engines_are_refused(tmp_path: Path) -> None:
    engine = tmp_path / "a.engine"
    write_engine(engine, PLAN, replace(INFO, flavor="tensorrt-rtx"))
    with pytest.raises(UsageError, match="not of TensorRT-RTX; build one with --flavor tensorrt"):
        triton_from_artifact(engine, tmp_path / "models", profile=Profile(1, 1))
    write_engine(engine, PLAN, INFO)
    engine.write_bytes(PLAN.replace(b"plan", b"code"))
    with pytest.raises(ArtifactError, match=r"a\.engine: "):
        triton_from_artifact(engine, tmp_path / "models", profile=Profile(1, 1))
    assert not (tmp_path / "models").exists()


def test_unusual_names_and_labels_stay_on_one_line(
    graph_path: Path, tmp_path: Path, card: ModelCard, read: Callable[..., ModuleType]
) -> None:
    unusual = replace(card, arch='x"\nplatform: "python', classes=("a\nb", "c d", *CIFAR10_CLASSES[2:]))
    engine = tmp_path / 'my "net"\n\U0001f600.engine'
    write_engine(engine, PLAN, replace(INFO, card=unusual))
    folder = triton_from_artifact(engine, tmp_path, profile=Profile(1, 1))
    assert folder.name == "my_net"
    assert read(folder).platform == "tensorrt_plan"
    assert (folder / "labels.txt").read_text().splitlines()[:3] == ["a b", "c d", "bird"]
    shutil.copy(graph_path, tmp_path / "x y.onnx")
    assert triton_from_artifact(tmp_path / "x y.onnx", tmp_path, profile=Profile(1, 1)).name == "x_y"


def test_a_second_write_gives_the_same_files(graph_path: Path, tmp_path: Path) -> None:
    folder = triton_from_artifact(graph_path, tmp_path, profile=Profile(8, 8))
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    triton_from_artifact(graph_path, tmp_path, profile=Profile(8, 8))
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert "preferred_batch_size: [ 8 ]" in (folder / "config.pbtxt").read_text()


def test_the_configuration_names_a_temperature_for_clients(
    graph_path: Path, tmp_path: Path, read: Callable[..., ModuleType]
) -> None:
    graph, card = load_graph(graph_path)
    plain = triton_from_artifact(graph_path, tmp_path / "plain", profile=Profile(64, 256), name="same")
    set_card(graph, replace(card, temperature=1.25))
    (tmp_path / "warm.onnx").write_bytes(graph.SerializeToString())
    warm = triton_from_artifact(tmp_path / "warm.onnx", tmp_path / "warm", profile=Profile(64, 256), name="same")
    read(warm)
    before, after = ((folder / "config.pbtxt").read_text().splitlines() for folder in (plain, warm))
    assert before[0] == f"# resnet8v1, fp32; checkpoint {card.checkpoint_sha256}"
    assert after[0] == (
        f"# resnet8v1, fp32; probabilities: softmax of the logits / 1.25; checkpoint {card.checkpoint_sha256}"
    )
    assert after[1:] == before[1:]
    assert checkpoint_in(warm) == checkpoint_in(plain) == card.checkpoint_sha256
