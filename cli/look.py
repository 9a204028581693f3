"""rtk inspect, models and doctor: they show, and change nothing."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from ..core.errors import ArtifactError
from ..core.table import text_table


def inspect(
    file: Annotated[str, typer.Argument(help="A checkpoint, graph or engine, or a model of the zoo.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole card as JSON.")] = False,
) -> None:
    """Show the card of a model: what it is, what it was trained on, how well it does."""
    from ..core.artifacts.engine import engine_problem, read_engine_info
    from ..workflow.road import find_model, read_card

    found = find_model(file)
    if found.engine:
        info = read_engine_info(found.engine)
        print(info.to_json().rstrip() if as_json else info.to_text())
        problem = engine_problem(found.engine)
        if problem:
            raise ArtifactError(f"{found.engine}: {problem}")
        return
    card = read_card(found)
    print(card.to_json(indent=2) if as_json else card.to_text())


def models(
    name: Annotated[str | None, typer.Argument(help="Show this architecture's layers.", show_default=False)] = None,
    image_size: Annotated[int, typer.Option(min=1, help="Side of the images, for the shapes of the layers.")] = 32,
    channels: Annotated[int, typer.Option(min=1, max=3, help="Channels of the images.")] = 3,
    classes: Annotated[int, typer.Option(min=1, help="How many classes.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List architectures and the zoo; or the layers of one architecture with their output shapes."""
    from ..core.models.names import known_architectures
    from ..core.models.summary import layer_table, parameter_count
    from ..core.zoo import zoo_card, zoo_names

    if name is not None:
        rows = layer_table(name, side=image_size, in_channels=channels, classes=classes)
        print(json.dumps(rows, indent=1) if as_json else text_table(rows))
        return
    architectures = [
        {"architecture": arch, "parameters": parameter_count(arch, in_channels=channels, classes=classes)}
        for arch in known_architectures()
    ]
    zoo = [
        {
            "model": card.name,
            "architecture": card.arch,
            "data set": card.dataset,
            "test accuracy": f"{card.score.accuracy:.2%}" if card.score else "unknown",
            "recipe": f"{card.training.recipe}, {card.training.epochs} epochs" if card.training else "unknown",
        }
        for card in map(zoo_card, zoo_names())
    ]
    if as_json:
        print(json.dumps({"architectures": architectures, "zoo": zoo}, indent=1))
    else:
        print(f"Architectures (parameters for {channels} channels and {classes:,} classes)\n")
        print(text_table(architectures))
        print(f"\nThe zoo: models that ship with rtk\n\n{text_table(zoo)}")


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
