"""Remove what makes rtk right on GPUs, one thing at a time: a test must fail each time (make test-mutations).

Usage: python tests/mutations.py [--driver FOLDER] [WORD...]. With words, only mutations whose effect has one of them.
FOLDER is what tests/fakes/driver/build.py made; without it the mutations that need the fake CUDA driver are left out.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "runs", "demo", "*.egg-info", "__pycache__")
TIMEOUT_S = 300
FAILED = 1
"""pytest's exit code if a test failed."""


@dataclass(frozen=True)
class Mutation:
    """A change of one file that must not pass the tests."""

    effect: str
    """What goes wrong without the removed text."""
    file: str
    old: str
    new: str
    tests: str
    """The test file that fails, and optionally an expression for -k after a space."""
    driver: bool = False
    """Whether the test needs the fake CUDA driver."""
    since: tuple[int, int] = (3, 11)
    """The first version of Python in which it does harm."""


PIPELINE, PYCUDA = "infer/trt/pipeline.py", "infer/trt/pycuda_driver.py"
REAL, TRT = "tests/infer/test_real_pycuda.py", "tests/infer/test_trt_backend.py"
BUILD = "tests/export/test_trt_build.py"
GENERATOR = """

_Class = CurrentGpu


def _generator(driver, index, *, need=""):
    block = _Class(driver, index, need=need)
    block.__enter__()
    try:
        yield
    except BaseException as error:
        block.__exit__(type(error), error, error.__traceback__)
        raise
    block.__exit__(None, None, None)


CurrentGpu = __import__("contextlib").contextmanager(_generator)
"""

MUTATIONS = (
    Mutation(
        "a generator's frame keeps streams and events past close()",
        PYCUDA, '            "programs on it, or build with a smaller --max-batch"\n        )\n', GENERATOR,
        "tests/infer/test_trt_pipeline.py", since=(3, 12),
    ),
    Mutation(
        "PyCUDA detaches the primary context at the end, with a warning",
        PYCUDA, "    ctypes.pythonapi.Py_IncRef(ctypes.py_object(context))", "    #", REAL + " process_ends",
        driver=True,
    ),
    Mutation(
        "a context that Ctrl-C left pushed aborts the process",
        PYCUDA, "    atexit.register(pop_abandoned, driver)", "    #", REAL + " popped_at_the_end", driver=True,
    ),
    Mutation(
        "a context that a failed pop left lies below the next one",
        PYCUDA, "            pop_abandoned(self._driver, down_to=max(",
        "            (lambda *_, **__: 0)(0, down_to=max(", REAL + " ends_the_context", driver=True,
    ),
    Mutation(
        "a block inside another one takes its context away",
        PYCUDA, "            block.began = True\n", "            block.began = False\n", REAL + " inside", driver=True,
    ),
    Mutation(
        "a context that Ctrl-C left lies below the blocks that follow",
        PYCUDA, "        return self.began and self.owner() is not None\n", "        return self.began\n",
        REAL + " popped_by_the_next", driver=True,
    ),
    Mutation(
        "an error of the push is not rtk's",
        PYCUDA, "            block.began = True\n        except self._driver.Error as error:",
        "            block.began = True\n        except ZeroDivisionError as error:",
        REAL + " failure_of_any_call", driver=True,
    ),
    Mutation(
        "an error of the pop is not rtk's",
        PYCUDA, "            except self._driver.Error as failed:", "            except ZeroDivisionError as failed:",
        REAL + " failure_of_any_call", driver=True,
    ),
    Mutation(
        "a failing query of the free memory hides the first error",
        PYCUDA, "        except self._driver.Error:  # the first", "        except ZeroDivisionError:  # the first",
        "tests/infer/test_trt_pipeline.py hides",
    ),
    Mutation(
        "a slot's events outlive the context while a stream refers to it",
        PIPELINE, "            del self.uploaded, self.computed, self.downloaded\n", "            pass\n",
        REAL + " in_another_thread", driver=True,
    ),
    Mutation(
        "streams outlive the context in another thread",
        PIPELINE, "        vars(self).clear()\n", "        pass\n", REAL + " failure_of_any_call", driver=True,
    ),
    Mutation(
        "the events of resident images outlive the context",
        "infer/trt/resident.py", "            vars(self).pop(name, None)\n", "            pass\n",
        REAL + " in_another_thread", driver=True,
    ),
    Mutation(
        "runs on resident images spoil batches in flight",
        PIPELINE, "            return self._lanes.runs\n", "            return self._lanes.uploads\n",
        "tests/infer/test_trt_resident.py",
    ),
    Mutation(
        "a capture that failed goes on",
        "infer/trt/cuda_graphs.py", "            status, unfinished = cuda.cuStreamEndCapture(stream)\n",
        "            status, unfinished = None, None\n", REAL + " failure_of_any_call", driver=True,
    ),
    Mutation(
        "Ctrl-C leaves graphs",
        "infer/trt/cuda_graphs.py", "    def __del__(self) -> None:\n        self.close()\n",
        "    def __del__(self) -> None:\n        pass\n", "tests/infer/test_trt_cuda_graphs.py",
    ),
    Mutation(
        "the graph of a failed capture is left",
        "infer/trt/cuda_graphs.py", "                cuda.cuGraphDestroy(unfinished)\n", "                pass\n",
        "tests/infer/test_trt_cuda_graphs.py",
    ),
    Mutation(
        "the primary context may be dropped between a build and a run",
        "core/nvidia/driver.py", "        libcuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))\n",
        "        libcuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))\n"
        "        libcuda.cuDevicePrimaryCtxRelease_v2(self._index)\n", BUILD,
    ),
    Mutation(
        "an attribute that cannot be read is taken for 0",
        "core/nvidia/driver.py", "        or libcuda.cuDeviceGetAttribute(ctypes.byref(major), CC_MAJOR, device)\n",
        "        or libcuda.cuDeviceGetAttribute(ctypes.byref(major), CC_MAJOR, device) * 0\n",
        REAL + " failure_of_any_call", driver=True,
    ),
    Mutation(
        "what a failed build made outlives the context",
        "export/trt/build.py", "            traceback.clear_frames(error.__traceback__)\n", "", BUILD,
    ),
    Mutation(
        "ONNX Runtime retries on the CPU in silence",
        "infer/onnx_backend.py", ", enable_fallback=0)", ")", "tests/workflow/test_select.py cuda",
    ),
    Mutation(
        "nodes of a graph run on the CPU in silence",
        "infer/onnx_backend.py", '"session.disable_cpu_ep_fallback", "1"', '"session.disable_cpu_ep_fallback", "0"',
        "tests/workflow/test_select.py no_node",
    ),
    Mutation(
        "ONNX Runtime makes int32 biases on a GPU",
        "infer/onnx_backend.py", '"session.disable_quant_qdq", "1"', '"session.disable_quant_qdq", "0"',
        "tests/infer/test_cuda_options.py precision",
    ),
    Mutation(
        "the CUDA provider is not alone",
        "infer/onnx_backend.py", "**cuda_options(arithmetic_of(graph))})]",
        '**cuda_options(arithmetic_of(graph))}), "CPUExecutionProvider"]',
        "tests/workflow/test_select.py no_node",
    ),
    Mutation(
        "ONNX Runtime prints on standard output",
        "infer/onnx_backend.py", '        with _silent() if device != "cpu" else contextlib.nullcontext():',
        "        with contextlib.nullcontext():", "tests/workflow/test_select.py cuda",
    ),
    Mutation(
        "the error hides which CUDA library is missing",
        "infer/onnx_backend.py", "        if missing:\n", "        if False:\n", "tests/workflow/test_select.py cuda",
    ),
    Mutation(
        "--backend auto fails where a GPU is not supported",
        "workflow/select.py", "        except (BackendError, ArtifactError) as error:\n            _log",
        "        except ZeroDivisionError as error:\n            _log", TRT + " auto",
    ),
    Mutation(
        "a build for a GPU that RTX does not support is not refused",
        "export/trt/build.py", 'if refusal is not None and "UNSUPPORTED_CC" in refusal:', "if False:", BUILD,
    ),
    Mutation(
        "an RTX engine is to be built again that would be refused again",
        "infer/trt/engine.py", 'if "UNSUPPORTED_CC" in reasons and (info.gpu', "if False and (info.gpu", TRT,
    ),
    Mutation(
        "engines for the present GPU name compute capabilities",
        "export/trt/builder_settings.py", "    settings.num_compute_capabilities = len(targets)\n",
        "    settings.num_compute_capabilities = len(targets) or 1\n", BUILD,
    ),
    Mutation(
        "a refused compute capability is ignored",
        "export/trt/builder_settings.py", "if member is None or not settings.set_compute_capability",
        "if member is None or settings.set_compute_capability", BUILD,
    ),
    Mutation(
        "Turing is not named",
        "export/trt/builder_settings.py", "hardware.gpu.compute_capability == TURING:", "False:", BUILD,
    ),
    Mutation(
        "an engine is to be built again because CUDA failed",
        "infer/trt/engine.py", '    if not reasons or reasons == {"CUDA_ERROR"}:', "    if False:", TRT,
    ),
    Mutation(
        "kernels change during a benchmark",
        "workflow/benchmark.py", ", steady=True)", ")", "tests/workflow/test_parity_gate_engines.py",
    ),
    Mutation(
        "kernels change while the gate compares answers",
        "workflow/parity_gate.py", "BackendOptions(device=device, steady=True)", "BackendOptions(device=device)",
        "tests/workflow/test_parity_gate_engines.py",
    ),
    Mutation(
        "steady is ignored",
        "infer/trt/backend.py", '"eager" if options.steady else "lazy"', '"lazy"', TRT,
    ),
    Mutation(
        "an engine of another version of TensorRT is accepted",
        "infer/trt/preflight.py", "    if info.version != version:\n",
        '    if info.version != version and not info.options.get("version_compatible"):\n', TRT,
    ),
    Mutation(
        "engines are built on the first GPU only",
        "workflow/artifacts.py", ", max_batch=largest, device=gpu.index)", ", max_batch=largest)",
        "tests/workflow/test_select.py",
    ),
    Mutation(
        "a benchmark builds its engines on the first GPU only",
        "workflow/open_backends.py", "    return built_engine(ModelFiles(model.found.name, graph=graph), "
        "max_batch=max_batch, device=device)", "    return built_engine(ModelFiles(model.found.name, graph=graph), "
        "max_batch=max_batch)", "tests/workflow/test_select.py",
    ),
    Mutation(
        "--device cuda:1 reaches Ray's actors, which have one GPU each",
        "cli/classify_options.py", '        if self.device.startswith("cuda:"):\n', "        if False:\n",
        "tests/infer/test_ray_cluster.py refused",
    ),
    Mutation(
        "trtexec-11 times no CUDA graph",
        PIPELINE, "        return OnGpu(\n            self._driver,\n            self._engine,",
        '        return OnGpu(\n            self._driver,\n            getattr(self._engine, "_engine", self._engine),',
        TRT,
    ),
    Mutation(
        "every call of a benchmark records another graph",
        "infer/trt/backend.py", "places=1 if self._recorded else None", "places=None", TRT,
    ),
    Mutation(
        "the limit of places does not reach the benchmark",
        "bench/measure/runners.py", 'places=resident.places if resident and scope == "compute" else None',
        "places=None", "tests/bench/test_timing.py",
    ),
    Mutation(
        "telemetry is that of another GPU",
        "bench/measure/environment.py", "nvml.nvmlDeviceGetHandleByUUID(gpu_uuid(index))",
        "nvml.nvmlDeviceGetHandleByIndex(index)", "tests/bench/test_report.py",
    ),
    Mutation(
        "a cell is judged by the ceiling of another device",
        "bench/report/report.py", "if one.device == device)", "if device)", "tests/bench/test_bench_run.py",
    ),
    Mutation(
        "the moving average starts an operation for every tensor",
        "train/optim/ema.py", "                move([self.weights[name] for name in names], "
        "[values[name] for name in names])\n", "                for name in names:\n"
        "                    move([self.weights[name]], [values[name]])\n", "tests/train/test_parts.py average",
    ),
    Mutation(
        "every image size is compiled on a GPU",
        "train/device.py", '"dynamic": on_gpu', '"dynamic": False',
        "tests/train/test_parts.py one_code",
    ),
    Mutation(
        "CUDA graphs are tried on a CPU",
        "train/device.py", "    if compiler.on_gpu_only and not on_gpu:\n", "    if False:\n",
        "tests/train/test_parts.py cuda_graphs",
    ),
    Mutation(
        "cudagraphs asks for a compiler",
        "train/device.py", "    if compiler.settings is None and on_gpu and alone:\n", "    if False:\n",
        "tests/train/test_parts.py cuda_graphs",
    ),
    Mutation(
        "a recorded step keeps its first learning rate",
        "train/optim/optimiser.py", 'group["lr"].fill_(group_rate)', "pass",
        "tests/train/test_recorded_steps.py",
    ),
    Mutation(
        "the guard of a recorded step forgets the step before",
        "train/optim/nan_guard.py", "self.not_finite.copy_(not_finite if", "self.not_finite = (not_finite if",
        "tests/train/test_recorded_steps.py",
    ),
    Mutation(
        "GPU tests are not collected where OpenVINO is missing",
        "tests/conftest.py", '    others = config.getoption("markexpr") == "gpu"', "    others = False",
        "tests/test_gpu_collection.py",
    ),
)  # fmt: skip


def main() -> None:
    """Run the mutations, print one line for each, and exit with the number of those that pass the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", type=Path)
    parser.add_argument("word", nargs="*")
    asked = parser.parse_args()
    chosen = [one for one in MUTATIONS if not asked.word or any(word in one.effect for word in asked.word)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
        (tree / "build" / "types").mkdir(parents=True)
        (tree / "build" / "types" / "rtk").symlink_to(tree)
        for one in chosen:
            found = "left out" if _left_out(one, asked.driver) else _outcome(one, tree, asked.driver)
            survivors += found not in ("left out", "a test fails")
            print(f"{found:14} {one.effect}", flush=True)
    sys.exit(min(survivors, 100))


def _left_out(one: Mutation, driver: Path | None) -> bool:
    return sys.version_info[:2] < one.since or (one.driver and driver is None)


def _outcome(one: Mutation, tree: Path, driver: Path | None) -> str:
    """What the tests say about a tree with this mutation."""
    path = tree / one.file
    before = path.read_text()
    file, _, expression = one.tests.partition(" ")
    environment = {**os.environ, "PYTHONPATH": str(tree / "build" / "types")}
    if one.driver:
        assert driver is not None  # else it is left out
        environment["PYTHONPATH"] += f":{(driver / 'python').resolve()}"
        environment["LD_LIBRARY_PATH"] = str((driver / "lib").resolve())
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", file]
    command += ["-k", expression] if expression else []
    path.write_text(before.replace(one.old, one.old + one.new if one.new == GENERATOR else one.new))
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    finally:
        path.write_text(before)
    if done.returncode == FAILED:
        return "a test fails"
    return "SURVIVES" if done.returncode == 0 else f"exit code {done.returncode}"


if __name__ == "__main__":
    main()
