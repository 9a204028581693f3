"""The steps of `make gpu`: what each shows on a GPU, its command, and its small counterpart on a CPU."""

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The real folder: `make gpu` imports this file through the link build/types/rtk."""
SCRIPTS = ROOT / "tools" / "gpu"
BATCHES = "1,8,64,256,1024,4096"
PRECISIONS = ("fp32", "fp16", "bf16")
TRAINED = ("resnet20v1", "resnet56v1", "resnet56v2", "resnet110v2")
SMALL = {"resnet20v1": "resnet8v1", "resnet56v2": "resnet11v2"}
"""The networks of a dry run: one of each version. The others differ only in depth."""


@dataclass(frozen=True)
class Step:
    """One process, of less than ten minutes."""

    shows: str
    """What it shows on a GPU."""
    command: list[str]
    dry: list[str]
    """Its command in a dry run; empty: nothing is left to try."""
    needs_gpu: str
    """What a CPU cannot show."""
    files: tuple[str, ...] = ()
    """Raw results in the folder, beside the output in NAME.txt."""
    lines: int = 8
    """Lines at the end of the output that go into the summary."""


def steps(out: Path) -> dict[str, Step]:
    """Every step by its name, the most important results first."""
    python = [sys.executable]
    rtk = [*python, "-m", "rtk"]
    engines = [*python, "-m", "rtk.tools.gpu_engines", str(out)]
    pytest = [*python, "-m", "pytest", "-m", "gpu", "-q", str(ROOT / "tests")]
    measure = [*rtk, "bench", "--report"]
    judged = ["--require-parity", "default"]
    images, tiny = str(out / "images"), str(out / "tiny")

    def script(name: str, *options: str) -> list[str]:
        return [*python, str(SCRIPTS / name), *options]

    def precisions(*names: str) -> list[str]:
        return [word for name in names for word in ("--precision", name)]

    def training(arch: str) -> Step:
        small = SMALL.get(arch, "")
        dry = [*rtk, "bench-train", small, "--dataset", tiny, "--device", "cpu", "--seconds", "0.2"]
        return Step(
            f"the speed of training {arch}, as a ratio to a plain loop",
            [*rtk, "bench-train", arch, "--dataset", "shapes", "--device", "cuda", "--seconds", "40"],
            dry if small else [],
            "speeds on CUDA" if small else f"all of it: another depth of what train-{_same_version(arch)} tries",
        )

    with_int8 = precisions("fp32", "int8")
    shortest = ["--seconds", "0.1"]
    few = ["--dataset", images, "--batches", "8", "--seconds", "0.05"]
    on_cpu = ["--backend", "torch", "--backend", "onnx", "--no-baselines", "--device", "cpu", "--dataset", images]
    return {
        "doctor": Step(
            "which backends work on this machine",
            [*rtk, "doctor"],
            [*rtk, "doctor"],
            "CUDA in torch and onnx, and trt",
            lines=24,
        ),
        "rtx": Step(
            "whether TensorRT-RTX itself runs on this GPU, in NVIDIA's own words",
            script("tensorrt_rtx_probe.py"),
            script("tensorrt_rtx_probe.py", "SM80"),
            "loading and running the engines",
            ("rtx_probe.json",),
            lines=24,
        ),
        "engine": Step(
            "whether each TensorRT builds and runs an engine, with the answers of PyTorch",
            engines,
            [*engines, "--build-only"],
            "engines of the regular TensorRT, and running engines",
            ("engine.json",),
        ),
        "tests": Step("the tests marked gpu", pytest, pytest, "the tests themselves: they are collected, and skip"),
        "pipeline": Step(
            "the pipeline, CUDA graphs and resident images on real streams, row by row",
            script("pipeline_on_gpu.py"),
            script("pipeline_on_gpu.py", "--fake"),
            "real streams and events: a stand-in replaces the driver",
        ),
        "smoke": Step(
            "the answers of torch, onnx and torch.compile over the test split, and first rates",
            script("smoke.py", "--precisions", "fp16,bf16"),
            [
                *script("smoke.py", "--device", "cpu", "--backends", "torch,onnx,onnx fp16", "--precisions", "fp16"),
                *few,
            ],
            "answers and rates on CUDA, and torch.compile for it",
            ("smoke.json",),
        ),
        "bench": Step(
            "the table of every backend, precision, batch and scope, with parity over the test split",
            [
                *measure,
                str(out / "bench"),
                *judged,
                "--batch",
                BATCHES,
                *precisions(*PRECISIONS),
                "--seconds",
                "120",
            ],
            [*measure, str(out / "bench"), "--batch", "1,8", *on_cpu, "--seconds", "0.5", "--scope", "sync"],
            "trt, and rates on CUDA",
            ("bench/report.json", "bench/report.md"),
        ),
        "bench-int8": Step(
            "the same for int8, which is calibrated on training images",
            [
                *measure,
                str(out / "bench-int8"),
                *judged,
                "--no-baselines",
                "--batch",
                "1,64,1024",
                "--seconds",
                "60",
                *with_int8,
            ],
            [],
            "all of it: the int8 graph for a GPU; on a CPU another one would be measured",
            ("bench-int8/report.json", "bench-int8/report.md"),
        ),
        "speed": Step(
            "milliseconds of a training step, by compiler setting",
            script("train_speed.py", "resnet20v1", "resnet56v1"),
            script("train_speed.py", "resnet8v1", "--variants", "off", "--device", "cpu", "--size", "8", *shortest),
            "speeds and compilers on CUDA",
            ("train_speed.json",),
        ),
        **{f"train-{arch}": training(arch) for arch in TRAINED},
    }


def _same_version(arch: str) -> str:
    """The network of a dry run that stands for this one."""
    return next(one for one in SMALL if one.endswith(arch[-2:]))
