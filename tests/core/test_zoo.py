"""The models of the zoo match their cards and a new export."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from rtk.bench.parity.compare import all_logits, compare
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.artifacts.graph import load_graph
from rtk.core.data.open_dataset import open_dataset
from rtk.core.files import sha256_of
from rtk.core.zoo import DEFAULT, zoo_card, zoo_file, zoo_names
from rtk.export.to_onnx import onnx_from_checkpoint
from rtk.infer.backend import BackendOptions
from rtk.infer.open_backend import open_backend
from rtk.workflow.models import find_model

RunGraph = Callable[[bytes, NDArray[np.uint8]], NDArray[np.float32]]


def test_the_error_for_a_model_that_cannot_be_added_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rtk.tools.add_to_zoo", str(tmp_path / "none.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"rtk: {tmp_path}/none.pt: no such checkpoint\n")


def test_the_default_model_exists() -> None:
    assert DEFAULT in zoo_names()


@pytest.mark.parametrize("name", zoo_names())
def test_checkpoint_graph_and_card_agree(name: str) -> None:
    card, checkpoint = zoo_card(name), load_checkpoint(zoo_file(name, ".pt"))
    assert card == checkpoint.card
    assert card.checkpoint_sha256 == sha256_of(zoo_file(name, ".pt"))
    _, graph_card = load_graph(zoo_file(name, ".onnx"))
    assert graph_card.checkpoint_sha256 == card.checkpoint_sha256
    assert (graph_card.arch, graph_card.classes, graph_card.score) == (card.arch, card.classes, card.score)


@pytest.mark.parametrize("name", zoo_names())
def test_the_card_names_where_the_weights_come_from(name: str) -> None:
    training = zoo_card(name).training
    assert training is not None
    assert training.recipe
    assert training.epochs > 0
    assert training.train_s > 0
    assert training.machine
    assert len(training.commit) >= 12
    assert "+" not in training.commit  # the commit of a tree without local changes


@pytest.mark.parametrize("name", zoo_names())
def test_a_model_is_small_enough_for_the_package(name: str) -> None:
    for suffix in (".pt", ".onnx"):
        assert zoo_file(name, suffix).stat().st_size < 8 << 20


@pytest.mark.parametrize("name", zoo_names())
def test_a_new_export_gives_the_graph_of_the_zoo(name: str, tmp_path: Path, run_in_onnxruntime: RunGraph) -> None:
    again = onnx_from_checkpoint(
        load_checkpoint(zoo_file(name, ".pt")), tmp_path / "again.onnx", run_graph=run_in_onnxruntime
    )
    packaged, made = onnx.load(zoo_file(name, ".onnx")), onnx.load(again.path)
    assert [node.op_type for node in packaged.graph.node] == [node.op_type for node in made.graph.node]
    for one, other in zip(packaged.graph.initializer, made.graph.initializer, strict=True):
        np.testing.assert_allclose(numpy_helper.to_array(one), numpy_helper.to_array(other), atol=1e-6)


@pytest.mark.data
@pytest.mark.parametrize("name", zoo_names())
def test_every_backend_has_the_accuracy_on_the_card_and_the_same_answers(name: str, real_data: Path) -> None:
    card = zoo_card(name)
    assert card.score is not None
    split = open_dataset(card.dataset, data_dir=real_data).split("test")
    cpu = BackendOptions(device="cpu")
    with open_backend("torch", zoo_file(name, ".pt"), cpu) as reference:
        reference_NK = all_logits(reference, split.images_NHWC)
    with open_backend("onnx", zoo_file(name, ".onnx"), cpu) as candidate:
        parity = compare("onnx", reference_NK, all_logits(candidate, split.images_NHWC), split.labels_N)
    assert parity.images == card.score.total == 10_000
    assert parity.agreeing == 10_000
    assert parity.largest_difference <= 1e-4
    # Another machine rounds differently, which may change the answer for one or two images with close logits.
    assert abs(parity.reference_correct - card.score.correct) <= 3


def test_the_card_is_readable_json() -> None:
    for name in zoo_names():
        text = zoo_file(name, ".json").read_text()
        assert json.loads(text)["name"] == name


@pytest.mark.parametrize("name", zoo_names())
def test_the_path_of_a_checkpoint_finds_the_graph_too(name: str) -> None:
    assert find_model(str(zoo_file(name, ".pt"))) == find_model(name)
    assert find_model(name).graph == zoo_file(name, ".onnx")


def test_a_checkpoint_with_a_temperature_is_found_by_its_own_checksum_in_the_zoo(
    shapes_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from rtk.core.artifacts.checkpoint import save_checkpoint
    from rtk.core.card import Score, TemperatureFit, Training
    from rtk.tools.add_to_zoo import publish

    loaded = load_checkpoint(shapes_model)
    fit = TemperatureFit("shapes", "holdout", 40, 0.1, 1.0, 0.9, 0.2, 0.1)
    fitted = replace(loaded.card, name="mine", temperature=1.5, temperature_fit=fit, checkpoint_sha256="a" * 64)
    assert isinstance(fitted.score, Score)
    assert isinstance(fitted.training, Training)
    save_checkpoint(shapes_model, fitted, loaded.weights)
    assert load_checkpoint(shapes_model).card.checkpoint_sha256 == "a" * 64
    (tmp_path / "zoo").mkdir()
    monkeypatch.setattr("rtk.core.zoo.FOLDER", tmp_path / "zoo")
    publish(shapes_model, note="")
    card = zoo_card("mine")
    assert card.temperature == 1.5
    assert card.checkpoint_sha256 == sha256_of(zoo_file("mine", ".pt"))
