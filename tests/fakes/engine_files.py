"""The plan of a small engine, and the content of the JSON beside it."""

from fakes.tensorrt_stand_in import small_card
from rtk.core.artifacts.engine import EngineInfo, Profile
from rtk.core.artifacts.engine_cache import key_of
from rtk.core.nvidia.layer_types import PrecisionAsBuilt

PLAN = b"plan " * 100
PLAN_SHA256 = "afa8d78d0c637935cdc83c40b777287af735914dc8b273e7ba48e76f86fbbab4"

INFO = EngineInfo(
    card=small_card("fp16"),
    flavor="tensorrt",
    version="11.4.0.106",
    cuda="13",
    gpu="NVIDIA H100",
    compute_capability="9.0",
    targets=(),
    profile=Profile(4, 16),
    precision=PrecisionAsBuilt("fp16", {"fp16": 2}, {"fp16": 3, "fp32": 1}),
    graph_sha256="a" * 64,
    plan_sha256=PLAN_SHA256,
    plan_bytes=500,
    build_s=1.25,
    options={"tf32": False},
    machine="a machine",
)

KEY = key_of(INFO)
"""Its key in the cache of engines."""
