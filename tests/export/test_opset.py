"""The opset and the IR version of graphs: as requested, with the same logits, and never too new for older runtimes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fakes.parity_network import fitted_checkpoint, patterns_dataset
from numpy.typing import NDArray
from rtk.core.artifacts.checkpoint import Checkpoint, load_checkpoint
from rtk.core.artifacts.graph import load_graph
from rtk.core.card import ModelCard
from rtk.core.errors import ArtifactError, UsageError
from rtk.core.nvidia.flavor import FLAVORS
from rtk.core.probe import probe_images
from rtk.core.zoo import zoo_file, zoo_names
from rtk.export import to_onnx
from rtk.export.config import INT8_FLAVORS, EngineConfig, Int8Config
from rtk.export.ensemble import ensemble_from_checkpoints
from rtk.export.int8.calibration import draw_calibration
from rtk.export.int8.quantize import int8_from_checkpoint
from rtk.export.opset import IR_VERSIONS, OPSET, opset_of
from rtk.export.to_onnx import onnx_from_checkpoint
from rtk.export.trt.build import engine_from_onnx
from rtk.workflow.artifacts import export_graph

RunGraph = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]
ENDS = (min(IR_VERSIONS), max(IR_VERSIONS))
NEWEST_IR = 10
"""What ONNX Runtime 1.20 of October 2024 loads."""


def opset_and_ir(path: Path) -> tuple[int, int]:
    """Return both versions of a graph, which needs no operators of other programs."""
    graph = onnx.load(path)
    (entry,) = graph.opset_import
    assert entry.domain == ""
    return entry.version, graph.ir_version


def agrees(path: Path, checkpoint: Checkpoint, run_graph: RunGraph) -> bool:
    """Whether ONNX Runtime gives PyTorch's logits of a few images."""
    images_NHWC = probe_images(5, checkpoint.card.input, seed=9)
    with torch.inference_mode():
        expected_NK = checkpoint.model()(torch.from_numpy(images_NHWC)).numpy()
    return bool(np.abs(run_graph(path.read_bytes(), images_NHWC) - expected_NK).max() < 2e-3 * expected_NK.std())


# The versions.


def test_an_ir_version_is_that_of_the_release_of_its_opset_and_at_most_10() -> None:
    released: dict[int, int] = {}
    for _, ir_version, opset, *_ in onnx.helper.VERSION_TABLE:
        released.setdefault(opset, ir_version)
    assert {opset: min(released[opset], NEWEST_IR) for opset in range(18, 24)} == IR_VERSIONS


@pytest.mark.parametrize(
    ("precision", "opset"),
    [("fp32", 18), ("fp32", 23), ("fp16", 19), ("bf16", 23), ("fp32", None), ("fp16", None), ("bf16", None)],
)
def test_a_graph_has_the_opset_that_was_asked_for(
    checkpoint_path: Path, tmp_path: Path, run_in_onnxruntime: RunGraph, precision: str, opset: int | None
) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    path = export_graph(checkpoint, tmp_path / "a.onnx", precision=precision, opset=opset).path
    expected = opset or (22 if precision == "bf16" else 20)
    assert opset_and_ir(path) == (expected, IR_VERSIONS[expected])
    onnx.checker.check_model(str(path), full_check=True)
    assert load_graph(path)[1].notes["export"]["opset"] == expected
    if precision != "bf16":  # ONNX Runtime has no bf16 convolution on a CPU
        assert agrees(path, checkpoint, run_in_onnxruntime)


@pytest.mark.parametrize("opset", [None, 18, 21, 23])
def test_int8_graphs_have_it_too(
    card: ModelCard, randomise: Callable[..., None], tmp_path: Path, opset: int | None
) -> None:
    checkpoint = fitted_checkpoint(card, randomise)
    calibration = draw_calibration(patterns_dataset(), checkpoint.card, images=100, held_out=100)
    for flavor in INT8_FLAVORS if opset is None else ("cpu",):
        config = Int8Config(flavor, "minmax", "8", calibration_images=100)
        done = int8_from_checkpoint(
            checkpoint, tmp_path / "a.onnx", calibration=calibration, config=config, opset=opset
        )
        expected = opset or OPSET
        assert opset_and_ir(done.path) == (expected, IR_VERSIONS[expected])
        assert load_graph(done.path)[1].notes["export"]["opset"] == expected
        assert done.agreeing >= 98


def test_an_ensemble_and_the_zoo_are_not_too_new_either(tmp_path: Path, checkpoint_path: Path) -> None:
    ensemble = ensemble_from_checkpoints([checkpoint_path, checkpoint_path], tmp_path)
    graph = export_graph(load_checkpoint(ensemble), tmp_path / "a.onnx").path
    for path in (graph, *(zoo_file(name, ".onnx") for name in zoo_names())):
        assert opset_and_ir(path)[0] == OPSET
        assert opset_and_ir(path)[1] <= NEWEST_IR


OTHERS = [
    pytest.param(arch, opset, marks=() if arch == "resnet11v2" or opset in ENDS else pytest.mark.long)
    for arch in ("resnet11v2", "resnet18", "resnet50")
    for opset in IR_VERSIONS
]


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "opset"), OTHERS)
def test_every_opset_gives_the_logits_of_other_networks_and_steps(
    save_untrained: Callable[..., Path], tmp_path: Path, run_in_onnxruntime: RunGraph, arch: str, opset: int
) -> None:
    untrained = load_checkpoint(save_untrained(tmp_path / "a.pt", arch=arch))
    steps = replace(untrained.card.preprocessing, image_mean=True, resize=(48, 48))
    checkpoint = replace(untrained, card=replace(untrained.card, preprocessing=steps))
    for precision in ("fp32", "fp16"):
        path = onnx_from_checkpoint(
            checkpoint, tmp_path / "a.onnx", run_graph=run_in_onnxruntime, precision=precision, opset=opset
        ).path
        assert opset_and_ir(path) == (opset, IR_VERSIONS[opset])


@pytest.mark.skipif(not FLAVORS["tensorrt-rtx"].installed, reason="needs the package tensorrt-rtx")
@pytest.mark.parametrize("opset", [18, 23])
def test_tensorrt_rtx_builds_the_lowest_and_the_highest(checkpoint_path: Path, tmp_path: Path, opset: int) -> None:
    graph = export_graph(load_checkpoint(checkpoint_path), tmp_path / "a.onnx", opset=opset).path
    built = engine_from_onnx(EngineConfig(graph, flavor="tensorrt-rtx", targets=("8.9",), max_batch=8, cache=False))
    assert built.info.precision.products == {"fp32": 10}


# Refusals.


@pytest.mark.parametrize(
    ("precision", "opset", "message"),
    [
        ("fp32", 17, "--opset 17: expected 18 to 23, or no --opset for 20"),
        ("int8", 24, "--opset 24: expected 18 to 23, or no --opset for 20"),
        (
            "bf16",
            21,
            "--opset 21: convolutions in bf16 begin in opset 22; expected 22 to 23, or another --precision",
        ),
    ],
)
def test_other_opsets_are_refused(precision: str, opset: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        opset_of(precision, opset)
    assert str(caught.value) == message


def test_an_exporter_that_writes_another_opset_is_not_believed(
    checkpoint_path: Path,
    graph_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_in_onnxruntime: RunGraph,
) -> None:
    """PyTorch's exporter logs it when it cannot convert a graph, and returns the graph as it was."""
    monkeypatch.setattr(to_onnx, "_traced", lambda model, images_NHWC, *, opset: onnx.load(graph_path))
    with pytest.raises(ArtifactError, match="exporter wrote opset 20 instead of 18; choose another --opset$"):
        onnx_from_checkpoint(
            load_checkpoint(checkpoint_path), tmp_path / "a.onnx", run_graph=run_in_onnxruntime, opset=18
        )
    assert not (tmp_path / "a.onnx").exists()


def test_the_command_takes_it_and_refuses_it_for_a_graph(
    command_line: Callable[..., tuple[str, str]], checkpoint_path: Path, graph_path: Path, tmp_path: Path
) -> None:
    command_line("export", str(checkpoint_path), "--opset", "18", "--out", "low")
    assert opset_and_ir(tmp_path / "low" / "tiny.onnx") == (18, 8)
    command_line("export", "resnet20v1-cifar10", "--opset", "19", "--out", "zoo")
    assert opset_and_ir(tmp_path / "zoo" / "resnet20v1-cifar10.onnx") == (19, 9)
    _, error = command_line("export", str(graph_path), "--trt", "--opset", "18", code=2)
    assert "--opset: a graph keeps its opset; expected a checkpoint" in " ".join(error.split())
    _, error = command_line("export", str(checkpoint_path), "--precision", "bf16", "--opset", "20", code=2)
    assert "convolutions in bf16 begin in opset 22" in " ".join(error.split())
