"""--backend auto chooses what runs this model on this machine, and a resumed run keeps its backend."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rtk.core.artifacts.graph import load_graph, set_card
from rtk.core.artifacts.parity_cache import remember_parity
from rtk.core.data.synthetic_shapes import draw_shapes
from rtk.infer.fake import FakeBackend

Rtk = Callable[..., str]


@pytest.fixture
def rtk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., tuple[str, str]]) -> Rtk:
    """Runs a command line in tmp_path and returns standard error as one line."""
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("rtk.workflow.select.gpu_count", lambda: 0)
    monkeypatch.setattr("rtk.infer.onnx_backend.gpu_count", lambda: 0)

    def run(*words: str, code: int = 0) -> str:
        _, printed = command_line(*words, code=code)
        return " ".join(printed.split())

    return run


@pytest.fixture
def stopped(rtk: Rtk, graph_path: Path, tmp_path: Path) -> list[str]:
    """The command of a run on onnx that stopped after eight images, at one that cannot be read."""
    for number, image_HWC in enumerate(draw_shapes(10, seed=11)[0]):
        Image.fromarray(image_HWC).save(tmp_path / f"{number}.png")
    (tmp_path / "8.png").write_bytes(b"not an image")
    command = [
        "classify",
        *(f"{number}.png" for number in range(10)),
        "--model",
        str(graph_path),
        "--output",
        "a.jsonl",
    ]
    command += ["--batch-size", "4", "--workers", "0"]
    rtk(*command, "--strict", code=1)
    assert json.loads((tmp_path / "a.jsonl.part.json").read_text())["backend"] == "onnx"
    return [*command, "--resume"]


def test_a_resumed_run_keeps_its_backend_when_another_one_has_become_the_best(
    rtk: Rtk, stopped: list[str], graph_path: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    remember_parity(graph_path, "openvino")
    printed = rtk(*stopped, code=3)
    assert "a.jsonl: resuming on the onnx backend, with which it was started" in printed
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 10


def test_a_resumed_run_does_not_mix_probabilities_of_two_temperatures(
    rtk: Rtk, stopped: list[str], graph_path: Path, tmp_path: Path
) -> None:
    graph, card = load_graph(graph_path)
    set_card(graph, replace(card, temperature=1.5))
    (tmp_path / "warm.onnx").write_bytes(graph.SerializeToString())
    command = [str(tmp_path / "warm.onnx") if word == str(graph_path) else word for word in stopped]
    sha256 = card.checkpoint_sha256[:12]
    assert (
        f"was started with model resnet8v1-cifar10 fp32 {sha256}, not resnet8v1-cifar10 fp32 {sha256} temperature 1.5; "
    ) in rtk(*command, code=2)


def test_a_resumed_run_refuses_another_backend_before_it_opens_one(
    rtk: Rtk, stopped: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.workflow.select.open_model", None)  # calling it would be a TypeError
    assert rtk(*stopped, "--backend", "torch", code=2) == (
        "rtk: a.jsonl: was started with backend onnx, not torch; leave out --backend, or start again without --resume"
    )


def test_a_resumed_run_takes_its_own_backend_by_name(rtk: Rtk, stopped: list[str]) -> None:
    assert "resuming on" not in rtk(*stopped, "--backend", "onnx", code=3)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"backend": 3}'])
def test_a_damaged_key_file_is_one_clear_error(rtk: Rtk, stopped: list[str], tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl.part.json").write_text(content)
    printed = rtk(*stopped, code=2)
    assert printed.startswith(f"rtk: {tmp_path / 'a.jsonl.part'}")
    assert printed.endswith("start again without --resume")


def test_classify_asks_for_an_engine_of_its_batch_size(
    rtk: Rtk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake accepts 16 images, as an engine of the user's that was built for 16."""
    requested: list[int] = []

    def open_small(name: str, *, max_batch: int, **options: object) -> FakeBackend:
        requested.append(max_batch)
        return FakeBackend(name="trt", max_batch=16)

    monkeypatch.setattr("rtk.workflow.select.open_model", open_small)
    Image.fromarray(draw_shapes(1, seed=11)[0][0]).save(tmp_path / "a.png")
    printed = rtk("classify", "a.png", "--batch-size", "2000", "--workers", "0")
    assert requested == [2000]
    assert "trt: batches of 16 images instead of 2,000: the engine was built for no more" in printed
