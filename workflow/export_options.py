"""The options of rtk export, as the command and the function have them, and all that they ask for in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..core.nvidia.driver import device_index
from ..export.config import EngineConfig, Int8Config, Int8Flavor, Method, WeightBits
from .export_model import (
    ExportConfig,
    explain_layers,
    export_model,
    judge_given_graph,
    judges_only,
    write_triton_repository,
)

if TYPE_CHECKING:
    from ..bench.parity.verdict import Verdict
    from ..export.int8.sensitivity import LayerCost


@dataclass(frozen=True)
class ExportResult:
    """What an export has made."""

    files: tuple[Path, ...] = ()
    """The graph, the engine, or both; empty if none was asked for."""
    triton: Path | None = None
    """The folder of the model in the repository for Triton."""
    verdict: "Verdict | None" = None
    """The verdict of parity on a graph that was given and only judged."""
    costs: "tuple[LayerCost, ...]" = ()
    """With `explain`: the error that int8 adds in each layer, the largest first."""

    @property
    def graph(self) -> Path | None:
        """The ONNX graph, if one was written."""
        return next((path for path in self.files if path.suffix == ".onnx"), None)

    @property
    def engine(self) -> Path | None:
        """The TensorRT engine, if one was built."""
        return next((path for path in self.files if path.suffix == ".engine"), None)


def export_config(
    *,
    models: Sequence[str],
    precision: str | None,
    opset: int | None,
    int8_flavor: str,
    int8_method: str,
    int8_weight_bits: str,
    calibration_images: int,
    keep_fp32: Sequence[str] | None,
    explain: bool,
    require_parity: str | None,
    trt: bool,
    flavor: str,
    max_batch: int,
    opt_batch: int | None,
    device: str,
    target: Sequence[str] | None,
    workspace_mib: int | None,
    hardware_compatibility: str,
    cache: bool,
    dataset: str | None,
    data_dir: Path | None,
    out: Path | None,
    name: str | None,
    force: bool,
    triton: Path | None,
) -> ExportConfig:
    """The options as a config. Raises UsageError or UnknownNameError."""
    return ExportConfig(
        models=tuple(models),
        out=out,
        precision=precision,
        opset=opset,
        int8=Int8Config(
            flavor=cast(Int8Flavor, int8_flavor),  # Int8Config checks the names
            method=cast(Method, int8_method),
            weight_bits=cast(WeightBits, int8_weight_bits),
            keep_fp32=tuple(keep_fp32 or ()),
            calibration_images=calibration_images,
        ),
        require_parity=require_parity,
        dataset=dataset,
        data_dir=data_dir,
        trt=trt,
        engine=EngineConfig(
            graph=Path(models[0]),
            flavor=flavor,
            max_batch=max_batch,
            opt_batch=opt_batch,
            device=device_index(device),
            targets=tuple(target or ()),
            workspace_mib=workspace_mib,
            hardware_compatibility=hardware_compatibility,
            cache=cache,
        ),
        triton=triton,
        explain=explain,
        name=name,
        force=force,
    )


def run_export(config: ExportConfig) -> ExportResult:
    """Do what the config asks for: list the layers, judge a given graph, or write files. Raises what these raise."""
    if config.explain:
        return ExportResult(costs=tuple(explain_layers(config)))
    if judges_only(config):
        verdict, files = judge_given_graph(config), list[Path]()
    else:
        verdict, files = None, export_model(config)
    triton = write_triton_repository(config, files) if config.triton is not None else None
    return ExportResult(tuple(files), triton, verdict)
