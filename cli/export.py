"""rtk export."""

import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..core.artifacts.engine import Profile
from ..core.errors import UsageError
from ..core.text import text_table
from ..export.config import EngineConfig
from .options import DataDir

_log = logging.getLogger(__name__)


def export(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A checkpoint, with --trt a graph too, with --triton an engine too, or a model of the zoo. "
            "Several checkpoints become one model, an ensemble.",
        ),
    ],
    trt: Annotated[bool, typer.Option("--trt", help="Build a TensorRT engine from the graph.")] = False,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8; default: fp32, or a graph's own.", show_default=False)
    ] = None,
    int8_flavor: Annotated[str, typer.Option(help="int8 for whom: tensorrt or cpu.")] = "tensorrt",
    keep_fp32: Annotated[
        list[str] | None, typer.Option(help="int8: a layer to leave in fp32; repeatable.", show_default=False)
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="int8: show what each layer costs, and write nothing.")
    ] = False,
    require_parity: Annotated[
        str | None,
        typer.Option(
            help="Leave no file unless the whole test split is answered like the reference does: points that may be "
            "lost, default, mlperf-99 or mlperf-99.9; exit code 4.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Its training split calibrates int8, its test split is --require-parity's; default: the model's.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    flavor: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt-rtx.")] = EngineConfig.flavor,
    max_batch: Annotated[int, typer.Option(help="The largest batch of the engine.")] = EngineConfig.max_batch,
    opt_batch: Annotated[
        int | None, typer.Option(help="The batch that the engine is fastest at; default: 64.", show_default=False)
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Compute capability to build for, such as 8.9; repeatable; RTX only.")
    ] = None,
    workspace_mib: Annotated[
        int | None, typer.Option(help="Scratch memory of a layer, at most.", show_default=False)
    ] = None,
    hardware_compatibility: Annotated[
        str, typer.Option(help="none, ampere-plus or same-compute-capability; not for RTX.")
    ] = EngineConfig.hardware_compatibility,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later minor versions may run the engine; not for RTX.")
    ] = EngineConfig.version_compatible,
    cache: Annotated[bool, typer.Option(help="Take the engine from the cache, and keep it there.")] = True,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write a model repository for NVIDIA Triton, too.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: beside the model.")] = None,
) -> None:
    """Export a model: checkpoint -> ONNX graph, checked before it is written; with --trt -> TensorRT engine."""
    from ..bench.parity.verdict import requirement
    from ..core.artifacts.checkpoint import load_checkpoint
    from ..core.artifacts.engine import SUFFIX, json_path
    from ..core.data.datasets import open_dataset
    from ..core.files import make_folder, temporary_folder, write_whole
    from ..core.nvidia.flavor import choose_flavor
    from ..core.tolerances import precision_named
    from ..workflow.artifacts import export_graph
    from ..workflow.models import find_model, find_reference, read_card

    model = models[0]
    found = find_model(model)
    as_it_is = not found.checkpoint and not trt
    if (found.engine and trt) or (as_it_is and (triton is None or precision)):
        raise UsageError(f"{model}: expected a checkpoint; an engine is made from a graph with --trt")
    if as_it_is and require_parity is not None:
        raise UsageError(f"{model}: nothing is exported that --require-parity could judge; use rtk bench")
    if precision is not None:
        precision_named(precision)
    if precision != "int8" and (keep_fp32 or explain or (dataset and require_parity is None)):
        raise UsageError("--keep-fp32, --explain and --dataset go with --precision int8")
    if explain and require_parity is not None:
        raise UsageError("--explain writes nothing that --require-parity could judge")
    if trt:  # before an export that would have been for nothing
        chosen = choose_flavor(flavor)
        if triton is not None:
            from ..export.triton import check_flavor

            check_flavor(chosen.name)
    folder = out or (Path() if found.in_zoo else found.given.parent)
    if not explain:
        make_folder(folder)
    with ExitStack() as stack:
        making, made, joined = folder, list[Path](), list[Path]()
        if require_parity is not None or explain:  # what is made may not be left
            making = stack.enter_context(temporary_folder(None if explain else folder))
        if len(models) > 1:
            joined.append(ensemble(models, making))
            found = find_model(str(joined[0]))
            _log.info(f"{found.name}: an ensemble of {len(models)}")
        config = EngineConfig(
            graph=found.graph or folder / f"{found.name}.onnx",
            out=folder,
            flavor=flavor,
            max_batch=max_batch,
            opt_batch=opt_batch,
            targets=tuple(target or ()),
            workspace_mib=workspace_mib,
            hardware_compatibility=hardware_compatibility,
            version_compatible=version_compatible,
            cache=cache,
            precision=precision,
        )
        gate = None
        if require_parity is not None:
            from ..workflow.parity_gate import Gate

            required = requirement(require_parity)
            labelled = open_dataset(dataset or read_card(found).dataset, data_dir=data_dir)
            gate = Gate(find_reference(found), labelled, required)
        if found.checkpoint and precision == "int8":
            graph = export_int8(
                found.checkpoint,
                making / f"{found.name}.int8.onnx",
                flavor=int8_flavor,
                keep_fp32=tuple(keep_fp32 or ()),
                dataset=dataset,
                data_dir=data_dir,
                explained=explain,
            )
            if graph is None:
                return
            made.append(graph)
        elif trt and found.in_zoo and found.graph and precision in (None, "fp32"):
            made.append(making / found.graph.name)
            write_whole(made[0], found.graph.read_bytes())
        elif found.checkpoint:
            wanted = precision or "fp32"
            path = making / (f"{found.name}.onnx" if wanted == "fp32" else f"{found.name}.{wanted}.onnx")
            exported = export_graph(load_checkpoint(found.checkpoint), path, precision=wanted)
            _log.info(f"largest logit difference from PyTorch: {exported.largest_difference:.2g}")
            made.append(exported.path)
        config = replace(config, out=making, graph=made[0] if made else config.graph)
        if gate:
            _log.info(gate.judge_graph(config.graph, noting=bool(made)).to_text())
        if trt:
            made.append(build_engine(config))
            if gate:
                verdict = gate.judge_engine(made[-1])
                _log.info(
                    verdict.to_text() if verdict else "the engine itself could not be judged here: its JSON says so"
                )
        for path in (*joined, *made):
            if making != folder:
                path.replace(folder / path.name)
                if path.suffix == SUFFIX:
                    json_path(path).replace(json_path(folder / path.name))
        for path in made:
            print(folder / path.name)
    if triton is not None:
        from ..export.triton import triton_from_artifact

        artifact = folder / made[-1].name if made else found.given
        print(triton_from_artifact(artifact, triton, profile=Profile(config.fastest_at, config.max_batch)))
        _log.info(f"to serve it: tritonserver --model-repository={triton}")


def ensemble(models: list[str], folder: Path) -> Path:
    """rtk export A B ...: the ensemble's checkpoint."""
    from ..export.ensemble import ensemble_from_checkpoints
    from ..workflow.models import find_model

    checkpoints = []
    for name in models:
        member = find_model(name)
        if member.checkpoint is None:
            raise UsageError(f"{name}: an ensemble is made of checkpoints")
        checkpoints.append(member.checkpoint)
    return ensemble_from_checkpoints(checkpoints, folder)


def build_engine(config: EngineConfig) -> Path:
    """rtk export --trt: build the engine and say what it is."""
    from ..export.trt.build import engine_from_onnx

    built = engine_from_onnx(config)
    _log.info(
        f"from the cache: {built.info.plan_bytes:,} bytes" if built.cached else f"built in {built.info.build_s:.1f} s"
    )
    _log.info(f"{built.info.flavor} {built.info.version} for {built.info.built_for}; {built.info.profile}")
    _log.info(f"precision: {built.info.precision}")
    return built.path


def export_int8(
    checkpoint: Path,
    path: Path,
    *,
    flavor: str,
    keep_fp32: tuple[str, ...],
    dataset: str | None,
    data_dir: Path | None,
    explained: bool,
) -> Path | None:
    """rtk export --precision int8: calibrate and quantise, or with `explained` only show what each layer costs."""
    from ..core.artifacts.checkpoint import load_checkpoint
    from ..core.data.datasets import open_dataset
    from ..export.int8.calibration import draw_calibration
    from ..export.int8.quantize import Int8Config, int8_flavor_named, int8_from_checkpoint
    from ..export.int8.sensitivity import explain

    config = Int8Config(flavor=int8_flavor_named(flavor), keep_fp32=keep_fp32)
    loaded = load_checkpoint(checkpoint)
    calibration = draw_calibration(open_dataset(dataset or loaded.card.dataset, data_dir=data_dir), loaded.card)
    if explained:
        rows = [
            {
                "layer": cost.layer,
                "operator": cost.operator,
                "relative error": f"{cost.relative_error:.2%}",
                "largest difference": f"{cost.largest_difference:.2g}",
            }
            for cost in explain(loaded, calibration=calibration, config=config)
        ]
        print(text_table(rows))
        return None
    made = int8_from_checkpoint(loaded, path, calibration=calibration, config=config)
    largest = made.tried[made.method].largest_difference
    _log.info(
        f"calibrated by {made.method} on {len(calibration.images_NHWC):,} training images; on {made.images:,} others "
        f"{made.agreeing:,} answers agree with PyTorch's, largest logit difference {largest:.2g}"
    )
    return made.path
