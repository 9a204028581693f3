"""The features of the processor that rtk's libraries may use."""

import pytest
from rtk.core.machine import FEATURES, ONEDNN_LEVELS, onednn_limit


@pytest.mark.parametrize(
    ("limit", "level", "forbidden"),
    [
        ("", "", ()),
        ("ALL", "", ()),
        ("avx2", "AVX2", ("avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8")),
        ("AVX512_CORE", "AVX512_CORE", ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8")),
        ("AVX10_1_512", "AVX10_1_512", ("amx_tile", "amx_bf16", "amx_int8", "amx_fp16")),
        ("AVX10_1_512_AMX", "AVX10_1_512_AMX", ("amx_fp16",)),
    ],
)
@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_limit_of_onednn_forbids_the_features_above_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, limit: str, level: str, forbidden: tuple[str, ...]
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv(variable, limit)
    assert onednn_limit() == level
    assert ONEDNN_LEVELS.get(level, set(FEATURES)).isdisjoint(forbidden)
