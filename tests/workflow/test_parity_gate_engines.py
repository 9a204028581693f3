"""The parity gate judges an engine only on the GPU and the TensorRT that it was built for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from fakes.engine_files import INFO, PLAN
from fakes.lazy_cuda import LazyCuda
from fakes.tensorrt_stand_in import H100, RTX4090, Script, Stage, staged
from rtk.bench.config import BenchConfig
from rtk.core.artifacts.engine import EngineInfo, read_engine_info, write_engine
from rtk.core.errors import ArtifactError, BackendError
from rtk.infer.backend import BackendOptions
from rtk.workflow.bench_request import BenchRequest
from rtk.workflow.benchmark import _backend_options
from rtk.workflow.parity_gate import Gate

REGULAR = replace(INFO, options={"hardware_compatibility": "none"})
RTX = replace(
    REGULAR, flavor="tensorrt-rtx", version="1.7.1.116", gpu="", compute_capability="", targets=("8.0", "8.9")
)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))
    yield from staged(monkeypatch)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """A gate that takes every engine that runs for a good one."""
    verdict = SimpleNamespace(enforce=lambda: None)
    monkeypatch.setattr(Gate, "_judge", lambda self, backend, precision: (verdict, None))
    monkeypatch.setattr(Gate, "_note", lambda self, parity, ran_on, unchecked: {"unchecked": list(unchecked)})
    return object.__new__(Gate)


def machine(stage: Stage, info: EngineInfo, folder: Path, **script: Any) -> Path:
    """A machine that runs engines of this flavour, and the engine on it."""
    rtx = info.flavor == "tensorrt-rtx"
    stage.libcuda(RTX4090 if rtx else H100)
    stage.tensorrt("tensorrt-rtx" if rtx else "tensorrt 11", Script(machine=stage.pycuda(LazyCuda()), **script))
    write_engine(folder / "small.engine", PLAN, info)
    return folder / "small.engine"


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (
            replace(REGULAR, gpu="NVIDIA A10", compute_capability="8.6"),
            "built for NVIDIA A10 (compute capability 8.6), this machine has NVIDIA H100",
        ),
        (replace(REGULAR, version="11.1.0.1"), "built by tensorrt 11.1.0.1, this machine has 11.4"),
        (replace(RTX, targets=("8.0", "12.0")), "built for compute capability 8.0, 12.0, this machine has "),
        (
            replace(RTX, targets=(), gpu="NVIDIA GeForce RTX 5090", compute_capability="12.0"),
            "built for NVIDIA GeForce RTX 5090 (compute capability 12.0), this machine has ",
        ),
    ],
)
def test_an_engine_for_another_gpu_or_version_is_noted_as_unchecked(
    stage: Stage, gate: Gate, tmp_path: Path, info: EngineInfo, reason: str
) -> None:
    engine = machine(stage, info, tmp_path, loads=False)
    found = gate.judge_engine(engine)
    assert isinstance(found, str)
    assert found.startswith(reason)
    (unchecked,) = read_engine_info(engine).card.notes["parity"]["unchecked"]
    assert unchecked == f"the engine itself: {found}"


def test_an_engine_for_several_gpus_that_does_not_load_here_is_noted_as_unchecked(
    stage: Stage, gate: Gate, tmp_path: Path
) -> None:
    info = replace(REGULAR, options={"hardware_compatibility": "ampere-plus"})
    engine = machine(stage, info, tmp_path, loads=False, log=["no kernel for this GPU"])
    found = gate.judge_engine(engine)
    assert isinstance(found, str)
    assert "no kernel for this GPU" in found


def test_an_engine_for_this_machine_that_does_not_load_is_an_error(stage: Stage, gate: Gate, tmp_path: Path) -> None:
    engine = machine(stage, REGULAR, tmp_path, loads=False, log=["corrupt"])
    with pytest.raises(ArtifactError, match="TensorRT does not load it: corrupt"):
        gate.judge_engine(engine)
    engine = machine(stage, REGULAR, tmp_path, has_context=False)
    with pytest.raises(BackendError, match="no execution context"):
        gate.judge_engine(engine)


@pytest.mark.parametrize(
    ("info", "unchecked"),
    [(REGULAR, []), (RTX, ["the other GPUs that it was built for"])],
)
def test_an_engine_for_this_machine_is_judged(
    stage: Stage, gate: Gate, tmp_path: Path, info: EngineInfo, unchecked: list[str]
) -> None:
    engine = machine(stage, info, tmp_path, max_batch=16)
    assert not isinstance(gate.judge_engine(engine), str)
    assert read_engine_info(engine).card.notes["parity"]["unchecked"] == unchecked


def test_the_note_on_an_engine_replaces_none_of_its_graph(stage: Stage, gate: Gate, tmp_path: Path) -> None:
    """Engines of earlier versions have their graph's note as their own."""
    of_graph = {"images": 10, "right": 9, "unchecked": []}
    for notes in ({"parity": of_graph}, {"graph_parity": of_graph}):
        engine = machine(stage, replace(REGULAR, card=replace(REGULAR.card, notes=notes)), tmp_path, max_batch=16)
        for _ in range(2):
            gate.judge_engine(engine)
            found = read_engine_info(engine).card.notes
            own = {"unchecked": [], "measured_sha256": INFO.plan_sha256}
            assert found == {"graph_parity": of_graph, "parity": own}


def test_no_kernel_changes_while_answers_are_compared_or_timed(
    stage: Stage, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[BackendOptions] = []

    def fail(backend: str, path: Path, options: BackendOptions) -> NoReturn:
        opened.append(options)
        raise BackendError("trt: not here")

    engine = machine(stage, REGULAR, tmp_path)
    monkeypatch.setattr("rtk.workflow.parity_gate.open_backend", fail)
    with pytest.raises(BackendError, match="not here"):
        gate.judge_engine(engine)
    request = BenchRequest("m", None, ("trt",), (), False, None, None, BenchConfig((1,)), False, "cuda", "default")
    opened.append(_backend_options(request))
    assert [options.steady for options in opened] == [True, True]


def test_a_damaged_engine_is_an_error_wherever_it_was_built_for(stage: Stage, gate: Gate, tmp_path: Path) -> None:
    engine = machine(stage, replace(REGULAR, gpu="NVIDIA A10"), tmp_path)
    engine.write_bytes(PLAN[:-1])
    with pytest.raises(ArtifactError, match="truncated"):
        gate.judge_engine(engine)
