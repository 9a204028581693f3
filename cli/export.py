"""rtk export."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.text import text_table
from ..export.config import EngineConfig, Int8Config
from ..export.opset import FIRST, IR_VERSIONS, OPSET
from . import help as groups
from .network_options import AllowCode
from .options import DataDir

if TYPE_CHECKING:
    from ..export.int8.sensitivity import LayerCost

_log = logging.getLogger(__name__)


def export(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A checkpoint or a model of the zoo; with --trt also a graph, with --triton also an engine. "
            "Several checkpoints become one model, an ensemble.",
        ),
    ],
    allow_code: AllowCode = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, bf16 or int8; default: fp32, or the precision of the given graph.",
            show_default=False,
            rich_help_panel=groups.PRECISION,
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            help=f"ONNX opset of the graph, {min(IR_VERSIONS)} to {max(IR_VERSIONS)}; default: {OPSET}, for bf16 "
            f"{FIRST['bf16']}.",
            show_default=False,
            rich_help_panel=groups.OUTPUT,
        ),
    ] = None,
    int8_flavor: Annotated[
        str,
        typer.Option(
            help="Target runtime of the int8 graph: tensorrt, cpu for ONNX Runtime and OpenVINO, or openvino alone.",
            rich_help_panel=groups.PRECISION,
        ),
    ] = Int8Config.flavor,
    int8_method: Annotated[
        str,
        typer.Option(
            help="How int8 ranges are chosen: minmax, percentile-99.99, percentile-99.999, mse, mse-each-end, or "
            "auto for the best of them on held-out images.",
            rich_help_panel=groups.PRECISION,
        ),
    ] = Int8Config.method,
    int8_weight_bits: Annotated[
        str,
        typer.Option(
            help="Bits of int8 weights: 8; 7 for x86 processors without VNNI; auto for this processor.",
            rich_help_panel=groups.PRECISION,
        ),
    ] = Int8Config.weight_bits,
    calibration_images: Annotated[
        int,
        typer.Option(
            help="Number of training images to measure int8 ranges on; at least 32, and as many as there are.",
            rich_help_panel=groups.PRECISION,
        ),
    ] = Int8Config.calibration_images,
    keep_fp32: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="Layer of the int8 graph that stays in fp32; repeatable.",
            show_default=False,
            rich_help_panel=groups.PRECISION,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="List the error that int8 adds in each layer, and write no file.",
            rich_help_panel=groups.PRECISION,
        ),
    ] = False,
    require_parity: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS|PRESET",
            help="Write files only if parity holds on the whole test split; exit code 4 if not, 5 if the images are "
            "too few; a given graph is only judged. Number of accuracy points that may be lost, default, mlperf-99 or "
            "mlperf-99.9.",
            show_default=False,
            rich_help_panel=groups.PARITY,
        ),
    ] = None,
    trt: Annotated[
        bool,
        typer.Option("--trt", help="Build a TensorRT engine from the graph.", rich_help_panel=groups.TENSORRT),
    ] = False,
    flavor: Annotated[
        str, typer.Option(help="auto, tensorrt or tensorrt-rtx.", rich_help_panel=groups.TENSORRT)
    ] = EngineConfig.flavor,
    max_batch: Annotated[
        int, typer.Option(help="Largest batch size of the engine.", rich_help_panel=groups.TENSORRT)
    ] = EngineConfig.max_batch,
    opt_batch: Annotated[
        int | None,
        typer.Option(
            help="Batch size that TensorRT optimises for; default: 64, or --max-batch if that is smaller.",
            show_default=False,
            rich_help_panel=groups.TENSORRT,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="GPU to build on: auto, cuda or cuda:N. Without a GPU only tensorrt-rtx builds.",
            rich_help_panel=groups.TENSORRT,
        ),
    ] = "auto",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Compute capability to build for, such as 8.9; repeatable; tensorrt-rtx only.",
            show_default=False,
            rich_help_panel=groups.TENSORRT,
        ),
    ] = None,
    workspace_mib: Annotated[
        int | None,
        typer.Option(
            help="Largest scratch memory of one layer, in MiB; default: TensorRT's own limit.",
            show_default=False,
            rich_help_panel=groups.TENSORRT,
        ),
    ] = None,
    hardware_compatibility: Annotated[
        str,
        typer.Option(
            help="GPUs that can run the engine: none for the GPU model of the build, ampere-plus or "
            "same-compute-capability; tensorrt only.",
            rich_help_panel=groups.TENSORRT,
        ),
    ] = EngineConfig.hardware_compatibility,
    cache: Annotated[
        bool,
        typer.Option(
            help="Use the engine in the cache if there is one, and store a new engine there.",
            rich_help_panel=groups.TENSORRT,
        ),
    ] = EngineConfig.cache,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set for int8 (its training split) and --require-parity (its test split); default: the data set "
            "of the model.",
            show_default=False,
            rich_help_panel=groups.DATA,
        ),
    ] = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the files; default: the folder of the model.",
            show_default=False,
            rich_help_panel=groups.OUTPUT,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the files and of the Triton model; default: that of the given file, or the model's own for "
            "a run's best.pt or last.pt.",
            show_default=False,
            rich_help_panel=groups.OUTPUT,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files of other models.", rich_help_panel=groups.OUTPUT)
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write a model repository for NVIDIA Triton.",
            show_default=False,
            rich_help_panel=groups.OUTPUT,
        ),
    ] = None,
) -> None:
    """Export a model: checkpoint -> ONNX graph, compared with PyTorch; with --trt -> TensorRT engine."""
    options = {name: value for name, value in locals().items() if name != "allow_code"}  # its callback has read it
    from ..workflow.export_options import export_config, run_export

    config = export_config(**options)
    done = run_export(config)
    if config.explain:
        print(cost_table(list(done.costs)))
        return
    if done.verdict is not None:
        print(done.verdict.summary())
    for path in done.files:
        print(path)
    if done.triton is not None:
        print(done.triton)
        _log.info(f"to serve it: tritonserver --model-repository={config.triton}")


def cost_table(costs: "list[LayerCost]") -> str:
    """Return the errors that int8 adds in the layers as a table."""
    return text_table(
        [
            {
                "layer": cost.layer,
                "operator": cost.operator,
                "relative RMS error": f"{cost.relative_error:.2%}",
                "largest difference": f"{cost.largest_difference:.2g}",
            }
            for cost in costs
        ]
    )
