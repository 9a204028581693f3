"""rtk.export: an export as `rtk export` does it."""

from collections.abc import Sequence

from ..export.config import EngineConfig, Int8Config
from ..workflow.export_options import ExportResult, export_config, run_export
from .argument_types import checked
from .arguments import PathLike, allow, path_or_none, several, text, text_or_none
from .own_call import own_call


@checked
def export(
    models: PathLike | Sequence[PathLike],
    *,
    allow_code: str | Sequence[str] | None = None,
    precision: str | None = None,
    opset: int | None = None,
    int8_flavor: str = Int8Config.flavor,
    int8_method: str = Int8Config.method,
    int8_weight_bits: str = Int8Config.weight_bits,
    calibration_images: int = Int8Config.calibration_images,
    keep_fp32: str | Sequence[str] | None = None,
    explain: bool = False,
    require_parity: str | float | None = None,
    trt: bool = False,
    flavor: str = EngineConfig.flavor,
    max_batch: int = EngineConfig.max_batch,
    opt_batch: int | None = None,
    device: str = "auto",
    target: str | Sequence[str] | None = None,
    workspace_mib: int | None = None,
    hardware_compatibility: str = EngineConfig.hardware_compatibility,
    cache: bool = EngineConfig.cache,
    dataset: PathLike | None = None,
    data_dir: PathLike | None = None,
    out: PathLike | None = None,
    name: str | None = None,
    force: bool = False,
    triton: PathLike | None = None,
) -> ExportResult:
    """Export a model: checkpoint -> ONNX graph, compared with PyTorch; with `trt` -> TensorRT engine.

    The options are those of `rtk export`, which explains each. `models`: a checkpoint, a graph, an engine or a model of
    the zoo; several checkpoints become one model, an ensemble.

    With `require_parity`, files are written only if parity holds. Raises ParityError if it does not and
    InconclusiveError if the images are too few to show it: then there is no file. Raises UsageError, ArtifactError,
    DataError, BackendError and OutputError otherwise. All of them are RtkError.
    """
    with own_call():
        allow(allow_code)
        return run_export(
            export_config(
                models=[text(models)]
                if not isinstance(models, Sequence) or isinstance(models, str)
                else [*map(text, models)],
                precision=precision,
                opset=opset,
                int8_flavor=int8_flavor,
                int8_method=int8_method,
                int8_weight_bits=int8_weight_bits,
                calibration_images=calibration_images,
                keep_fp32=several(keep_fp32),
                explain=explain,
                require_parity=None if require_parity is None else str(require_parity),
                trt=trt,
                flavor=flavor,
                max_batch=max_batch,
                opt_batch=opt_batch,
                device=device,
                target=several(target),
                workspace_mib=workspace_mib,
                hardware_compatibility=hardware_compatibility,
                cache=cache,
                dataset=text_or_none(dataset),
                data_dir=path_or_none(data_dir),
                out=path_or_none(out),
                name=name,
                force=force,
                triton=path_or_none(triton),
            )
        )
