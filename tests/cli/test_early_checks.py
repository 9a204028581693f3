"""What can be checked cheaply is checked before data sets and backends are opened."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rtk.core.errors import UsageError
from rtk.infer.backend import BACKENDS, BackendOptions

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., tuple[str, str]]) -> Refused:
    """Runs a command that must fail before it opens a data set or a backend; returns its error."""

    def too_late(*values: object, **options: object) -> None:
        raise AssertionError("opened before the options were checked")

    for name in (
        "core.data.open_dataset.open_dataset",
        "infer.open_backend.open_backend",
        "workflow.select.open_model",
    ):
        monkeypatch.setattr(f"rtk.{name}", too_late)

    def run(*words: str, code: int) -> str:
        _, printed = command_line(*words, code=code)
        assert printed.count("\n") == 1, printed
        return printed.strip()

    return run


@pytest.fixture(params=["bench", "bench-files"])
def command(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_reference_with_another_suffix_is_refused_first(
    refused: Refused, command: str, checkpoint_path: Path, graph_path: Path, tmp_path: Path
) -> None:
    shutil.copy(checkpoint_path, tmp_path / "x.pth")
    assert refused(command, str(graph_path), "--reference", "x.pth", code=1) == (
        "rtk: x.pth: --reference: expected a checkpoint that rtk train wrote, whose suffix is .pt"
    )


def test_a_reference_that_is_no_checkpoint_of_rtk_is_refused_first(
    refused: Refused, command: str, graph_path: Path, tmp_path: Path
) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "x.pt")
    assert "x.pt: a PyTorch file, but not a checkpoint of rtk" in refused(
        command, str(graph_path), "--reference", "x.pt", code=1
    )
    assert "no such checkpoint" in refused(command, str(graph_path), "--reference", "missing.pt", code=1)


def test_a_reference_of_another_kind_of_model_is_refused_first(
    refused: Refused, command: str, graph_path: Path, shapes_model: Path
) -> None:
    printed = refused(command, str(graph_path), "--reference", str(shapes_model), code=1)
    assert printed == (
        f"rtk: {shapes_model}: --reference: it has other classes than {graph_path}; expected the checkpoint of this"
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--backend", "onxx", "rtk: backend 'onxx' is unknown; did you mean onnx? known: torch, onnx, openvino, trt"),
        ("--precision", "fp8", "rtk: precision 'fp8' is unknown;"),
        ("--device", "gpu", "rtk: --device 'gpu': expected auto, cpu, cuda or cuda:N, such as cuda:0"),
    ],
)
def test_an_unknown_name_is_refused_first(
    refused: Refused, command: str, graph_path: Path, option: str, value: str, message: str
) -> None:
    assert refused(command, str(graph_path), option, value, code=2).startswith(message)


def test_a_folder_for_the_report_that_cannot_be_made_is_refused_before_measuring(
    refused: Refused, graph_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    printed = refused("bench", str(graph_path), "--report", "file/report", code=1)
    assert printed == "rtk: file/report: the folder cannot be created: Not a directory"


def test_a_required_parity_of_the_reference_alone_is_refused_before_measuring(
    refused: Refused, graph_path: Path
) -> None:
    printed = refused("bench", str(graph_path), "--backend", "torch", "--require-parity", "default", code=4)
    assert printed == "rtk: --require-parity: there is no backend to judge, except the reference"


def test_an_engine_that_cannot_be_built_here_is_refused_before_the_graph_is_exported(
    refused: Refused, checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr("rtk.export.trt.hardware.gpu_count", lambda: 1)
    words = ["--trt", "--flavor", "tensorrt-rtx", "--hardware-compatibility", "ampere-plus"]
    words += ["--out", str(tmp_path / "out")]
    assert "tensorrt-rtx has no compatibility levels" in refused("export", str(checkpoint_path), *words, code=2)
    assert not (tmp_path / "out").exists()


# Devices.

WRONG = ["gpu", "cuda:x", "cuda:-1", "cuda:", "mps", "CPU", "cuda0", "cuda:1 ", "cuda:²", ""]


@pytest.mark.parametrize("device", WRONG)
def test_the_options_of_every_backend_refuse_an_unknown_device(device: str) -> None:
    with pytest.raises(UsageError) as error:
        BackendOptions(device=device)
    assert str(error.value) == f"--device {device!r}: expected auto, cpu, cuda or cuda:N, such as cuda:0"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_the_options_of_every_backend_accept_a_device_by_its_name(device: str) -> None:
    assert BackendOptions(device=device).device == device


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_classify_refuses_an_unknown_device_for_every_backend(refused: Refused, backend: str, graph_path: Path) -> None:
    words = ["classify", "a.png", "--model", str(graph_path), "--backend", backend, "--device", "mps"]
    assert refused(*words, code=2) == "rtk: --device 'mps': expected auto, cpu, cuda or cuda:N, such as cuda:0"


@pytest.mark.parametrize(
    "words",
    [
        ["train", "resnet20v1", "--dataset", "shapes", "--out", "run"],
        ["export", "resnet20v1-cifar10", "--trt"],
        ["bench-train", "resnet20v1"],
    ],
)
def test_all_commands_with_a_device_refuse_an_unknown_one(refused: Refused, words: list[str]) -> None:
    printed = refused(*words, "--device", "gpu", code=2)
    assert printed == "rtk: --device 'gpu': expected auto, cpu, cuda or cuda:N, such as cuda:0"


def test_the_python_interface_refuses_an_unknown_device(graph_path: Path) -> None:
    import rtk

    with pytest.raises(UsageError, match="--device 'gpu': expected"):
        rtk.load(graph_path, device="gpu")
