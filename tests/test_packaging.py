"""The installed package is the source tree: every module, the zoo, the types."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_PACKAGED = {"tests", "tools", "build", "dist", "demo", "runs"}


def source_packages() -> set[str]:
    """Every folder with Python files below the root, as a package name."""
    folders = {path.parent.relative_to(ROOT) for path in ROOT.rglob("*.py")}
    named = (folder.parts for folder in folders if not any(part.startswith(".") for part in folder.parts))
    return {".".join(("rtk", *parts)) for parts in named if not {*parts} & NOT_PACKAGED}


def test_every_package_of_the_tree_is_listed() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == source_packages()


def test_every_requirement_is_pinned() -> None:
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    }
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()
    required = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    required += PROJECT["project"]["optional-dependencies"]["test"]
    names = {re.split(r"[\s\[<>=;]", line)[0].lower() for line in required if "!=" not in line}
    assert names - {"resnet-tensorrt-kit"} <= pinned


@pytest.mark.parametrize(
    ("system", "processor", "package"),
    [
        ("Linux", "x86_64", "onnxruntime-gpu"),
        ("Linux", "aarch64", "onnxruntime"),
        ("Darwin", "arm64", "onnxruntime"),
        ("Windows", "AMD64", "onnxruntime"),
    ],
)
def test_every_machine_gets_exactly_one_onnx_runtime(system: str, processor: str, package: str) -> None:
    found = []
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        machine = {"platform_system": system, "platform_machine": processor}
        if requirement.name.startswith("onnxruntime") and requirement.marker and requirement.marker.evaluate(machine):
            found.append(requirement.name)
    assert found == [package]


def test_linux_is_the_only_system_that_the_package_declares_and_that_the_code_knows() -> None:
    systems = [one for one in PROJECT["project"]["classifiers"] if one.startswith("Operating System")]
    assert systems == ["Operating System :: POSIX :: Linux"]
    other_system = re.compile(r"win32|nvcuda|msvcrt|darwin|os\.name\b|Windows")
    rooms = ("core", "train", "export", "infer", "bench", "workflow", "cli")
    sources = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    sources.remove(ROOT / "core" / "artifacts" / "harmless_types.py")  # files that were written there are read
    assert [path.name for path in sources if other_system.search(path.read_text(encoding="utf-8"))] == []


def test_the_lower_bounds_are_those_that_make_test_lowest_installs() -> None:
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    bounds = dict(re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", one).groups() for one in wanted)
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    lowest = dict(line.split("==") for line in lines if "==" in line)
    for name, bound in bounds.items():
        if name != "onnxruntime":  # the same library for machines without CUDA
            assert f"{lowest[name]}.".startswith(f"{bound}."), name


def test_no_file_names_a_path_of_the_development_machine() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.split("\0")):
        content = (ROOT / name).read_bytes()
        assert b"/work/" + b"main" not in content, name
        if name != ".ci/run":
            assert b"../" + b"shared" not in content, name


@pytest.mark.slow
def test_a_wheel_holds_every_module_the_zoo_and_the_types(tmp_path: Path) -> None:
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # setuptools would pack what an earlier build left there
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = set()
    for package in source_packages():
        folder = ROOT.joinpath(*package.split(".")[1:])
        expected |= {"/".join((*package.split("."), path.name)) for path in folder.glob("*.py")}
    expected |= {"rtk/py.typed"}
    expected |= {f"rtk/core/zoo/{path.name}" for path in (ROOT / "core" / "zoo").iterdir() if path.is_file()}
    assert {name for name in inside if name.startswith("rtk/")} == expected
    _check_types(wheel, tmp_path)


def _check_types(wheel: Path, folder: Path) -> None:
    """mypy finds the types of the installed wheel, as it does for users."""
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    zipfile.ZipFile(wheel).extractall(site)
    (folder / "program.py").write_text("import rtk\nreveal_type(rtk.__version__)\nrtk.load(5)\n")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "--config-file", "", "program.py"]
    environment = {**os.environ, "MYPY_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert "Revealed type is" in done.stdout, done.stdout + done.stderr
    assert "Any" not in done.stdout.splitlines()[0], done.stdout
    assert 'Argument 1 to "load" has incompatible type "int"' in done.stdout, done.stdout


def test_the_tests_run_in_a_clone_whose_folder_has_any_name(tmp_path: Path) -> None:
    clone = tmp_path / "my-clone.2"
    (clone / "tests").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", clone)
    (clone / "__init__.py").write_text("from .core import environment\n")
    (clone / "tests" / "test_one.py").write_text("def test_one() -> None:\n    assert True\n")
    done = subprocess.run([sys.executable, "-m", "pytest"], cwd=clone, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
