"""rtk doctor: what works on this machine."""

import json
from dataclasses import asdict
from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    try_: Annotated[str | None, typer.Option("--try", hidden=True)] = None,
    device: Annotated[str, typer.Option(hidden=True)] = "cpu",
) -> None:
    """Find out what works here: every backend is really tried, and what is missing is named with its fix."""
    from ..core.machine import this_machine
    from ..core.nvidia.driver import driver_cuda, gpu, gpu_count, no_gpu_reason
    from ..core.nvidia.flavor import FLAVORS
    from ..infer.backend import BACKENDS
    from ..workflow.backend_trials import answer_of_trial, trials_here, try_here, try_in_own_process

    if try_ is not None:
        print(answer_of_trial(try_here(try_, device)))
        return
    machine = this_machine()
    gpus = [gpu(index) for index in range(gpu_count())]
    flavors = {name: flavor.version() for name, flavor in FLAVORS.items() if flavor.installed}
    trials = [try_in_own_process(backend, where) for backend, where in trials_here(BACKENDS)]
    if as_json:
        found = {
            "machine": asdict(machine),
            "gpus": [asdict(one) for one in gpus],
            "driver_cuda": driver_cuda(),
            "tensorrt": flavors,
            "trials": [asdict(trial) for trial in trials],
        }
        print(json.dumps(found, indent=1))
        return
    print(f"machine: {machine.summary}")
    for one in gpus:
        print(f"GPU {one.index}: {one.name}, compute capability {one.compute_capability}, ", end="")
        cuda = ".".join(map(str, driver_cuda() or ()))
        print(f"{one.memory_bytes / 2**30:.0f} GiB, driver {machine.driver}, CUDA {cuda}")
    if not gpus:
        print(f"GPU: {no_gpu_reason()}")
    print(f"TensorRT: {', '.join(f'{name} {v}' for name, v in flavors.items()) or 'none: pip install tensorrt-rtx'}")
    print(f"Python {machine.python}; " + ", ".join(f"{name} {v}" for name, v in machine.libraries.items()))
    for trial in trials:
        print(f"{trial.backend:8} {trial.device:7} {'works' if trial.works else 'does not work'}: {trial.words}")
