"""rtk export: options reach the config, and options that do not fit together are refused before any file is made."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rtk.cli.export import export
from rtk.core.errors import UnknownNameError, UsageError
from rtk.export.config import EngineConfig, Int8Config
from rtk.workflow import export_options as module
from rtk.workflow.export_model import ExportConfig, export_model

OPTION_OF = {"models": "models", "targets": "target"}
"""Parameters of the command whose names differ from those of the fields."""
SET_BY_THE_EXPORT = {"graph", "out", "precision"}
"""Fields of EngineConfig that the workflow sets itself."""


@pytest.fixture
def config_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExportConfig]:
    """Run the command up to the workflow and return its config."""

    def run(*names: str, **options: Any) -> ExportConfig:
        configs: list[ExportConfig] = []
        monkeypatch.setattr(module, "export_model", lambda config: configs.append(config) or [])
        export(list(names or ("model.pt",)), **options)
        return configs[0]

    return run


def test_without_options_the_defaults_are_those_of_the_config(config_of: Callable[..., ExportConfig]) -> None:
    expected = ExportConfig(models=("model.pt",), engine=EngineConfig(Path("model.pt")))
    assert config_of() == expected


def test_every_field_of_the_configs_is_an_option() -> None:
    parameters = set(inspect.signature(export).parameters) - {"allow_code"}  # it takes effect by itself
    fields = {field.name for field in dataclasses.fields(ExportConfig)} - {"engine", "int8"}
    fields |= {field.name for field in dataclasses.fields(EngineConfig)} - SET_BY_THE_EXPORT
    int8 = {field.name: field.name for field in dataclasses.fields(Int8Config)}
    int8 |= {"flavor": "int8_flavor", "method": "int8_method", "weight_bits": "int8_weight_bits"}
    assert {OPTION_OF.get(name, name) for name in fields} | set(int8.values()) == parameters


def test_engine_options_reach_the_engine_config(config_of: Callable[..., ExportConfig]) -> None:
    config = config_of(
        trt=True,
        flavor="tensorrt",
        max_batch=32,
        opt_batch=8,
        device="cuda:1",
        workspace_mib=512,
        hardware_compatibility="ampere-plus",
        cache=False,
    )
    assert config.trt
    assert config.engine == EngineConfig(
        Path("model.pt"),
        flavor="tensorrt",
        max_batch=32,
        opt_batch=8,
        device=1,
        workspace_mib=512,
        hardware_compatibility="ampere-plus",
        cache=False,
    )
    assert config_of(trt=True, target=["8.9", "12.0"]).engine.targets == ("8.9", "12.0")


def test_batch_sizes_without_an_engine_are_those_of_the_triton_configuration(
    config_of: Callable[..., ExportConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "write_triton_repository", lambda config, made: config.triton)
    config = config_of(max_batch=32, opt_batch=8, triton=Path("models"))
    assert (config.engine.max_batch, config.engine.opt_batch) == (32, 8)


def test_int8_options_reach_the_int8_config(config_of: Callable[..., ExportConfig]) -> None:
    config = config_of(
        precision="int8",
        int8_flavor="cpu",
        int8_method="mse",
        int8_weight_bits="7",
        calibration_images=2_000,
        keep_fp32=["network.stem.0"],
    )
    assert config.int8 == Int8Config("cpu", "mse", "7", ("network.stem.0",), 2_000)
    assert config_of(precision="int8", calibration_images=32).int8.calibration_images == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"int8_flavor": "cpu"}, "--int8-flavor: only for --precision int8"),
        ({"int8_method": "mse"}, "--int8-method: only for --precision int8"),
        ({"int8_weight_bits": "8"}, "--int8-weight-bits: only for --precision int8"),
        ({"int8_weight_bits": "7", "precision": "int8"}, "--int8-weight-bits 7: for CPUs only"),
        ({"calibration_images": 600, "precision": "fp16"}, "--calibration-images: only for --precision int8"),
        ({"keep_fp32": ["a"], "explain": True}, "--keep-fp32, --explain: only for --precision int8"),
        ({"dataset": "shapes"}, "--dataset: only for --precision int8 and --require-parity"),
        ({"precision": "int8", "explain": True, "require_parity": "1"}, "omit one of them"),
        ({"target": ["8.9"]}, "^--target: only with --trt$"),
        ({"flavor": "tensorrt", "device": "cuda:1"}, "^--flavor, --device: only with --trt$"),
        ({"workspace_mib": 64, "cache": False}, "^--workspace-mib, --no-cache: only with --trt$"),
        ({"hardware_compatibility": "ampere-plus"}, "^--hardware-compatibility: only with --trt$"),
        ({"max_batch": 32, "opt_batch": 8}, "^--max-batch, --opt-batch: only with --trt$"),
        ({"max_batch": 32, "target": ["8.9"], "triton": Path("models")}, "^--target: only with --trt$"),
        ({"require_parity": "0"}, "expected more than 0"),
        ({"device": "cpu"}, "--device cpu: expected cuda or cuda:N"),
        ({"workspace_mib": 0}, "--workspace-mib 0: expected at least 1"),
        ({"precision": "int8", "calibration_images": 31}, "--calibration-images 31: expected at least 32"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    config_of: Callable[..., ExportConfig], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        config_of(**options)


@pytest.mark.parametrize("options", [{"precision": "fp8"}, {"int8_method": "entropy"}, {"int8_flavor": "gpu"}])
def test_unknown_names_are_refused(config_of: Callable[..., ExportConfig], options: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError, match="is unknown"):
        config_of(**options)


def test_int8_options_for_a_given_graph_are_refused(graph_path: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        (str(graph_path),), out=tmp_path / "out", precision="int8", int8=Int8Config(keep_fp32=("a",)), trt=True
    )
    with pytest.raises(UsageError, match=r"tiny\.onnx: --keep-fp32: expected a checkpoint, not a graph"):
        export_model(config)
    assert not (tmp_path / "out").exists()
