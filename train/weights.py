"""Initial weights from a file, a published set or the zoo; and training with a frozen backbone.

The head is reinitialised if the number of classes differs. If a first convolution was trained on three channels and the
images are grey, its kernel is summed over the channels: this computes the same as repeating the grey image three times,
at a third of the cost. With --rgb the graph repeats the image, and the kernel stays as it is. Which pixels the weights
expect is another question: data/kept_pixels.py.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.artifacts.checkpoint import load_checkpoint
from ..core.artifacts.weight_files import StateDict, read_weight_file
from ..core.artifacts.weight_fit import bare_names, check_fit, fit_weights, stem_channels
from ..core.card import ModelCard
from ..core.data.download import check_download, download
from ..core.errors import ArtifactError, UnknownNameError, UsageError
from ..core.files import sha256_of
from ..core.models.model import build_network
from ..core.models.names import PUBLISHED, PUBLISHED_URL, published_checksum, published_file
from ..core.paths import default_data_dir
from ..core.zoo import zoo_file, zoo_names


@dataclass(frozen=True)
class InitialWeights:
    """Weights of a network from a file, and what the file says about the model that they were part of."""

    path: Path
    arch: str
    states: tuple[StateDict, ...]
    """The weights in the file; of several, the network that they are loaded into decides."""
    card: ModelCard | None = None
    """The card of the model; a state dict has none."""
    maps: dict[str, Tensor] = field(default_factory=dict)
    """The mean image and the whitening matrix of its preprocessing, by the names of Normalise's buffers."""

    @property
    def channels(self) -> int:
        """Number of channels that the first convolution takes; 3 if the file has none."""
        return stem_channels(self.states, build_network(self.arch, in_channels=3, classes=2)) or 3

    @property
    def of_imagenet(self) -> bool:
        """Whether this is a file of torchvision, or looks like one: its networks' layers, and a thousand classes."""
        head = bare_names(self.states[0].tensors).get("fc.weight")
        return self.card is None and self.arch in PUBLISHED["imagenet"] and head is not None and len(head) == 1000

    def load_into(self, network: nn.Module) -> str:
        """Load the weights into the network; return a description of their source and of all changes.

        Raises ArtifactError if the layers do not fit.
        """
        wanted = network.state_dict()
        fitted = fit_weights(self.states, wanted)
        weights = dict(fitted.weights)
        changes = _adapt(weights, network)
        check_fit(weights, wanted, path=self.path, arch=self.arch)
        network.load_state_dict(weights, strict=False)
        return "; ".join((f"{self.path.name}, sha256 {sha256_of(self.path)}", *fitted.changes, *changes))


def read_weights(arch: str, name: str, *, data_dir: Path | None) -> InitialWeights:
    """Read the weights of that name or file. Raises UnknownNameError, or ArtifactError if the file cannot be used."""
    return _read(_weights_path(name, arch, data_dir), arch)


def load_weights(network: nn.Module, arch: str, name: str, *, data_dir: Path | None) -> str:
    """Load the weights of that name or file into the network; return a description, as `load_into`."""
    return read_weights(arch, name, data_dir=data_dir).load_into(network)


def head_name(network: nn.Module) -> str:
    """The name of the last layer: the last dense one, or the last convolution. Raises UsageError without both."""
    names = _names(network, nn.Linear) or _names(network, nn.Conv2d)
    if not names:
        raise UsageError(
            "the network has neither dense layers nor convolutions, so it has no last layer to train first"
        )
    return names[-1]


def freeze_backbone(network: nn.Module) -> None:
    """Make only the last layer trainable."""
    head = head_name(network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(f"{head}."))


def frozen_norms(model: nn.Module) -> frozenset[str]:
    """The names of the frozen batch norm layers: these keep using their statistics unchanged."""
    layers = model.named_modules()
    return frozenset(
        name
        for name, one in layers
        if isinstance(one, _BatchNorm) and one.weight is not None and not one.weight.requires_grad
    )


def to_training_mode(model: nn.Module) -> None:
    """Set training mode, except in frozen batch norm layers."""
    model.train()
    for name in frozen_norms(model):
        model.get_submodule(name).eval()


def _weights_path(name: str, arch: str, data_dir: Path | None) -> Path:
    if name in PUBLISHED:
        file = published_file(name, arch)
        path = (data_dir or default_data_dir()) / "weights" / file
        if not path.is_file():
            download(
                PUBLISHED_URL + file,
                path,
                checksum=published_checksum(file),
                error=ArtifactError,
                otherwise="pass another file with --weights",
            )
        check_download(path, checksum=published_checksum(file), error=ArtifactError)
        return path
    if name in zoo_names():
        return zoo_file(name, ".pt")
    if not Path(name).is_file():
        raise UnknownNameError("--weights", name, ("a file", *PUBLISHED, *zoo_names()))
    return Path(name)


def _read(path: Path, arch: str) -> InitialWeights:
    file = read_weight_file(path)
    if not file.of_rtk:
        return InitialWeights(path, arch, file.states)
    checkpoint = load_checkpoint(path)
    if checkpoint.card.arch != arch:
        raise ArtifactError(f"{path}: holds weights of {checkpoint.card.arch}, expected {arch}")
    network, maps = (_without_prefix(checkpoint.weights, prefix) for prefix in ("network.", "normalise."))
    return InitialWeights(path, arch, (StateDict(network),), checkpoint.card, maps)


def _without_prefix(weights: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _adapt(weights: dict[str, Tensor], network: nn.Module) -> list[str]:
    """Adapt the weights to another number of classes and to grey images; return descriptions of the changes."""
    changes, wanted = [], network.state_dict()
    head, first = head_name(network), next(iter(_names(network, nn.Conv2d)), "")
    old, new = weights.get(f"{head}.weight"), wanted[f"{head}.weight"]
    if old is not None and old.ndim == new.ndim and old.shape[1:] == new.shape[1:] and len(old) != len(new):
        for name in {f"{head}.weight", f"{head}.bias"} & set(wanted):
            weights[name] = wanted[name]
        changes.append(f"last layer reinitialised for {len(new):,} instead of {len(old):,} classes")
    kernel = weights.get(f"{first}.weight")
    if kernel is not None and kernel.ndim == 4 and (kernel.shape[1], wanted[f"{first}.weight"].shape[1]) == (3, 1):
        weights[f"{first}.weight"] = kernel.sum(dim=1, keepdim=True)
        changes.append("first kernel summed over three channels for grey images")
    return changes


def _names(network: nn.Module, kind: type[nn.Module]) -> list[str]:
    """The names of all layers of this kind, from first to last."""
    return [name for name, layer in network.named_modules() if isinstance(layer, kind)]
