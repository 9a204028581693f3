"""The page about GPUs says what the code and TensorRT-RTX know and build."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docs.pages import ROOT, text_of
from fakes.parity_network import fitted_checkpoint, patterns_dataset
from fakes.tensorrt_stand_in import VERSIONS, Stage, members, staged, write_graph
from rtk.core.card import ModelCard
from rtk.core.errors import ArtifactError, UsageError
from rtk.core.nvidia.flavor import FLAVORS
from rtk.export.config import EngineConfig, Int8Config
from rtk.export.int8.calibration import draw_calibration
from rtk.export.int8.quantize import int8_from_checkpoint
from rtk.export.to_onnx import RunGraph, onnx_from_checkpoint
from rtk.export.trt.build import engine_from_onnx
from rtk.export.trt.hardware import DEFAULT_TARGETS
from rtk.tools.gpu_results import newest

PAGE = text_of(ROOT / "docs" / "gpus.md")
AS_PINNED = f"tensorrt_rtx=={FLAVORS['tensorrt-rtx'].version()}" if FLAVORS["tensorrt-rtx"].installed else ""


def build_table() -> dict[str, dict[str, str]]:
    """Return the table of built engines: target -> precision -> what happened, one entry for each target."""
    lines = PAGE.partition("| `--target` |")[2].partition("\n\n")[0].splitlines()
    precisions = [name.strip() for name in lines[0].strip("|").split("|")]
    rows = {}
    for line in lines[2:]:
        targets, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows |= {target: dict(zip(precisions, cells, strict=True)) for target in targets.split(", ")}
    return rows


def quoted(number: str) -> str:
    """Return the words of a refusal that the page quotes under this number."""
    found = re.search(rf"^{number}\. `(.*)`$", PAGE, re.MULTILINE)
    assert found, number
    return found[1]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))
    yield from staged(monkeypatch)


def test_the_targets_of_the_page_are_those_of_tensorrt_rtx() -> None:
    named = {target for target, row in build_table().items() if not row["fp32"].startswith("unknown")}
    _, *values = members(VERSIONS["tensorrt-rtx"])["ComputeCapability"]
    assert named == {f"{name[2:-1]}.{name[-1]}" for name in values if name.startswith("SM")}


def test_the_default_targets_are_those_that_take_every_precision() -> None:
    complete = [target for target, row in build_table().items() if set(row.values()) == {"built"}]
    assert tuple(complete) == DEFAULT_TARGETS
    assert ", ".join(DEFAULT_TARGETS) in PAGE.replace("\n", " ")


def test_every_compute_capability_of_the_page_is_in_both_tables() -> None:
    rows = PAGE.partition("| | GPUs, for example |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| (\d+\.\d) \|", rows, re.MULTILINE)) == set(build_table())


def test_the_words_about_an_unknown_target_are_those_of_rtk(stage: Stage, tmp_path: Path) -> None:
    stage.libcuda()
    stage.tensorrt("tensorrt-rtx")
    config = EngineConfig(write_graph(tmp_path / "small.onnx"), flavor="tensorrt-rtx", targets=("9.0",))
    with pytest.raises(UsageError) as raised:
        engine_from_onnx(config)
    assert str(raised.value) == quoted("3")


def test_the_engines_were_built_with_the_pinned_version() -> None:
    (pinned,) = re.findall(r"^tensorrt_rtx==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f"tensorrt-rtx {pinned} built" in PAGE, "build the table of docs/gpus.md anew with this version"


def test_the_words_of_tensorrt_rtx_about_a_gpu_are_those_of_the_record() -> None:
    record = newest("rtx-probe")
    assert record is not None
    words = {one["targets"]: one["runtime_words"][0].removeprefix("INFO: ") for one in record.found["engines"]}
    quotation = " ".join(line[2:] for line in PAGE.splitlines() if line.startswith("> "))
    assert quotation == words["default"]
    rows = PAGE.partition('| engine built for | "Supported compute capabilities" |')[2].partition("\n\n")[0]
    shown = re.findall(r"^\| .* \| ([^|-]*) \|$", rows, re.MULTILINE)
    assert shown == [re.findall(r"Supported compute capabilities: (.*?)\. T", text)[0] for text in words.values()]
    assert not any(one["deserialised"] for one in record.found["engines"])


@pytest.fixture(scope="module")
def graphs(
    card: ModelCard,
    randomise: Callable[..., None],
    run_in_onnxruntime: RunGraph,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Return a graph of a small network in each precision of the page."""
    folder, checkpoint = tmp_path_factory.mktemp("gpus"), fitted_checkpoint(card, randomise)
    made = {
        precision: onnx_from_checkpoint(
            checkpoint, folder / f"{precision}.onnx", run_graph=run_in_onnxruntime, precision=precision
        ).path
        for precision in ("fp32", "fp16", "bf16")
    }
    images = draw_calibration(patterns_dataset(), checkpoint.card, images=500, held_out=200)
    made["int8"] = int8_from_checkpoint(
        checkpoint, folder / "int8.onnx", calibration=images, config=Int8Config("tensorrt")
    ).path
    return made


@pytest.mark.skipif(
    AS_PINNED not in (ROOT / "constraints.txt").read_text().split(), reason="needs the pinned version of tensorrt-rtx"
)
@pytest.mark.parametrize("target", build_table())
def test_tensorrt_rtx_builds_and_refuses_what_the_page_says(stage: Stage, graphs: dict[str, Path], target: str) -> None:
    stage.libcuda()
    for precision, expected in build_table()[target].items():
        config = EngineConfig(graphs[precision], flavor="tensorrt-rtx", targets=(target,), max_batch=16, cache=False)
        try:
            found = engine_from_onnx(config).info.precision.label
        except (ArtifactError, UsageError) as error:
            found = str(error)
        number = re.search(r"\((\d)\)", expected)
        if number is None:
            assert (found, expected) == (precision, "built")
        else:
            assert quoted(number[1]).replace("9.0", target) in found, precision
