"""An engine on disk: `STEM.engine` holds TensorRT's plan, byte for byte; `STEM.engine.json` says what it is.

An engine is executable code. It is loaded only with its JSON beside it, and only when its bytes are those that the
JSON names; trtexec and Triton load the plan as it is.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..card import ModelCard
from ..errors import ArtifactError
from ..files import sha256_of, write_whole

FORMAT = 1
"""The version of the JSON; a newer one is refused with a clear message."""
SUFFIX = ".engine"
NETWORK_NAME_LIMIT = 4_095
"""Bytes; TensorRT replaces a longer `network.name` by one of its own."""


@dataclass(frozen=True)
class Profile:
    """The batch sizes that an engine takes: 1 to `max_batch`, fastest at `opt_batch`."""

    opt_batch: int
    max_batch: int

    def __str__(self) -> str:
        return f"batches of 1 to {self.max_batch}, fastest at {self.opt_batch}"


@dataclass(frozen=True)
class PrecisionAsBuilt:
    """What the layers of an engine really compute in."""

    label: str
    """The data type of the convolutions and matrix products; several, the most frequent first, joined by "+"."""
    products: dict[str, int]
    """Convolutions and matrix products per data type. Fed only by DequantizeLinear, one counts as int8."""
    layers: dict[str, int]
    """All layers per data type of what they give out."""
    inspected: bool = False
    """True when a GPU loaded the engine and its inspector was asked; `layers` are then the engine's, fused ones."""

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.products.items())
        doubt = "" if self.inspected else "; as built, not yet inspected on a GPU"
        return f"{self.label} (convolutions and matrix products: {counts or 'none'}{doubt})"


@dataclass(frozen=True)
class EngineInfo:
    """All that one must know to judge whether an engine runs here, and what it will answer."""

    card: ModelCard
    flavor: str
    """tensorrt or tensorrt-rtx."""
    version: str
    """Of TensorRT; an engine runs with this version only, unless it was built to be version compatible."""
    cuda: str
    """CUDA version that this TensorRT is built for, or empty."""
    gpu: str
    """Name of the GPU that it was built on; empty when built without one."""
    compute_capability: str
    """Of that GPU, such as 9.0."""
    targets: tuple[str, ...]
    """Compute capabilities that it was built for without looking at a GPU; empty when built on one for itself."""
    profile: Profile
    precision: PrecisionAsBuilt
    graph_sha256: str
    plan_sha256: str
    plan_bytes: int
    build_s: float
    """Seconds from the parsed graph to the plan."""
    options: dict[str, Any] = field(default_factory=dict)
    """The builder's options, as used."""
    machine: str = ""
    """That built it."""

    @property
    def built_for(self) -> str:
        """The hardware that it runs on, in words."""
        if self.targets:
            return f"compute capability {', '.join(self.targets)}"
        return f"{self.gpu} (compute capability {self.compute_capability})"

    def to_text(self) -> str:
        """The engine and its card as lines for people."""
        lines = {
            "engine": f"{self.flavor} {self.version}" + (f", CUDA {self.cuda}" if self.cuda else ""),
            "runs on": self.built_for,
            "profile": str(self.profile),
            "as built": str(self.precision),
            "layers": ", ".join(f"{count} {name}" for name, count in self.precision.layers.items()),
            "plan": f"{self.plan_bytes:,} bytes, sha256 {self.plan_sha256}",
            "graph": f"sha256 {self.graph_sha256}",
            "built": f"in {self.build_s:.2f} s on {self.machine}",
            "options": json.dumps(self.options),
        }
        return "\n".join(f"{name:14}{text}" for name, text in lines.items()) + "\n" + self.card.to_text()

    def to_json(self) -> str:
        """The JSON beside the plan."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "card"}
        return json.dumps({"format": FORMAT, **fields, "card": json.loads(self.card.to_json())}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Read the JSON. `source` names the file in errors. Raises ArtifactError when it is not one of rtk's."""
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ArtifactError(f"{source}: damaged: not JSON ({error}); build the engine anew") from error
        if not isinstance(fields, dict) or "plan_sha256" not in fields:
            raise ArtifactError(f"{source}: not the JSON that rtk writes beside an engine; build the engine anew")
        if fields.pop("format", None) != FORMAT:
            raise ArtifactError(f"{source}: has another format than {FORMAT}; use the rtk that wrote it")
        try:
            info = cls(
                **{
                    **fields,
                    "card": ModelCard.from_json(json.dumps(fields["card"]), source=source),
                    "targets": tuple(fields["targets"]),
                    "profile": Profile(**fields["profile"]),
                    "precision": PrecisionAsBuilt(**fields["precision"]),
                }
            )
        except (TypeError, KeyError) as error:
            raise ArtifactError(f"{source}: incomplete ({error}); build the engine anew") from error
        if not _holds_together(info):
            raise ArtifactError(
                f"{source}: contradicts itself: names, sizes and counts do not fit; build the engine anew"
            )
        return info


def json_path(engine: Path) -> Path:
    """Where the JSON of that engine is."""
    return engine.with_name(engine.name + ".json")


def write_engine(engine: Path, plan: bytes, info: EngineInfo) -> None:
    """Write the plan, then its JSON; each whole or not at all. Raises OutputError.

    Stopped in between, the plan has no JSON or another's, and is refused by read_plan.
    """
    write_whole(engine, plan)
    write_whole(json_path(engine), info.to_json())


def read_engine_info(engine: Path) -> EngineInfo:
    """What the JSON beside that engine says; the plan itself is not read.

    Raises ArtifactError when the engine or its JSON is missing or damaged.
    """
    if not engine.is_file():
        raise ArtifactError(f"{engine}: no such engine")
    beside = json_path(engine)
    if not beside.is_file():
        raise ArtifactError(
            f"{engine}: {beside.name} is missing beside it; an engine is code, and without its JSON it is not "
            "loaded; copy both files, or build it anew: rtk export --trt"
        )
    try:
        text = beside.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{beside}: cannot be read ({error}); build the engine anew") from error
    return EngineInfo.from_json(text, source=str(beside))


def read_plan(engine: Path, info: EngineInfo) -> bytes:
    """The plan, after its length and SHA-256 proved to be those of the JSON. Raises ArtifactError otherwise."""
    plan = engine.read_bytes()
    problem = _difference(len(plan), hashlib.sha256(plan).hexdigest(), info)
    if problem:
        raise ArtifactError(f"{engine}: {problem}; build it anew: {rebuild_command(engine)}")
    return plan


def engine_problem(engine: Path) -> str:
    """What is wrong with an engine and its JSON on disk, in words; empty when they belong together."""
    try:
        info = read_engine_info(engine)
    except ArtifactError as error:
        return str(error).removeprefix(f"{engine}: ").removeprefix(f"{json_path(engine)}: ")
    return _difference(engine.stat().st_size, sha256_of(engine), info)


def rebuild_command(engine: Path) -> str:
    """The command that builds this engine anew from the graph of its stem."""
    return f"rtk export --trt {engine.name.removesuffix(SUFFIX)}.onnx"


def network_name(card: ModelCard, graph_sha256: str) -> str:
    """The card's short form, for `network.name`: JSON in ASCII, without the classes where they would not fit."""
    short: dict[str, Any] = {
        "rtk": FORMAT,
        "name": card.name,
        "arch": card.arch,
        "dataset": card.dataset,
        "input": card.input.shape,
        "classes": len(card.classes),
        "precision": card.precision,
        "graph_sha256": graph_sha256,
        "checkpoint_sha256": card.checkpoint_sha256,
    }
    whole = json.dumps({**short, "classes": card.classes})
    if len(whole) < NETWORK_NAME_LIMIT:
        return whole
    return json.dumps({**short, "name": card.name[:200], "arch": card.arch[:200], "dataset": card.dataset[:200]})


def _holds_together(info: EngineInfo) -> bool:
    """Whether the values are of their types, and the profile is one."""
    texts = (
        info.flavor,
        info.version,
        info.cuda,
        info.gpu,
        info.compute_capability,
        info.graph_sha256,
        info.plan_sha256,
    )
    batches = (info.profile.opt_batch, info.profile.max_batch)
    return (
        all(isinstance(text, str) for text in (*texts, *info.targets, info.precision.label, info.machine))
        and all(isinstance(number, int) for number in (*batches, info.plan_bytes))
        and isinstance(info.build_s, int | float)
        and all(isinstance(counts, dict) for counts in (info.options, info.precision.products, info.precision.layers))
        and 1 <= info.profile.opt_batch <= info.profile.max_batch
        and bool(info.targets) != bool(info.compute_capability)
    )


def _difference(length: int, sha256: str, info: EngineInfo) -> str:
    if length < info.plan_bytes:
        return f"truncated: {length:,} bytes, expected {info.plan_bytes:,}"
    if sha256 != info.plan_sha256:
        return f"altered: its sha256 is {sha256[:12]}..., its JSON says {info.plan_sha256[:12]}..."
    return ""
