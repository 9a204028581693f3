"""Graphs of networks of other code have the operators of the network, and none for the places of values in memory."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.card import Input
from rtk.core.models.allowed_code import allow_code
from rtk.export.to_onnx import graph_from_checkpoint

PLACES = {"Gather", "GatherND", "GatherElements", "Range", "Shape", "Slice"}
RESNET = "embedding_size=8, hidden_sizes=[8,16], depths=[1,1], layer_type='basic'"
POOLED_TO_ONE = ("fakes.networks:Mobile", f"transformers:ResNetForImageClassification({RESNET})")
"""Networks that average each channel to one value, as most do, by torch's own operator for it."""


@pytest.mark.parametrize("arch", POOLED_TO_ONE, ids=["mobile", "resnet"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_pooling_to_one_value_is_a_mean(
    arch: str, precision: str, save_untrained: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.core.models.allowed_code._allowed", set[str]())
    allow_code("fakes", "transformers")
    path = save_untrained(tmp_path / "a.pt", arch=arch, size=Input(12, 12, 3))
    operators = [node.op_type for node in graph_from_checkpoint(load_checkpoint(path), precision).graph.node]
    assert not PLACES & set(operators)
    assert "ReduceMean" in operators or "GlobalAveragePool" in operators
