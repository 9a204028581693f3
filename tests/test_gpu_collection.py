"""The tests marked gpu can be collected on a machine that lacks what other tests import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MISSING_THERE = ("openvino", "ray", "keras", "scipy", "pooch", "pyarrow", "tritonclient", "tensorrt_rtx")
KNOWN = {
    "test_an_engine_built_here_gives_the_logits_of_the_graph",
    "test_cuda_graphs_give_the_same_logits",
    "test_no_step_of_an_epoch_waits_for_the_gpu",
    "test_opening_and_closing_many_times_leaks_no_gpu_memory",
    "test_torch_and_trt_work_in_one_process",
}


def collected(expression: str, *, missing: tuple[str, ...] = ()) -> set[str]:
    """The names of the tests that pytest collects with -m in a new process without these modules."""
    words = ["-m", expression, "--collect-only", "-q", str(Path(__file__).parent)]
    code = f"import sys; sys.modules |= dict.fromkeys({missing!r}); import pytest; sys.exit(pytest.main({words!r}))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line}


@pytest.mark.torch
def test_gpu_tests_are_collected_without_openvino_ray_and_keras() -> None:
    assert collected("gpu", missing=MISSING_THERE) >= KNOWN


@pytest.mark.slow
def test_no_gpu_test_is_lost_because_its_file_is_not_imported() -> None:
    assert collected("gpu") == collected("(gpu)")
