"""Real TensorRT-RTX builds of real networks: families, sizes, channels and profiles, one factor varied at a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.tensorrt_stand_in import Stage, staged
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.card import Input, ModelCard
from rtk.core.models.model import build_model
from rtk.core.nvidia.flavor import FLAVORS
from rtk.export.config import EngineConfig
from rtk.export.to_onnx import RunGraph, onnx_from_checkpoint
from rtk.export.trt.build import BuiltEngine, engine_from_onnx

pytestmark = pytest.mark.skipif(not FLAVORS["tensorrt-rtx"].installed, reason="needs the package tensorrt-rtx")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    for stage in staged(monkeypatch):
        stage.libcuda()
        yield stage


def built(checkpoint: Path, run_graph: RunGraph) -> BuiltEngine:
    graph = checkpoint.with_suffix(".onnx")
    onnx_from_checkpoint(load_checkpoint(checkpoint), graph, run_graph=run_graph)
    return engine_from_onnx(EngineConfig(graph, flavor="tensorrt-rtx", max_batch=64, cache=False))


def test_a_v1_network_for_32_x_32_rgb_images_is_built(graph_path: Path, tmp_path: Path) -> None:
    info = engine_from_onnx(EngineConfig(graph_path, out=tmp_path, flavor="tensorrt-rtx", cache=False)).info
    assert info.card.arch == "resnet8v1"
    assert info.precision.products == {"fp32": 10}  # 7 convolutions, 2 projections and the dense layer
    assert info.plan_bytes == (tmp_path / "tiny.engine").stat().st_size


@pytest.mark.parametrize("profile", [(1, 1), (64, 256), (1024, 1024), (1, 4096)])
def test_every_profile_of_a_network_is_built(graph_path: Path, tmp_path: Path, profile: tuple[int, int]) -> None:
    config = EngineConfig(graph_path, out=tmp_path, flavor="tensorrt-rtx", opt_batch=profile[0], max_batch=profile[1])
    assert engine_from_onnx(config).info.precision.label == "fp32"


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("resnet11v2", Input(32, 32, 3)),
        ("resnet8v1", Input(32, 32, 1)),
        ("resnet8v1", Input(28, 28, 3)),
        ("resnet8v1", Input(96, 96, 3)),
        ("plain8", Input(32, 32, 3)),
        ("resnet18", Input(28, 28, 1)),
        pytest.param("resnet50", Input(96, 96, 3), marks=pytest.mark.slow),
        pytest.param("resnet18d2l", Input(96, 96, 1), marks=pytest.mark.slow),
    ],
)
def test_other_families_channels_and_sizes_are_built(
    save_untrained: Callable[..., Path], run_in_onnxruntime: RunGraph, tmp_path: Path, arch: str, size: Input
) -> None:
    info = built(save_untrained(tmp_path / "model.pt", arch=arch, size=size), run_in_onnxruntime).info
    assert info.card.input == size
    assert info.precision.label == "fp32"


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet164v2", pytest.param("resnet1001v2", marks=pytest.mark.long)])
def test_the_deepest_networks_are_built(
    card: ModelCard, run_in_onnxruntime: RunGraph, tmp_path: Path, arch: str
) -> None:
    deep = replace(card, name=arch, arch=arch)
    # With initial weights, because the larger weights of the other tests overflow at this depth.
    save_checkpoint(tmp_path / "deep.pt", deep, build_model(deep).state_dict())
    info = built(tmp_path / "deep.pt", run_in_onnxruntime).info
    assert sum(info.precision.products.values()) > 164
