"""Networks that a function outside of rtk builds: torchvision's, timm's, transformers', and users' own.

The code is imported only if the user allows it, because importing runs it: the name may come from a checkpoint of
somebody else. The function gets the number of classes, the number of channels and the size of the images under the
names that it has for them; arguments in the name of the network come before these. rtk's preprocessing goes around it.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError, did_you_mean
from ..library_errors import reason_of
from .allowed_code import check_allowed
from .code_names import CodeName

CLASSES = ("num_classes", "num_labels", "n_classes", "classes", "out_features")
CHANNELS = ("in_channels", "in_chans", "num_channels", "input_channels", "channels")
SIDES = ("image_size", "img_size", "input_size")
"""Names of parameters that rtk fills, in the order in which they are looked for."""
OUTPUTS = ("logits", "out")
"""Names of the result in an output that is a dict or an object with attributes."""
OWN_PACKAGE = __name__.partition(".")[0]
PROBED = 2
"""Images that a new network is tried on."""


def code_network(
    code: CodeName, *, in_channels: int, classes: int, size: tuple[int, int] | None, any_classes: bool = False
) -> nn.Module:
    """Build the network, float N x C x H x W to logits N x K, with the weights that its own code draws.

    `size`: height and width of the images, for functions that want them; None: the network is not tried out.
    `any_classes`: it may have another number of classes.
    `network.takes_contiguous` says whether it needs images whose channels are contiguous planes.

    Raises ArtifactError if the code is not allowed, UsageError if it is missing, fails, or builds something else.
    """
    function = _function(code)
    arguments = _filled(function, code.arguments, in_channels=in_channels, classes=classes, size=size)
    try:
        with torch.random.fork_rng(
            devices=[]
        ):  # what it draws depends on the numbers outside, and does not change them
            network = _called(function, arguments)
    except Exception as error:  # the user's own code may raise anything
        raise UsageError(f"{code.text}: building the network fails: {_described(error)}") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{code.text}: returns {type(network).__name__}, expected a torch.nn.Module")
    if size is not None:
        count = None if any_classes else classes
        _try_out(network, code, in_channels=in_channels, classes=count, size=size)
    return network


def logits_of(output: Any) -> Tensor:
    """The logits in the output of a network: the tensor itself, an attribute or an entry `logits`, or the only tensor.

    Raises TypeError for anything else.
    """
    if isinstance(output, Tensor):
        return output
    for name in OUTPUTS:
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return found
    values = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(values, list | tuple) and len(values) == 1 and isinstance(values[0], Tensor):
        return values[0]
    raise TypeError(f"returns {type(output).__name__}, expected a tensor, or one called logits")


def has_other_code(network: nn.Module) -> bool:
    """Whether rtk does not know what the network computes: its own layers are built of torch's, and nothing else."""
    if type(network).__module__.partition(".")[0] != OWN_PACKAGE:
        return True
    return any(type(layer).__module__.partition(".")[0] not in (OWN_PACKAGE, "torch") for layer in network.modules())


def _function(code: CodeName) -> Callable[..., Any]:
    """Import the function. Raises ArtifactError if that is not allowed, UsageError if there is none."""
    check_allowed(code)
    try:
        found: Any = importlib.import_module(code.module)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and code.module.startswith(str(error.name))
        reason = "no such module in this folder or in Python's path" if missing else _described(error)
        raise UsageError(f"{code.text}: importing {code.module} fails: {reason}") from error
    for name in code.function.split("."):
        if not hasattr(found, name):
            raise UsageError(f"{code.text}: {code.module} has no {code.function}{_meant(name, found)}")
        found = getattr(found, name)
    if not callable(found):
        raise UsageError(f"{code.text}: {code.function} is {type(found).__name__}, expected a function or a class")
    function: Callable[..., Any] = found
    return function


def _filled(
    function: Callable[..., Any],
    given: Mapping[str, Any],
    *,
    in_channels: int,
    classes: int,
    size: tuple[int, int] | None,
) -> dict[str, Any]:
    """The arguments of the call: those given, and what rtk knows under the names that the function has for it."""
    target = getattr(function, "config_class", function)  # transformers' models take a config that takes the arguments
    names, takes_any = _parameters(target)
    if target is not function:
        names |= {"num_labels"}  # of every config
    values: dict[str, Any] = {}
    known: list[tuple[tuple[str, ...], Any]] = [(CLASSES, classes), (CHANNELS, in_channels)]
    if size is not None:
        known.append((SIDES, size[0] if size[0] == size[1] else size))
    for spellings, value in known:
        if set(spellings) & set(given):
            continue
        name = next((one for one in spellings if one in names), None)
        if name is None and takes_any and spellings is CLASSES:
            name = CLASSES[0]  # torchvision's and timm's functions pass it on
        if name is not None:
            values[name] = value
    return {**values, **given}


def _parameters(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """The names of the parameters, and whether it takes any other name too."""
    if getattr(function, "__init__", None) is nn.Module.__init__:  # its signature says that it takes any
        return set(), False
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(), False
    names = {one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    return names, any(one.kind is one.VAR_KEYWORD for one in parameters)


def _called(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call the function; a config would take any name without a word, so names that it lacks raise TypeError."""
    config = getattr(function, "config_class", None)
    if config is None:
        return function(**arguments)
    usual = config()
    for name in arguments:
        if not hasattr(usual, name):
            raise TypeError(f"{config.__name__} has no {name!r}{_meant(name, usual)}")
    return function(config(**arguments))


def _try_out(
    network: nn.Module, code: CodeName, *, in_channels: int, classes: int | None, size: tuple[int, int]
) -> None:
    """Run the network on zeros, as it will get them, and set `takes_contiguous`. Raises UsageError."""
    modes = {name: layer.training for name, layer in network.named_modules()}
    zeros_NCHW = torch.zeros(PROBED, in_channels, *size)
    shown = f"float {PROBED} x {in_channels} x {size[0]} x {size[1]}"
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                output = network(zeros_NCHW.contiguous(memory_format=torch.channels_last))
                network.takes_contiguous = False  # type: ignore[assignment] # a flag, no layer
            except RuntimeError:  # view() of an image in channels_last
                output = network(zeros_NCHW)
                network.takes_contiguous = True  # type: ignore[assignment]
            logits_NK = logits_of(output)
    except Exception as error:
        grey = " (images have one channel; --rgb repeats it to three)" if in_channels == 1 else ""
        raise UsageError(f"{code.text}: the network fails on images {shown}{grey}: {_described(error)}") from error
    finally:
        for name, layer in network.named_modules():
            layer.training = modes[name]
    fits = logits_NK.ndim == 2 and len(logits_NK) == PROBED and classes in (None, logits_NK.shape[1])
    if not fits or not logits_NK.is_floating_point():
        wanted = f"{PROBED} x {classes or 'K'}"
        found = f"{str(logits_NK.dtype).removeprefix('torch.')} {' x '.join(map(str, logits_NK.shape))}"
        raise UsageError(
            f"{code.text}: the network returns {found} for images {shown}, expected logits {wanted}; "
            + _class_advice(code, classes)
        )


def _meant(name: str, owner: object) -> str:
    meant = did_you_mean(name, dir(owner))
    return f"; {meant}" if meant else ""


def _class_advice(code: CodeName, classes: int | None) -> str:
    """What to do if the number of classes is wrong."""
    if given := sorted(set(CLASSES) & set(code.arguments)):
        return f"rtk gives the number of classes itself: leave out {given[0]}={code.arguments[given[0]]}"
    return f"rtk knows the parameters {', '.join(CLASSES)}; for another one: --net-arg NAME={classes or 'K'}"


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {reason_of(error)}"
