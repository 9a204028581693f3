"""rtk doctor: what works on this machine."""

from dataclasses import asdict
from typing import Annotated

import typer

from ..core.json_text import json_text
from ..core.text import outline
from . import help as groups


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=groups.OUTPUT)] = False,
    try_: Annotated[str | None, typer.Option("--try", hidden=True)] = None,
    device: Annotated[str, typer.Option(hidden=True)] = "cpu",
) -> None:
    """Try every backend on this machine, and show how to install what is missing."""
    from ..core.machine import this_machine
    from ..core.nvidia.driver import driver_cuda, gpu, gpu_count, no_gpu_reason
    from ..core.nvidia.flavor import FLAVORS
    from ..infer.backend import BACKENDS
    from ..workflow.backend_trials import json_from_trial, run_trial, run_trial_in_subprocess, trials_here

    if try_ is not None:
        print(json_from_trial(run_trial(try_, device)))
        return
    machine = this_machine()
    gpus = [gpu(index) for index in range(gpu_count())]
    flavors = {name: flavor.version() for name, flavor in FLAVORS.items() if flavor.installed}
    trials = [run_trial_in_subprocess(backend, where) for backend, where in trials_here(BACKENDS)]
    if as_json:
        found = {
            "machine": asdict(machine),
            "gpus": [asdict(one) for one in gpus],
            "driver_cuda": driver_cuda(),
            "tensorrt": flavors,
            "trials": [asdict(trial) for trial in trials],
        }
        print(json_text(found, indent=1))
        return
    cuda = ".".join(map(str, driver_cuda() or ()))
    facts: dict[str, object] = {"machine": machine.summary}
    for one in gpus:
        facts[f"GPU {one.index}"] = (
            f"{one.name}, compute capability {one.compute_capability}, {one.memory_bytes / 2**30:.0f} GiB, "
            f"driver {machine.driver}, CUDA {cuda}"
        )
    if not gpus:
        facts["GPU"] = no_gpu_reason()
    facts["TensorRT"] = [f"{name} {v}" for name, v in flavors.items()] or "none; install it: pip install tensorrt-rtx"
    facts["Python"] = machine.python
    facts["libraries"] = [f"{name} {v}" for name, v in machine.libraries.items()]
    print(outline(facts) + "\n")
    print(
        outline(
            {
                f"{one.backend} {one.device}": f"{'works' if one.works else 'does not work'}: "
                + one.words.removeprefix(f"{one.backend}: ")
                for one in trials
            }
        )
    )
