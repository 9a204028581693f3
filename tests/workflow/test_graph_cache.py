"""Graphs in the cache: the key has everything that decides what a graph is, and every use checks the content."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rtk.core import own_sources
from rtk.core.artifacts.graph_cache import graph_file, graph_problem, sound_graph
from rtk.core.artifacts.parity_cache import remember_parity
from rtk.core.data.datasets import Dataset, Split
from rtk.core.data.open_dataset import open_dataset
from rtk.core.files import sha256_of
from rtk.export.config import Int8Config
from rtk.export.int8.calibration import Calibration
from rtk.workflow import artifacts
from rtk.workflow.artifacts import cached_fp32_graph, cached_graph, graph_parts, int8_parts
from rtk.workflow.models import find_model
from rtk.workflow.select import backends_for

Rtk = Callable[..., tuple[str, str]]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def image(tmp_path: Path, shapes64: Split) -> str:
    from PIL import Image

    Image.fromarray(shapes64.images_NHWC[0]).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def test_a_swapped_graph_in_the_cache_is_replaced_and_a_line_says_so(
    command_line: Rtk, tmp_path: Path, image: str, save_untrained: Callable[..., Path]
) -> None:
    for seed, name in enumerate(("mine", "other")):
        save_untrained(tmp_path / f"{name}.pt", seed=seed)
    classify = ("classify", image, "--backend", "onnx", "--format", "csv", "--model")
    right, _ = command_line(*classify, "mine.pt")
    wrong, _ = command_line(*classify, "other.pt")
    assert wrong != right
    mine, other = (cached_fp32_graph(tmp_path / f"{name}.pt") for name in ("mine", "other"))
    assert mine is not None
    assert other is not None
    shutil.copy(other, mine)
    assert cached_fp32_graph(tmp_path / "mine.pt") is None
    printed, err = command_line(*classify, "mine.pt")
    assert printed == right
    assert " altered: its sha256 is " in " ".join(err.split())
    assert "it is not used, and made again" in " ".join(err.split())
    assert command_line(*classify, "mine.pt") == (right, "")
    shutil.copy(other, mine)
    shutil.copy(other.with_suffix(".json"), mine.with_suffix(".json"))
    printed, err = command_line(*classify, "mine.pt")
    assert printed == right
    assert "the record beside it is that of another graph" in " ".join(err.split())


def test_a_swapped_graph_in_the_cache_lends_no_backend_its_parity(
    tmp_path: Path, save_untrained: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.workflow.select.gpu_count", lambda: 0)
    for seed, name in enumerate(("mine", "other")):
        save_untrained(tmp_path / f"{name}.pt", seed=seed)
    mine, other = (cached_graph(tmp_path / f"{name}.pt") for name in ("mine", "other"))
    remember_parity(other, "openvino")
    found = find_model(str(tmp_path / "mine.pt"))
    assert backends_for(found, device="cpu") == ["onnx"]
    shutil.copy(other, mine)
    assert backends_for(found, device="cpu") == ["onnx"]


@pytest.mark.parametrize("damage", ["no record", "record", "graph"])
def test_a_damaged_graph_is_made_again(checkpoint_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = cached_graph(checkpoint_path)
    if damage == "no record":
        path.with_suffix(".json").unlink()
    else:
        damaged = path if damage == "graph" else path.with_suffix(".json")
        damaged.write_bytes(damaged.read_bytes()[:100])
    caplog.clear()
    assert cached_graph(checkpoint_path) == path
    assert graph_problem(path) == ""
    assert any("it is not used, and made again" in " ".join(line.split()) for line in caplog.messages)


def test_a_graph_of_other_code_or_another_exporter_is_not_found(
    checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = graph_parts(checkpoint_path)
    assert sorted(parts["libraries"]) == ["onnx", "onnxscript", "torch"]
    assert "onnxruntime" in graph_parts(checkpoint_path, precision="int8")["libraries"]
    path = graph_file(parts)
    monkeypatch.setattr(artifacts, "version_of", lambda name: "99" if name == "onnxscript" else "1")
    assert graph_file(graph_parts(checkpoint_path)) != path
    monkeypatch.undo()
    monkeypatch.setattr(artifacts, "sources_sha256", lambda *folders: "other code")
    assert graph_file(graph_parts(checkpoint_path)) != path


@pytest.mark.parametrize("name", ["__init__.py", "export/to_onnx.py", "core/models/blocks.py"])
def test_a_change_of_any_source_that_makes_a_graph_changes_the_hash(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("export", "core"):
        shutil.copytree(own_sources.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("zoo"))
    shutil.copy(own_sources.ROOT / "__init__.py", tmp_path)
    monkeypatch.setattr(own_sources, "ROOT", tmp_path)
    hash_now = own_sources.sources_sha256.__wrapped__
    before = hash_now("export", "core")
    assert hash_now("export", "core") == before
    with (tmp_path / name).open("a") as file:
        file.write("# changed\n")
    assert hash_now("export", "core") != before


@pytest.mark.torch
def test_all_code_that_an_export_loads_is_in_the_hash(in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process(
        "import sys\nimport rtk.export.int8.quantize, rtk.export.to_onnx, rtk.export.int8.calibration\n"
        "print(*sorted(name for name in sys.modules if name.startswith('rtk.')))"
    )
    packages = {"rtk.train", "rtk.bench"}  # with a call to the API in them, and nothing else
    assert {name.split(".")[1] for name in printed.split() if name not in packages} == {"core", "export"}


def calibration() -> Calibration:
    images_NHWC = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    return Calibration(images_NHWC, images_NHWC + 1, "shapes", 0)


@pytest.mark.parametrize(
    ("config", "drawn"),
    [
        ({"flavor": "cpu"}, {}),
        ({"method": "mse"}, {}),
        ({"keep_fp32": ("a",)}, {}),
        ({"calibration_images": 600}, {}),
        ({}, {"images_NHWC": calibration().images_NHWC[::-1]}),
        ({}, {"held_out_NHWC": calibration().images_NHWC}),
        ({}, {"dataset": "other"}),
        ({}, {"seed": 1}),
    ],
)
def test_an_int8_graph_has_its_whole_calibration_in_its_key(
    checkpoint_path: Path, config: dict[str, Any], drawn: dict[str, Any]
) -> None:
    def key(config: Int8Config, calibration: Calibration) -> str:
        return graph_file(graph_parts(checkpoint_path, precision="int8", int8=int8_parts(config, calibration))).name

    plain = key(Int8Config(), calibration())
    assert key(Int8Config(), calibration()) == plain
    assert key(Int8Config(**config), dataclasses.replace(calibration(), **drawn)) != plain


def test_every_field_of_the_int8_config_and_the_calibration_is_in_the_key() -> None:
    parts = int8_parts(Int8Config(), calibration())
    assert set(parts["config"]) == {field.name for field in dataclasses.fields(Int8Config)}
    assert set(parts["calibration"]) == {field.name for field in dataclasses.fields(Calibration)}


def test_an_int8_graph_of_other_images_of_a_data_set_with_the_same_name_is_not_used(shapes_model: Path) -> None:
    shapes = open_dataset("shapes")

    def mirrored(name: Any) -> Split:
        split = shapes.split(name)
        return Split(np.ascontiguousarray(split.images_NHWC[:, :, ::-1]), split.labels_N)

    first = cached_graph(shapes_model, precision="int8", dataset=shapes)
    assert cached_graph(shapes_model, precision="int8", dataset=shapes) == first
    other = cached_graph(shapes_model, precision="int8", dataset=Dataset("shapes", shapes.classes, mirrored))
    assert other != first
    assert sha256_of(other) != sha256_of(first)


def test_a_graph_of_an_earlier_version_is_not_found(checkpoint_path: Path, graph_path: Path, tmp_path: Path) -> None:
    old = tmp_path / "cache" / "graphs" / f"{sha256_of(checkpoint_path)[:32]}.onnx"
    old.parent.mkdir(parents=True)
    shutil.copy(graph_path, old)
    assert cached_fp32_graph(checkpoint_path) is None
    assert sound_graph(graph_parts(checkpoint_path)) is None
    assert os.listdir(old.parent) == [old.name]


def test_finding_a_graph_in_the_cache_loads_no_heavy_library(in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process(
        "import sys\nfrom rtk.workflow.models import find_model\nfrom rtk.workflow.artifacts import cached_fp32_graph\n"
        "from rtk.core.zoo import zoo_file\nprint(cached_fp32_graph(zoo_file('resnet20v1-cifar10', '.pt')))\n"
        "print('loaded:', sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    )
    assert printed == "None\nloaded: []\n"
