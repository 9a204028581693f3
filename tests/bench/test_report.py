"""The content of a report: intervals, ratios, ceilings, notes, and a documented schema."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes.tensorrt_stand_in import H100, Stage, staged
from onnx import TensorProto, helper
from rtk.bench.config import BenchConfig
from rtk.bench.measure import environment
from rtk.bench.measure.bootstrap import paired_ratio_interval, rate_interval, student_t
from rtk.bench.measure.cell import Cell
from rtk.bench.measure.environment import processors
from rtk.bench.report.report import Report
from rtk.bench.report.tables import throughput_table
from rtk.bench.roofline.graph_cost import operations_of
from rtk.bench.roofline.roofline import Ceiling, DeviceRates, Operations, ceiling_of, share_of
from rtk.core.artifacts.graph import set_card
from rtk.core.card import ModelCard

GRAPH = Operations(matrix=1_000, other=10, image_bytes=100, logits_bytes=20, weight_bytes=400, between_bytes=0)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    yield from staged(monkeypatch)


def noisy_cell(name: str, drift: np.ndarray, scale: float = 1.0) -> Cell:
    return Cell(name, 10, rounds=[[0.01 * scale * float(one)] * 3 for one in drift])


def test_students_quantiles_are_those_of_the_tables() -> None:
    for degrees, expected in ((1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)):
        assert student_t(degrees) == pytest.approx(expected, rel=0.005)


def test_the_95_percent_interval_of_a_rate_holds_the_truth_about_that_often() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        low, high = rate_interval(noisy_cell("a", random.normal(1, 0.05, 10))) or (0, 0)
        held += low <= 1000 <= high
    assert 180 <= held <= 199


def test_rounds_that_resemble_their_neighbours_make_the_interval_wider() -> None:
    """Each of 44 rounds repeats 0.7 of the last one's deviation; intervals over single rounds hold it in 60 %."""
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        off = np.zeros(44)
        for one in range(1, 44):
            off[one] = 0.7 * off[one - 1] + random.normal(0, 0.03)
        low, high = rate_interval(noisy_cell("a", 1 + off)) or (0, 0)
        held += low <= 1000 <= high
    assert held >= 155


def test_drift_of_both_cells_cancels_in_the_ratio() -> None:
    drift = np.linspace(1, 2, 10)
    low, high = paired_ratio_interval(noisy_cell("a", drift), noisy_cell("b", drift, 2.0)) or (0, 0)
    assert (low, high) == (pytest.approx(2), pytest.approx(2))
    assert paired_ratio_interval(Cell("a", 1, rounds=[[1.0]]), Cell("b", 1, rounds=[[1.0]])) is None


def test_ratios_are_to_the_baseline_in_the_same_scope_or_host_to_host() -> None:
    cells = [
        Cell("torch", 8, rounds=[[0.4]] * 3),
        Cell("torch", 8, scope="compute", rounds=[[0.2]] * 3),
        Cell("trt", 8, scope="compute", rounds=[[0.1]] * 3),
        Cell("trt", 8, scope="stream", rounds=[[0.1]] * 3),
        Cell("trt", 1, rounds=[[0.1]] * 3),
        Cell("bad", 8, error="no memory"),
        Cell("early", 8, rounds=[[0.1]] * 3, rejected="rejected: it returns early"),
    ]
    rows = throughput_table(cells, baseline="torch")
    assert [row["x"] for row in rows] == ["1.00", "1.00", "2.00 ±0.00", "4.00 ±0.00", "", "", ""]
    assert rows[5]["images/s"] == "failed: no memory"
    assert rows[6]["images/s"] == "rejected: it returns early"


def test_the_ceiling_names_what_limits_the_rate() -> None:
    rates = DeviceRates("cuda:0", {"fp32": 1e6, "bf16": 4e6}, 1e6, 1e5, 1e4)
    # Ten images: arithmetic 10 ms, memory (1,200 + 400) / 1e6 = 1.6 ms, up 10 ms, down 20 ms.
    for scope, rate, binds in (("compute", 1000, "arithmetic"), ("sync", 250, "copies"), ("stream", 500, "copies")):
        found = ceiling_of(Cell("a", 10, scope=scope), GRAPH, rates)  # type: ignore[arg-type]
        assert found == Ceiling(pytest.approx(rate), binds)
    assert ceiling_of(Cell("a", 10, "bf16", "compute"), GRAPH, rates) == Ceiling(pytest.approx(4000), "arithmetic")
    assert ceiling_of(Cell("a", 10, "int8"), GRAPH, rates) is None
    assert ceiling_of(Cell("a", 10, scope="files"), GRAPH, rates) is None


def test_the_share_of_a_ceiling_is_the_same_on_a_machine_whose_speed_changes() -> None:
    """Ten images take 12.5 ms where the device needs 10 ms, at full speed; then both slow down to a third and recover.

    A ceiling that is measured once gives 56, 168 or 80 %, depending on when it is measured.
    """
    speed_R = np.array([1.0] * 6 + [1 / 3] * 8 + [0.7] * 7)
    cell = Cell("a", 10, rounds=[[0.0125 / speed] * 3 for speed in speed_R])
    rates = DeviceRates.of("cpu", {}, {"fp32": list(1e6 * speed_R), "copy": list(1e9 * speed_R)})
    share = share_of(cell, GRAPH, rates)
    assert share
    assert share.value == pytest.approx(0.8)
    assert share.interval == (pytest.approx(0.8), pytest.approx(0.8))
    assert not share.wrong
    once = [share_of(cell, GRAPH, rates.at_turn(turn)) for turn in (0, 10, 20)]
    assert [one.value for one in once if one] == pytest.approx([0.8 * 0.7, 0.8 * 2.1, 0.8], rel=0.01)
    assert [one.wrong for one in once if one] == [False, True, False]
    assert all(one.interval is None for one in once if one)


def test_operations_are_counted_as_by_hand(card: ModelCard, tmp_path: Path) -> None:
    """A 3 x 3 convolution of 2 to 4 channels on 8 x 8, Relu, mean, and a matrix product to 5 logits."""
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "m"], ["logits"]),
    ]
    weights = {"w": (4, 2, 3, 3), "b": (4,), "m": (4, 5)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    model = helper.make_model(graph, producer_name="rtk", opset_imports=[helper.make_opsetid("", 20)])
    set_card(model, card)
    onnx.save(model, tmp_path / "tiny.onnx")
    counted = operations_of(tmp_path / "tiny.onnx")
    assert counted.matrix == 4 * 64 * (2 * 18 + 1) + 5 * 2 * 4
    assert counted.other == 4 * 64 + 4 * 64
    assert (counted.image_bytes, counted.logits_bytes, counted.weight_bytes) == (128, 20, 4 * (72 + 4 + 20))


def test_every_key_of_the_schema_is_described() -> None:
    schema = Path(__file__).parent.parent.parent / "bench" / "report" / "SCHEMA.md"
    described = set(re.findall(r"`(\w+)`", schema.read_text()))
    for kind in (Report, Cell, BenchConfig, DeviceRates):
        assert {field.name for field in dataclasses.fields(kind)} - {"device"} <= described


def test_processors_are_written_as_ranges() -> None:
    assert processors((0, 1, 2, 5, 7, 8)) == "0-2, 5, 7-8"
    assert processors(()) == ""


def test_a_gpu_that_throttles_is_flagged(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    nvml = ModuleType("pynvml")
    nvml.__spec__ = ModuleSpec("pynvml", None)
    nvml.NVMLError = type("NVMLError", (Exception,), {})
    nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM, nvml.NVML_TEMPERATURE_GPU = 1, 2, 0
    nvml.nvmlInit = nvml.nvmlShutdown = lambda: None
    asked: list[str] = []
    nvml.nvmlDeviceGetHandleByUUID = asked.append
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda gpu: 0x44 | 0x01
    nvml.nvmlDeviceGetClockInfo = lambda gpu, kind: {1: 1980, 2: 2619}[kind]
    nvml.nvmlDeviceGetTemperature = lambda gpu, kind: 71
    nvml.nvmlDeviceGetPowerUsage = lambda gpu: 312_400
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    stage.libcuda(H100, replace(H100, index=1))  # of more GPUs, CUDA_VISIBLE_DEVICES may have left these two
    moment = environment.this_moment("cuda:1")
    assert asked == ["GPU-11111111-1111-1111-1111-111111111111"]
    assert moment.gpu is not None
    assert moment.gpu.text == (
        "1,980 MHz, memory 2,619 MHz, 71 °C, 312 W, THROTTLED by power limit and hardware thermal slowdown"
    )
    nvml.nvmlInit = lambda: (_ for _ in ()).throw(nvml.NVMLError())
    assert environment.gpu_state(0) is None
