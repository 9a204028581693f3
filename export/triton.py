"""A model repository for NVIDIA Triton: DIR/NAME/config.pbtxt, labels.txt and 1/model.onnx or 1/model.plan.

The model contains the preprocessing: clients send uint8 pixels [N, H, W, C] and receive logits, or labels with Triton's
classification extension. The configuration gives the sizes of one image, because Triton adds the batch dimension itself
if max_batch_size is above 0. The fields are defined by ModelConfig in Triton's model_config.proto.
"""

from dataclasses import dataclass
from pathlib import Path

from ..core.artifacts.engine import SUFFIX, Profile, read_engine_info, read_plan
from ..core.artifacts.graph import load_graph
from ..core.artifacts.graph_card import INPUT_NAME, OUTPUT_NAME
from ..core.card import ModelCard
from ..core.errors import UsageError
from ..core.file_names import safe_name
from ..core.files import make_folder, write_whole
from ..core.text import one_line

QUEUE_DELAY_US = 1_000
"""Longest time that a request waits for others to share its batch: short compared with a network round trip."""

CONFIG = "config.pbtxt"
CHECKPOINT = "checkpoint "
"""What is before the SHA-256 of the checkpoint in the first line of a configuration."""


@dataclass(frozen=True)
class Platform:
    """How Triton runs a model file."""

    name: str
    file: str
    instances: int
    """Number of copies of the model on each device."""
    kind: str
    """Triton's name of the device: KIND_GPU, or KIND_AUTO for a GPU if there is one."""


ONNX = Platform("onnxruntime_onnx", "model.onnx", instances=1, kind="KIND_AUTO")
PLAN = Platform("tensorrt_plan", "model.plan", instances=2, kind="KIND_GPU")
"""Two instances: one copies while the other computes."""


def triton_from_artifact(artifact: Path, repository: Path, *, profile: Profile, name: str | None = None) -> Path:
    """Write a graph or an engine into a model repository and return the folder of the model there.

    `profile`: the batch sizes of a graph; an engine has its own. `name`: the model's; default: the stem of the file.
    Each file is written whole or not at all, the configuration last. Raises ArtifactError as load_graph and read_plan
    do, UsageError for an engine of TensorRT-RTX, which Triton cannot run, OutputError.
    """
    if artifact.suffix == SUFFIX:
        info = read_engine_info(artifact)
        check_flavor(info.flavor)
        platform, card, profile, content = PLAN, info.card, info.profile, read_plan(artifact, info)
        made = f"{info.flavor} {info.version} for {info.built_for}"
    else:
        platform, card, content = ONNX, load_graph(artifact)[1], artifact.read_bytes()
        made = ""
    folder = make_folder(model_folder(repository, name or artifact.stem))
    scaled = "" if card.temperature == 1 else f"probabilities: softmax of the logits / {card.temperature!r}"
    facts = (f"{card.arch}, {card.precision}", made, scaled, f"{CHECKPOINT}{card.checkpoint_sha256}")
    write_whole(make_folder(folder / "1") / platform.file, content)
    write_whole(folder / "labels.txt", "".join(f"{one_line(label)}\n" for label in card.classes))
    comment = f"# {one_line('; '.join(filter(None, facts)))}\n"
    write_whole(folder / CONFIG, comment + _config(folder.name, card, platform, profile))
    return folder


def model_folder(repository: Path, name: str) -> Path:
    """Return the folder of a model in a repository; Triton's name of the model is the folder's."""
    return repository / (safe_name(name, ascii_only=True) or "model")


def checkpoint_in(folder: Path) -> str:
    """Return the SHA-256 of the checkpoint of the model in a folder, from its configuration; empty if it has none."""
    try:
        first = (folder / CONFIG).read_text("utf-8", "replace").partition("\n")[0]
    except OSError:
        return ""
    return first.rpartition(CHECKPOINT)[2] if first.startswith("# ") and CHECKPOINT in first else ""


def check_flavor(flavor: str) -> None:
    """Raise UsageError for TensorRT-RTX."""
    if flavor == "tensorrt-rtx":
        raise UsageError(
            "--triton: Triton runs engines of TensorRT, not of TensorRT-RTX; build one with --flavor tensorrt, "
            "or omit --trt: then Triton runs the graph in ONNX Runtime"
        )


def _config(name: str, card: ModelCard, platform: Platform, profile: Profile) -> str:
    preferred = ", ".join(map(str, sorted({profile.opt_batch, profile.max_batch})))
    return f"""\
name: "{name}"
platform: "{platform.name}"
max_batch_size: {profile.max_batch}
input [
  {{
    name: "{INPUT_NAME}"
    data_type: TYPE_UINT8
    dims: [ {", ".join(map(str, card.input.shape))} ]
  }}
]
output [
  {{
    name: "{OUTPUT_NAME}"
    data_type: TYPE_FP32
    dims: [ {len(card.classes)} ]
    label_filename: "labels.txt"
  }}
]
instance_group [
  {{
    count: {platform.instances}
    kind: {platform.kind}
  }}
]
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
}}
"""
