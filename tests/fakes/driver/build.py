"""Builds what the tests marked `driver` need: the fake CUDA driver, and the real PyCUDA and cuda-bindings on it.

Usage: python build.py DESTINATION. DESTINATION/lib goes onto LD_LIBRARY_PATH, DESTINATION/python onto PYTHONPATH.
It needs a C and a C++ compiler; without one it says so and builds nothing, and those tests do not run. CUDA's headers
are those of this machine, or come from NVIDIA's wheels. PyCUDA exists as source only and compiles for a minute or two;
it is kept until its version in constraints.txt changes.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
HEADER_WHEELS = ("nvidia-cuda-runtime", "nvidia-cuda-profiler-api", "nvidia-cuda-crt")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
CONSTRAINED = ("-c", str(ROOT / "constraints.txt"))


def build(destination: Path) -> str:
    """Build everything into `destination`; return why nothing was built, or an empty text."""
    (destination / "ready").unlink(missing_ok=True)
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang"))), None)
    if compiler is None or not any(map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))):
        return "no C and C++ compiler is on the PATH"
    library, packages = destination / "lib" / "libcuda.so.1", destination / "python"
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        others = Path(folder) / "others.c"
        others.touch()
        _compile(compiler, library, others)
        if not (packages / f"pycuda-{_pinned('pycuda')}.dist-info").is_dir():
            _install_pycuda(Path(folder), library, packages)
        others.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in _missing_in(library, packages)))
        _compile(compiler, library, others)
    (destination / "ready").touch()
    return ""


def _pinned(package: str) -> str:
    """The version of a package in constraints.txt."""
    return re.findall(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]


def _compile(compiler: str, library: Path, others: Path) -> None:
    flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1")
    subprocess.run([compiler, *flags, "-o", library, HERE / "fake_cuda.c", others, "-pthread", "-ldl"], check=True)


def _missing_in(library: Path, packages: Path) -> list[str]:
    """The functions of the driver that PyCUDA links to and the fake lacks: they will say "operation not supported"."""
    (extension,) = (packages / "pycuda").glob("_driver*.so")
    return sorted(_symbols(extension, "--undefined-only") - _symbols(library, "--defined-only"))


def _symbols(library: Path, kind: str) -> set[str]:
    listed = subprocess.run(["nm", "--dynamic", kind, library], capture_output=True, text=True, check=True).stdout
    return {name for name in re.findall(r"\b(cu[A-Z]\w*)$", listed, re.MULTILINE) if not name.startswith("curand")}


def _install_pycuda(work: Path, library: Path, target: Path) -> None:
    """Compile PyCUDA, linked to the fake driver, and install it beside cuda-bindings."""
    (work / "libcuda.so").symlink_to(library.resolve())
    subprocess.run(
        [*PIP, "download", "--no-deps", "--no-binary", "pycuda", "-d", work, *CONSTRAINED,
         "pycuda"], check=True,
    )  # fmt: skip
    with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.0 to 3.11.3 have none
        archive.extractall(work)
    source = next(path for path in work.glob("pycuda-*") if path.is_dir())
    settings = {
        "CUDA_INC_DIR": _header_folders(work),
        "CUDA_ENABLE_CURAND": False,
        "CUDADRV_LIB_DIR": [str(work)],
        "CUDADRV_LIBNAME": ["cuda"],
        "CUDART_LIBNAME": [],
        "CXXFLAGS": ["-O0", "-g0", "-w"],
        "LDFLAGS": ["-s"],
    }
    (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([*PIP, "install", "--target", target, *CONSTRAINED, "cuda-bindings", source], check=True)


def _header_folders(work: Path) -> list[str]:
    """Folders with CUDA's headers: of this machine, else of NVIDIA's wheels."""
    nvcc = shutil.which("nvcc")
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    roots += [str(Path(nvcc).resolve().parent.parent)] if nvcc else []
    for root in filter(None, roots):
        if all((Path(root) / "include" / name).is_file() for name in ("cuda.h", "cudaProfiler.h")):
            return [str(Path(root) / "include")]
    wheels = work / "headers"
    subprocess.run([*PIP, "install", "--no-deps", "--target", wheels, *HEADER_WHEELS], check=True)
    return sorted({str(path.parent) for path in wheels.rglob("*.h") if path.name in ("cuda.h", "cudaProfiler.h")})


if __name__ == "__main__":
    try:
        reason = build(Path(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        if os.environ.get("RTK_NO_SKIPS"):
            raise
        reason = f"{' '.join(map(str, error.cmd))} failed"  # for example without a network or Python's headers
    if reason:
        print(f"{reason}: the tests with the real PyCUDA do not run")
