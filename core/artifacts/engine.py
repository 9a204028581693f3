"""An engine on disk: `STEM.engine` holds TensorRT's plan, byte for byte, and `STEM.engine.json` describes it.

An engine is executable code. It is loaded only with its JSON beside it, and only when its bytes match the SHA-256 in
the JSON. trtexec and Triton load the plan as it is.
"""

import dataclasses
import hashlib
import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..card import ModelCard
from ..errors import ArtifactError
from ..files import sha256_of, write_whole
from ..json_text import json_text
from ..paths import cache_dir, temporary_cache
from ..records import restored
from ..text import outline
from ..zoo import zoo_file, zoo_names

FORMAT = 1
"""Version of the JSON; any other version is refused with a clear message."""
SUFFIX = ".engine"
NETWORK_NAME_LIMIT = 4_095
"""Bytes; TensorRT replaces a longer `network.name` with one of its own."""


@dataclass(frozen=True)
class Profile:
    """The batch sizes that an engine accepts: 1 to `max_batch`, fastest at `opt_batch`."""

    opt_batch: int
    max_batch: int

    def __str__(self) -> str:
        return f"batches of 1 to {self.max_batch}, fastest at {self.opt_batch}"


@dataclass(frozen=True)
class PrecisionAsBuilt:
    """The data types that the layers of an engine really compute in."""

    label: str
    """The data type of the convolutions and matrix products; several are joined by "+", the most frequent first."""
    products: dict[str, int]
    """Number of convolutions and matrix products for each data type. One that is fed only by DequantizeLinear counts
    as int8."""
    layers: dict[str, int]
    """Number of all layers for each data type of their output."""
    inspected: bool = False
    """True when a GPU loaded the engine and its inspector was read; `layers` then counts the engine's fused layers."""

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.products.items())
        doubt = "" if self.inspected else "; not yet inspected on a GPU"
        return f"{self.label} (convolutions and matrix products: {counts or 'none'}{doubt})"


@dataclass(frozen=True)
class EngineInfo:
    """Everything that is needed to judge where an engine runs and what it computes."""

    card: ModelCard
    flavor: str
    """tensorrt or tensorrt-rtx."""
    version: str
    """TensorRT version; the engine runs with this version only."""
    cuda: str
    """CUDA version that this TensorRT is built for, or empty."""
    gpu: str
    """Name of the GPU that the engine was built on; empty when it was built without a GPU."""
    compute_capability: str
    """Compute capability of that GPU, such as 9.0."""
    targets: tuple[str, ...]
    """Compute capabilities that the engine was built for without a GPU; empty when it was built on its own GPU."""
    profile: Profile
    precision: PrecisionAsBuilt
    graph_sha256: str
    plan_sha256: str
    plan_bytes: int
    build_s: float
    """Seconds from the parsed graph to the plan."""
    options: dict[str, Any] = field(default_factory=dict)
    """The builder's options, as used. Engines of earlier versions of rtk may hold options that no longer exist."""
    machine: str = ""
    """The machine that built the engine."""

    @property
    def built_for(self) -> str:
        """The hardware that the engine runs on, in words."""
        if self.targets:
            return f"compute capability {', '.join(self.targets)}"
        return f"{self.gpu} (compute capability {self.compute_capability})"

    @property
    def built_for_others(self) -> bool:
        """True if the engine was built to run also on other GPUs than that of the builder."""
        level = self.options.get("hardware_compatibility", "none")
        return bool(self.targets) or level != "none"

    def to_text(self) -> str:
        """The engine and its card as lines for people, as wide as the terminal."""
        facts = {
            "engine": f"{self.flavor} {self.version}" + (f", CUDA {self.cuda}" if self.cuda else ""),
            "runs on": self.built_for,
            "profile": str(self.profile),
            "as built": str(self.precision),
            "layers": ", ".join(f"{count} {name}" for name, count in self.precision.layers.items()),
            "plan": f"{self.plan_bytes:,} bytes, sha256 {self.plan_sha256}",
            "graph": f"sha256 {self.graph_sha256}",
            "built": f"in {self.build_s:.2f} s on {self.machine}",
            "options": self.options,
        }
        return f"{outline(facts)}\n{self.card.to_text(file_sha256=self.plan_sha256)}"

    def to_json(self) -> str:
        """The JSON beside the plan."""
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name != "card"}
        content = {"format": FORMAT, **fields, "card": json.loads(self.card.to_json())}
        return json_text(content, read_back=True, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str) -> Self:
        """Read the JSON. `source` names the file in errors. Raises ArtifactError when it was not written by rtk."""
        again = f"build the engine again: {rebuild_command(Path(source.removesuffix('.json')))}"
        try:
            fields = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ArtifactError(f"{source}: damaged: not JSON ({error}); {again}") from error
        if not isinstance(fields, dict) or "plan_sha256" not in fields:
            raise ArtifactError(f"{source}: not the JSON that rtk writes beside an engine; {again}")
        if fields.pop("format", None) != FORMAT:
            raise ArtifactError(f"{source}: has another format than {FORMAT}; use the rtk that wrote it")
        if "card" in fields:
            fields["card"] = ModelCard.from_json(json.dumps(fields["card"]), source=source)
        try:
            info: Self = restored(cls, fields, strict=True)
        except TypeError as error:
            raise ArtifactError(f"{source}: not valid: {error}; {again}") from error
        batches_fit = 1 <= info.profile.opt_batch <= info.profile.max_batch
        if not batches_fit or bool(info.targets) == bool(info.compute_capability):
            raise ArtifactError(f"{source}: contradicts itself: batch sizes or GPU do not fit; {again}")
        return info


def json_path(engine: Path) -> Path:
    """Path of the JSON beside an engine."""
    return engine.with_name(engine.name + ".json")


def write_engine(engine: Path, plan: bytes, info: EngineInfo) -> None:
    """Write the plan, then its JSON, each whole or not at all. Raises OutputError.

    When the process stops between the two, the JSON is missing or does not match, and read_plan refuses the plan.
    """
    write_whole(engine, plan)
    write_whole(json_path(engine), info.to_json())


def read_engine_info(engine: Path) -> EngineInfo:
    """Read the JSON beside an engine, but not the plan.

    Raises ArtifactError when the engine or its JSON is missing or damaged.
    """
    if not engine.is_file():
        raise ArtifactError(f"{engine}: no such engine")
    beside = json_path(engine)
    if not beside.is_file():
        raise ArtifactError(
            f"{engine}: {beside.name} is missing beside it; an engine is code and is not loaded without its JSON; "
            f"copy both files, or build it again: {rebuild_command(engine)}"
        )
    try:
        text = beside.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(
            f"{beside}: cannot be read ({error}); build the engine again: {rebuild_command(engine)}"
        ) from error
    return EngineInfo.from_json(text, source=str(beside))


def read_plan(engine: Path, info: EngineInfo) -> bytes:
    """Read the plan. Raises ArtifactError when its length or SHA-256 differs from the JSON."""
    plan = engine.read_bytes()
    problem = _difference(len(plan), hashlib.sha256(plan).hexdigest(), info)
    if problem:
        raise ArtifactError(f"{engine}: {problem}; build it again: {rebuild_command(engine)}")
    return plan


def engine_problem(engine: Path) -> str:
    """The reason why an engine or its JSON on disk cannot be used; empty when both are ok."""
    try:
        info = read_engine_info(engine)
    except ArtifactError as error:
        return str(error).removeprefix(f"{engine}: ").removeprefix(f"{json_path(engine)}: ")
    return _difference(engine.stat().st_size, sha256_of(engine), info)


def rebuild_command(engine: Path) -> str:
    """The command that builds an engine again from the graph with the same stem; rtk builds those in its cache."""
    if any(folder.absolute() in engine.absolute().parents for folder in (cache_dir(), temporary_cache())):
        return "rtk cache clear, and the same command again"
    graph = engine.with_name(f"{engine.name.removesuffix(SUFFIX)}.onnx")
    return f"rtk export --trt {shlex.quote(str(graph))}"


def made_from(engine: Path, info: EngineInfo) -> Path | None:
    """The graph or the checkpoint that an engine was made from, if it is beside the engine or in the zoo; else None."""
    for suffix, sha256 in ((".onnx", info.graph_sha256), (".pt", info.card.checkpoint_sha256)):
        zoo = (zoo_file(name, suffix) for name in zoo_names())
        for path in (*sorted(engine.parent.glob(f"*{suffix}")), *zoo):
            if path.is_file() and sha256_of(path) == sha256:
                return path
    return None


def other_model(engine: Path, info: EngineInfo) -> str:
    """What to name instead of an engine that cannot run, as advice."""
    source = made_from(engine, info)
    return f"name {source} instead of it" if source else "name the graph or checkpoint that it was made from"


def network_name(card: ModelCard, graph_sha256: str) -> str:
    """A short form of the card for `network.name`: JSON in ASCII, without class names when they do not fit."""
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


def _difference(length: int, sha256: str, info: EngineInfo) -> str:
    if length < info.plan_bytes:
        return f"truncated: {length:,} bytes, expected {info.plan_bytes:,}"
    if sha256 != info.plan_sha256:
        return f"altered: its sha256 is {sha256[:12]}..., its JSON says {info.plan_sha256[:12]}..."
    return ""
