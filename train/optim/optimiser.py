"""The optimiser of a training: its groups of parameters, its learning rates, and its state.

Learning rates are numbers, or tensors on the device: a recorded step reads them where they were when it was recorded.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..recipes import Decays, Recipe
from ..weights import head_name

HEAD_GROUPS = 2
"""If the last layer learns first, its groups of parameters come first: with weight decay and without."""


def decayed(parameter: Tensor, decays: Decays) -> bool:
    """Whether weight decay applies to a parameter of this shape; convolution kernels have four dimensions."""
    return parameter.ndim >= {"all": 0, "matrices": 2, "convolutions": 4}[decays]


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The trainable parameters in groups with one weight decay each; the last layer's come first if it learns first."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    parts = [trained]
    if recipe.head_first:
        head = f"{head_name(model)}."
        parts = [[one for one in trained if one[0].startswith(head) == of_head] for of_head in (True, False)]
    return [
        {"params": [p for _, p in part if decayed(p, recipe.decays) == decays], "weight_decay": decay}
        for part in parts
        for decays, decay in ((True, recipe.weight_decay), (False, 0.0))
    ]


def new_optimiser(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser of these groups of parameters."""
    match recipe.optimiser:
        case "sgd":
            optimiser = torch.optim.SGD(
                groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True
            )
            if recipe.momentum:  # PyTorch allocates it in the first step, but not if that is skipped
                for parameter in (parameter for group in groups for parameter in group["params"]):
                    optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return optimiser
        case "adam":
            return torch.optim.Adam(groups, lr=recipe.lr, eps=recipe.epsilon, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, rate: float, *, rests: bool) -> None:
    """Set the learning rate of the next step; if all but the last layer `rests`, theirs is zero."""
    filled = set[int]()
    for number, group in enumerate(optimiser.param_groups):
        group_rate = 0.0 if rests and number >= HEAD_GROUPS else rate
        if not isinstance(group["lr"], Tensor):
            group["lr"] = group_rate
        elif id(group["lr"]) not in filled:  # groups share their tensors
            filled.add(id(group["lr"]))
            group["lr"].fill_(group_rate)


def keep_rates_on_device(optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """Keep the learning rates in tensors on the device, for `set_rates` to fill."""
    rates: dict[bool, Tensor] = {}
    for number, group in enumerate(optimiser.param_groups):
        group["lr"] = rates.setdefault(number < HEAD_GROUPS, torch.tensor(float(group["lr"]), device=device))
        if "capturable" in group:  # of Adam
            group["capturable"] = True
    optimiser._warned_capturable_if_run_uncaptured = True  # as the first steps do


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state to save: with learning rates as numbers, and fit for steps that are recorded or not."""
    state = optimiser.state_dict()
    for group in state["param_groups"]:
        group["lr"] = float(group["lr"])
        if "capturable" in group:
            group["capturable"] = False
    return state
