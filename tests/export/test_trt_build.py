"""Engine builds: with the real TensorRT-RTX, and the same flow with stand-ins for TensorRT 10, 11 and RTX."""

import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from fakes.tensorrt_stand_in import (
    H100,
    RTX4090,
    SIZE,
    VERSIONS,
    Script,
    Stage,
    members,
    small_card,
    staged,
    write_graph,
)
from onnx import TensorProto, helper
from rtk.core.artifacts.engine import json_path, read_engine_info, read_plan, write_engine
from rtk.core.artifacts.engine_cache import cached_engines, find_engine
from rtk.core.artifacts.graph import set_card
from rtk.core.errors import ArtifactError, BackendError, OutputError, UnavailableError, UnknownNameError, UsageError
from rtk.core.nvidia.flavor import FLAVORS
from rtk.export.config import EngineConfig
from rtk.export.trt.build import engine_from_onnx, engine_in_cache
from rtk.export.trt.hardware import DEFAULT_TARGETS

ROOT = Path(__file__).parent.parent.parent
real_rtx = pytest.mark.skipif(not FLAVORS["tensorrt-rtx"].installed, reason="needs the package tensorrt-rtx")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    yield from staged(monkeypatch)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def no_gpu(stage: Stage) -> Stage:
    """A machine without a GPU, and without the regular TensorRT."""
    stage.libcuda()
    stage.without("tensorrt")
    return stage


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "small.onnx")


# Real builds.


@real_rtx
def test_a_graph_becomes_an_engine_with_a_json_file(no_gpu: Stage, graph: Path) -> None:
    built = engine_from_onnx(EngineConfig(graph, max_batch=16, opt_batch=4))
    assert built.path == graph.with_name("small.engine")
    info = read_engine_info(built.path)
    assert info == built.info
    assert read_plan(built.path, info) == built.path.read_bytes()
    assert info.card == small_card()
    assert (info.flavor, info.version) == ("tensorrt-rtx", FLAVORS["tensorrt-rtx"].version())
    assert (info.gpu, info.compute_capability, info.targets) == ("", "", DEFAULT_TARGETS)
    assert (info.profile.opt_batch, info.profile.max_batch) == (4, 16)
    assert info.graph_sha256 == hashlib.sha256(graph.read_bytes()).hexdigest()
    assert 0 < info.build_s < 60
    assert not built.cached


@real_rtx
def test_the_plan_contains_the_short_card(no_gpu: Stage, graph: Path) -> None:
    built = engine_from_onnx(EngineConfig(graph, max_batch=16))
    plan = built.path.read_bytes()
    assert b'"rtk": 1, "name": "small"' in plan
    assert built.info.graph_sha256.encode() in plan


@real_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_the_engine_has_the_precision_of_the_graph(no_gpu: Stage, tmp_path: Path, precision: str) -> None:
    graph = write_graph(tmp_path / f"small.{precision}.onnx", precision)
    info = engine_from_onnx(EngineConfig(graph, max_batch=4, precision=precision)).info
    assert info.precision.label == precision
    assert info.precision.products == {precision: 2}
    assert not info.precision.inspected
    assert "not yet inspected" in str(info.precision)
    assert json_path(tmp_path / f"small.{precision}.engine").is_file()


@real_rtx
@pytest.mark.parametrize(
    ("precision", "claims", "product", "requested", "message"),
    [
        ("fp32", "fp16", None, None, "fp16 was requested, .*: 2 fp32"),
        (
            "fp32",
            None,
            None,
            "fp16",
            "fp16 was requested, .*: 2 fp32; export the checkpoint again: rtk export CHECKPOINT --trt --precision fp16",
        ),
        ("fp16", None, None, "fp32", "fp32 was requested, .*: 2 fp16"),
        ("fp32", None, "fp16", "fp32", "fp32 was requested, .*: 1 fp32, 1 fp16"),
        ("fp16", None, None, "int8", "int8 was requested, .*: 2 fp16"),
    ],
)
def test_a_requested_precision_that_the_graph_lacks_is_an_error(
    no_gpu: Stage,
    tmp_path: Path,
    precision: str,
    claims: str | None,
    product: str | None,
    requested: str | None,
    message: str,
) -> None:
    graph = write_graph(tmp_path / "small.onnx", precision, claims=claims, product=product)
    with pytest.raises(ArtifactError, match=message):
        engine_from_onnx(EngineConfig(graph, max_batch=4, precision=requested))
    assert not (tmp_path / "small.engine").exists()


@real_rtx
def test_the_label_of_a_mixed_graph_names_both_precisions(no_gpu: Stage, tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "small.onnx", "fp16", product="fp32")
    assert engine_from_onnx(EngineConfig(graph, max_batch=4)).info.precision.label == "fp16+fp32"


@real_rtx
@pytest.mark.parametrize(("opt", "largest"), [(1, 1), (1, 8), (8, 8), (64, 4096)])
def test_every_profile_builds(no_gpu: Stage, graph: Path, opt: int, largest: int) -> None:
    profile = engine_from_onnx(EngineConfig(graph, opt_batch=opt, max_batch=largest)).info.profile
    assert (profile.opt_batch, profile.max_batch) == (opt, largest)


@real_rtx
def test_an_engine_is_built_for_named_targets(no_gpu: Stage, graph: Path) -> None:
    built = engine_from_onnx(EngineConfig(graph, max_batch=4, targets=("8.9", "12.0")))
    assert built.info.targets == ("8.9", "12.0")
    assert built.info.built_for == "compute capability 8.9, 12.0"


@real_rtx
def test_the_error_for_an_unknown_target_lists_the_known_ones(no_gpu: Stage, graph: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--target 9\.0: .* cannot build for it; known: 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12\.1"
    ):
        engine_from_onnx(EngineConfig(graph, max_batch=4, targets=("9.0",)))


@real_rtx
def test_an_error_of_the_builder_is_reported_in_its_own_words(no_gpu: Stage, graph: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"small\.onnx: tensorrt-rtx cannot build an engine: .*Turing \(SM75\)"
    ) as error:
        engine_from_onnx(EngineConfig(graph, max_batch=4, targets=("7.5",)))
    assert "\n" not in str(error.value)
    assert engine_from_onnx(EngineConfig(graph, max_batch=4)).path.is_file()


def broken_graph(path: Path) -> Path:
    """A graph whose first node TensorRT refuses: only a Cast may read uint8."""
    nodes = [
        helper.make_node("Transpose", ["images"], ["transposed"], perm=[0, 3, 1, 2], name="too early"),
        helper.make_node("Cast", ["transposed"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 192])]
    inputs = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *SIZE.shape])]
    model = helper.make_model(
        helper.make_graph(nodes, "broken", inputs, outputs), opset_imports=[helper.make_opsetid("", 20)]
    )
    set_card(model, small_card())
    onnx.save(model, path)
    return path


@real_rtx
def test_the_error_for_a_refused_graph_names_node_and_reason(no_gpu: Stage, tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError,
        match=r"broken\.onnx: refused by TensorRT's parser: node 0 'too early' \(Transpose\): .*has type UInt8",
    ) as error:
        engine_from_onnx(EngineConfig(broken_graph(tmp_path / "broken.onnx")))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.onnx"]


@pytest.mark.parametrize("content", [None, b"", b"not a graph", b"\x08\x07"])
def test_a_file_that_is_not_a_graph_is_refused_before_tensorrt_is_loaded(
    no_gpu: Stage, tmp_path: Path, content: bytes | None
) -> None:
    stand_in = no_gpu.tensorrt("tensorrt-rtx")
    if content is not None:
        (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"bad\.onnx: "):
        engine_from_onnx(EngineConfig(tmp_path / "bad.onnx"))
    assert stand_in.calls == []


def test_a_truncated_graph_is_refused(no_gpu: Stage, graph: Path) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    graph.write_bytes(graph.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match=r"small\.onnx: "):
        engine_from_onnx(EngineConfig(graph))


# The cache.


def test_a_second_build_comes_from_the_cache(no_gpu: Stage, graph: Path, tmp_path: Path) -> None:
    trt = no_gpu.tensorrt("tensorrt-rtx")
    first = engine_from_onnx(EngineConfig(graph, max_batch=16))
    trt.calls.clear()
    second = engine_from_onnx(EngineConfig(graph, max_batch=16, out=tmp_path / "elsewhere" / "deep"))
    assert (first.cached, second.cached) == (False, True)
    assert trt.calls == []
    assert second.path == tmp_path / "elsewhere" / "deep" / "small.engine"
    assert second.path.read_bytes() == first.path.read_bytes()
    assert second.info == read_engine_info(second.path) == first.info
    assert len(cached_engines()) == 1


def test_the_cache_finds_the_same_graph_under_another_name(no_gpu: Stage, graph: Path) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    engine_from_onnx(EngineConfig(graph, max_batch=16))
    other = graph.with_name("other.onnx")
    other.write_bytes(graph.read_bytes())
    built = engine_from_onnx(EngineConfig(other, max_batch=16))
    assert built.cached
    assert built.path.name == "other.engine"


@pytest.mark.parametrize(
    "changes",
    [{"max_batch": 8}, {"opt_batch": 2}, {"targets": ("8.9",)}, {"workspace_mib": 64}, {"cache": False}],
)
def test_other_options_give_another_engine(no_gpu: Stage, graph: Path, changes: dict[str, Any]) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    engine_from_onnx(EngineConfig(graph, max_batch=16))
    assert not engine_from_onnx(replace(EngineConfig(graph, max_batch=16), **changes)).cached


def test_a_cached_engine_does_not_hide_a_missing_precision(no_gpu: Stage, graph: Path) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    engine_from_onnx(EngineConfig(graph, max_batch=16))
    with pytest.raises(ArtifactError, match="fp16 was requested"):
        engine_from_onnx(EngineConfig(graph, max_batch=16, precision="fp16"))


def test_a_damaged_cache_entry_is_built_again(no_gpu: Stage, graph: Path) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    engine_from_onnx(EngineConfig(graph, max_batch=16))
    (entry,) = cached_engines()
    entry.engine.write_bytes(b"damaged")
    assert not engine_from_onnx(EngineConfig(graph, max_batch=16)).cached
    assert find_engine(entry.key) == entry.engine


def test_a_cached_engine_whose_json_has_another_card_is_built_again(
    no_gpu: Stage, graph: Path, caplog: pytest.LogCaptureFixture
) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    built = engine_in_cache(EngineConfig(graph, max_batch=16))
    rotated = replace(built.info.card, classes=(*built.info.card.classes[1:], built.info.card.classes[0]))
    write_engine(built.path, read_plan(built.path, built.info), replace(built.info, card=rotated))
    again = engine_in_cache(EngineConfig(graph, max_batch=16))
    assert (again.cached, again.path, again.info.card) == (False, built.path, built.info.card)
    (line,) = caplog.messages
    assert "its JSON has another card than" in " ".join(line.split())


def test_an_engine_of_other_build_code_is_not_found(
    no_gpu: Stage, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    engine_in_cache(EngineConfig(graph, max_batch=16))
    monkeypatch.setattr("rtk.export.trt.build.sources_sha256", lambda *folders: "other code")
    assert not engine_in_cache(EngineConfig(graph, max_batch=16)).cached
    assert len(cached_engines()) == 2


def test_an_engine_in_the_cache_is_opened_where_it_lies(no_gpu: Stage, graph: Path, tmp_path: Path) -> None:
    trt = no_gpu.tensorrt("tensorrt-rtx")
    built = engine_in_cache(EngineConfig(graph, max_batch=16))
    trt.calls.clear()
    found = engine_in_cache(EngineConfig(graph, max_batch=16))
    assert (built.cached, found.cached) == (False, True)
    assert trt.calls == []
    assert built.path == found.path
    assert found.path.is_relative_to(tmp_path / "cache" / "engines")
    assert found.info == read_engine_info(found.path)
    assert sorted(path.name for path in tmp_path.rglob("*.engine")) == ["small.engine"]
    assert list(tmp_path.rglob("*.lock")) == []


def full_disk(path: Path, content: object = None) -> Path:
    raise OutputError(f"{path}: cannot be written: No space left on device")


def test_a_full_cache_does_not_take_a_finished_engine_away(
    no_gpu: Stage, graph: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    monkeypatch.setattr("rtk.core.artifacts.engine_cache.make_folder", full_disk)
    built = engine_from_onnx(EngineConfig(graph, max_batch=16))
    assert read_engine_info(graph.with_suffix(".engine")) == built.info
    (line,) = caplog.messages
    assert "No space left on device; the engine is not kept for the next time; set RTK_CACHE_DIR" in line


def test_timings_that_cannot_be_kept_do_not_take_a_finished_engine_away(
    stage: Stage, graph: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_a_gpu(stage, "tensorrt 11")
    monkeypatch.setattr("rtk.core.sealed_files.write_whole", full_disk)
    assert engine_from_onnx(EngineConfig(graph, max_batch=16)).path.is_file()
    (line,) = caplog.messages
    assert "No space left on device; the builder's timings are not kept" in line


def test_a_folder_that_cannot_be_written_is_an_output_error(no_gpu: Stage, graph: Path, tmp_path: Path) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken"):
        engine_from_onnx(EngineConfig(graph, out=tmp_path / "taken"))


# The same flow on every version.


def on_a_gpu(stage: Stage, kind: str, script: Script | None = None) -> Any:
    """That TensorRT on a GPU that it supports; the other flavour is not installed."""
    stage.libcuda(RTX4090 if "rtx" in kind else H100)
    stage.without("tensorrt" if "rtx" in kind else "tensorrt_rtx")
    return stage.tensorrt(kind, script)


@pytest.mark.parametrize("kind", VERSIONS)
def test_a_build_makes_these_calls_in_this_order_on_every_version(stage: Stage, kind: str, graph: Path) -> None:
    trt = on_a_gpu(stage, kind)
    built = engine_from_onnx(EngineConfig(graph, opt_batch=4, max_batch=16, workspace_mib=64))
    calls = [(name, *(arguments if "verbosity" not in name else [arguments[0].name])) for name, *arguments in trt.calls]
    calls = [call for call in calls if "progress_monitor" not in call[0]]
    size = SIZE.shape
    targets = [("IBuilderConfig.num_compute_capabilities=", 0)]
    timing = [("IBuilderConfig.create_timing_cache", b""), ("IBuilderConfig.set_timing_cache", False)]
    assert calls == [
        ("Builder.create_network", 2 if kind == "tensorrt 10" else 0),
        ("OnnxParser.parse",),
        ("INetworkDefinition.name=", calls[2][1]),
        ("IBuilderConfig.clear_flag", "TF32"),
        ("IBuilderConfig.profiling_verbosity=", "DETAILED"),
        ("IBuilderConfig.set_memory_pool_limit", "WORKSPACE", 64 * 2**20),
        *(targets if "rtx" in kind else []),
        ("IOptimizationProfile.set_shape", "images", (1, *size), (4, *size), (16, *size)),
        ("IBuilderConfig.add_optimization_profile",),
        *([] if "rtx" in kind else timing),
        ("Builder.build_serialized_network",),
        *([("Runtime.get_engine_validity",)] if "rtx" in kind else []),
        ("Runtime.deserialize_cuda_engine",),
    ]
    assert json.loads(calls[2][1])["name"] == "small"
    gpu = RTX4090 if "rtx" in kind else H100
    assert (built.info.gpu, built.info.compute_capability) == (gpu.name, gpu.compute_capability)
    assert (built.info.targets, built.info.version) == ((), trt.__version__)


@pytest.mark.parametrize("kind", ["tensorrt 10", "tensorrt 11"])
def test_the_hardware_compatibility_reaches_the_builder(stage: Stage, kind: str, graph: Path) -> None:
    trt = on_a_gpu(stage, kind)
    config = EngineConfig(graph, hardware_compatibility="ampere-plus", max_batch=16)
    options = engine_from_onnx(config).info.options
    assert ("IBuilderConfig.hardware_compatibility_level=", trt.HardwareCompatibilityLevel.AMPERE_PLUS) in trt.calls
    assert options["hardware_compatibility"] == "ampere-plus"


def test_timings_are_stored_for_the_next_build_on_this_gpu(stage: Stage, graph: Path, tmp_path: Path) -> None:
    trt = on_a_gpu(stage, "tensorrt 11")
    engine_from_onnx(EngineConfig(graph, max_batch=16))
    engine_from_onnx(EngineConfig(graph, max_batch=8))
    given = [call[1] for call in trt.calls if call[0] == "IBuilderConfig.create_timing_cache"]
    assert given == [b"", b"timings"]
    (stored,) = (tmp_path / "cache" / "timings").iterdir()
    assert stored.name == "tensorrt-11.4.0.106-NVIDIA-H100-9.0.sealed"


def test_the_layers_are_those_of_the_engine_inspector(stage: Stage, graph: Path) -> None:
    layers = [{"Outputs": [{"DataType": "Float"}]}] * 3
    on_a_gpu(stage, "tensorrt 11", Script(inspector=json.dumps({"Layers": layers})))
    precision = engine_from_onnx(EngineConfig(graph, max_batch=16)).info.precision
    assert precision.inspected
    assert precision.layers == {"fp32": 3}
    assert "not yet inspected" not in str(precision)


def test_the_gpu_context_is_current_during_the_build_and_stays_retained_after_it(stage: Stage, graph: Path) -> None:
    library = stage.libcuda(H100)
    stage.tensorrt("tensorrt 11", Script(plan=None, log=["out of memory"]))
    with pytest.raises(ArtifactError, match=r"tensorrt cannot build an engine: out of memory"):
        engine_from_onnx(EngineConfig(graph, max_batch=16))
    assert library.pushed == ["retain", "push", "pop"]


def test_turing_is_named_to_rtx_because_it_is_not_among_its_defaults(stage: Stage, graph: Path) -> None:
    trt = on_a_gpu(stage, "tensorrt-rtx")
    stage.libcuda(replace(RTX4090, name="NVIDIA GeForce RTX 2080", compute_capability="7.5"))
    engine_from_onnx(EngineConfig(graph, max_batch=16))
    assert ("IBuilderConfig.set_compute_capability", "SM75", 0) in trt.calls


def test_a_target_that_rtx_refuses_is_an_error(no_gpu: Stage, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = no_gpu.tensorrt("tensorrt-rtx")
    monkeypatch.setattr(trt.IBuilderConfig, "set_compute_capability", lambda *_: False)
    with pytest.raises(UsageError, match=r"--target 8\.9: TensorRT-RTX cannot build for it"):
        engine_from_onnx(EngineConfig(graph, max_batch=16, targets=("8.9",)))


def test_all_errors_of_the_parser_are_reported(stage: Stage, graph: Path) -> None:
    errors = [
        {"desc": "first\nreason", "node": 3, "name": "conv", "operator": "Conv"},
        {"desc": "second reason"},
    ]
    on_a_gpu(stage, "tensorrt 11", Script(parser_errors=errors))
    with pytest.raises(ArtifactError, match=r"parser: node 3 'conv' \(Conv\): first reason; second reason$"):
        engine_from_onnx(EngineConfig(graph))


def test_a_gpu_that_rtx_does_not_support_is_an_error_of_the_build(stage: Stage, graph: Path) -> None:
    on_a_gpu(stage, "tensorrt-rtx", Script(validity=("INVALID", 2)))
    reason = r"tensorrt-rtx 1\.7\.1\.116 does not support this GPU \(UNSUPPORTED_CC\); .* or use --backend onnx$"
    with pytest.raises(UnavailableError, match=reason):
        engine_from_onnx(EngineConfig(graph))


@pytest.mark.parametrize("script", [Script(plan=None), Script(parser_errors=[{"desc": "no plugin"}])])
@pytest.mark.parametrize("kind", list(VERSIONS))
def test_what_a_failed_build_made_is_gone_while_the_gpu_is_current(
    stage: Stage, kind: str, graph: Path, script: Script
) -> None:
    trt = on_a_gpu(stage, kind, script)
    library = stage.libcuda(RTX4090 if "rtx" in kind else H100)
    gone: list[tuple[str, str]] = []
    for name in ("Builder", "INetworkDefinition", "OnnxParser", "IBuilderConfig"):
        made = getattr(trt, name)
        made.__del__ = lambda self: gone.append((type(self).__name__, library.pushed[-1]))
    with pytest.raises(ArtifactError) as caught:
        engine_from_onnx(EngineConfig(graph))
    assert {name for name, _ in gone} >= {"Builder", "INetworkDefinition", "OnnxParser"}
    assert {last for _, last in gone} == {"push"}
    assert library.pushed[-1] == "pop"
    del caught


def test_an_engine_that_does_not_load_on_the_building_machine_is_an_error(stage: Stage, graph: Path) -> None:
    on_a_gpu(stage, "tensorrt 11", Script(loads=False, log=["version tag does not match"]))
    with pytest.raises(
        BackendError, match="does not load on this machine: the engine was built by another version of TensorRT"
    ):
        engine_from_onnx(EngineConfig(graph, max_batch=16))
    assert not graph.with_name("small.engine").exists()


def test_ctrl_c_stops_the_build_and_leaves_no_file(stage: Stage, graph: Path) -> None:
    script = Script(at_step=lambda: os.kill(os.getpid(), signal.SIGINT), steps=100)
    trt = on_a_gpu(stage, "tensorrt 11", script)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        engine_from_onnx(EngineConfig(graph, max_batch=16))
    assert signal.getsignal(signal.SIGINT) is before
    assert trt.calls[-1] == ("Builder.build_serialized_network",)
    assert not graph.with_name("small.engine").exists()
    assert cached_engines() == []


@real_rtx
def test_ctrl_c_stops_a_real_build(no_gpu: Stage, graph: Path) -> None:
    from rtk.export.trt.build_progress import BuildProgress

    def press(self: BuildProgress, phase: str) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return not self.interrupted

    no_gpu.monkeypatch.setattr(BuildProgress, "step", press)
    with pytest.raises(KeyboardInterrupt):
        engine_from_onnx(EngineConfig(graph, max_batch=16))
    no_gpu.monkeypatch.undo()
    assert not graph.with_name("small.engine").exists()


def test_progress_bars_are_drawn_only_on_a_terminal(
    stage: Stage, graph: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(stage, "tensorrt 11")
    engine_from_onnx(EngineConfig(graph, max_batch=16, cache=False))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    engine_from_onnx(EngineConfig(graph, max_batch=16, cache=False))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Building engine" in shown.err


# Members that a version lacks.


@pytest.mark.parametrize(
    ("kind", "owner", "name"),
    [
        ("tensorrt 11", "BuilderFlag", "FP16"),
        ("tensorrt 11", "BuilderFlag", "BF16"),
        ("tensorrt 11", "BuilderFlag", "INT8"),
        ("tensorrt 11", "BuilderFlag", "FP8"),
        ("tensorrt-rtx", "BuilderFlag", "FP16"),
        ("tensorrt 11", "NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
        ("tensorrt-rtx", "NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
        ("tensorrt 10", "ComputeCapability", "SM89"),
        ("tensorrt 11", "CudaGraphStrategy", "DISABLED"),
        ("tensorrt 11", "IInt8EntropyCalibrator2", ""),
    ],
)
def test_a_stand_in_lacks_the_members_that_its_version_lacks(stage: Stage, kind: str, owner: str, name: str) -> None:
    trt = stage.tensorrt(kind)
    with pytest.raises(AttributeError, match=f"{owner}|{name or owner}"):
        getattr(getattr(trt, owner), name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in VERSIONS for name in ("max_workspace_size", "max_batch_size")),
        ("tensorrt 11", "int8_calibrator"),
        ("tensorrt-rtx", "int8_calibrator"),
        ("tensorrt 10", "num_compute_capabilities"),
    ],
)
def test_a_stand_in_refuses_settings_that_its_version_lacks(stage: Stage, kind: str, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        setattr(stage.tensorrt(kind).IBuilderConfig(), name, 1)


def test_no_source_file_uses_a_member_that_a_later_version_removed() -> None:
    ten, eleven, rtx = (members(version) for version in VERSIONS.values())
    enums = {(owner, name) for owner, (kind, *names) in ten.items() if kind == "E" for name in names}
    later = {(owner, name) for version in (eleven, rtx) for owner, (_, *names) in version.items() for name in names}
    gone = {f"{owner}.{name}" for owner, name in enums - later} | {name for name in ten if name not in eleven}
    assert {"BuilderFlag.FP16", "IInt8Calibrator", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"} <= gone
    gone |= {"max_workspace_size", "platform_has_fast_fp16", "set_dynamic_range", "int8_calibrator", "build_engine"}
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(gone)))
    sources = [path for room in ("core", "export", "infer") for path in (ROOT / room).rglob("*.py")]
    assert ROOT / "export" / "trt" / "builder_settings.py" in sources
    for source in sources:
        assert pattern.findall(source.read_text()) == [], source


# Options.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batch": 0}, "--max-batch 0"),
        ({"max_batch": 8, "opt_batch": 9}, r"--opt-batch 9: expected 1 to --max-batch, 8"),
        ({"opt_batch": 0}, "--opt-batch 0"),
        ({"workspace_mib": 0}, "--workspace-mib 0: expected at least 1"),
        ({"hardware_compatibility": "all"}, "known: none, ampere-plus, same-compute-capability"),
        (
            {"flavor": "tensorrt", "targets": ("8.9",)},
            "--target: only tensorrt-rtx .* use --flavor tensorrt-rtx",
        ),
    ],
)
def test_invalid_options_are_usage_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EngineConfig(Path("x.onnx"), **changes)


def test_an_unknown_flavor_is_refused_by_the_config() -> None:
    with pytest.raises(UnknownNameError, match="auto, tensorrt, tensorrt-rtx"):
        EngineConfig(Path("x.onnx"), flavor="openvino")


def test_compatibility_levels_are_refused_for_rtx(no_gpu: Stage, graph: Path) -> None:
    no_gpu.tensorrt("tensorrt-rtx")
    with pytest.raises(UsageError, match="name compute capabilities"):
        engine_from_onnx(EngineConfig(graph, hardware_compatibility="ampere-plus"))


def test_tensorrt_builds_only_on_a_gpu(stage: Stage, graph: Path) -> None:
    stage.libcuda()
    stage.tensorrt("tensorrt 11")
    with pytest.raises(BackendError, match=r"tensorrt builds only on a GPU: .*--flavor tensorrt-rtx"):
        engine_from_onnx(EngineConfig(graph, flavor="tensorrt"))


def test_the_gpu_to_build_on_must_exist(stage: Stage, graph: Path) -> None:
    on_a_gpu(stage, "tensorrt 11")
    with pytest.raises(BackendError, match="cuda:1: this machine has 1 CUDA GPU"):
        engine_from_onnx(EngineConfig(graph, device=1))
