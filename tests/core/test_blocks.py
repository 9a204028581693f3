"""Recomputed activations: the same gradients and statistics bit by bit, with much less memory."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from rtk.core.models.blocks import recompute_activations
from rtk.core.models.model import build_network
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def stepped(arch: str, randomise: Callable[..., None], *, recompute: bool, steps: int = 2) -> nn.Module:
    """Return the network after some forward and backward passes over random images in training mode."""
    network = build_network(arch, in_channels=3, classes=10).train()
    randomise(network, seed=1)
    if recompute:
        recompute_activations(network)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        x = torch.randn(4, 3, 16, 16, generator=generator)
        F.cross_entropy(network(x), torch.arange(4)).backward()
    return network


@pytest.mark.parametrize("arch", ["resnet38v1", "resnet56v2", "plain38", "resnet34", "resnet50", "resnet18d2l"])
def test_gradients_and_statistics_are_the_same_bit_by_bit(randomise: Callable[..., None], arch: str) -> None:
    plain, recomputed = (stepped(arch, randomise, recompute=recompute) for recompute in (False, True))
    for (name, one), other in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad), name
    for (name, one), other in zip(plain.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(one, other), name  # running means and variances, and the count of batches
    assert {int(one) for name, one in plain.named_buffers() if name.endswith("tracked")} == {2}


def kept_bytes(network: nn.Module) -> int:
    """Return the bytes of activations that a forward pass keeps for the backward pass."""
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(record, lambda tensor: tensor):
        logits = network(torch.zeros(2, 3, 16, 16))
    assert logits.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize(("arch", "share"), [("resnet164v2", 0.15), ("resnet164v1", 0.15), ("resnet50", 0.6)])
def test_kept_activations_grow_with_the_square_root_of_the_depth(arch: str, share: float) -> None:
    """resnet164v2 keeps the input of every fourth of its 54 blocks; a block has about three such tensors."""
    network = build_network(arch, in_channels=3, classes=10).train()
    everything = kept_bytes(network)
    recompute_activations(network)
    assert kept_bytes(network) < share * everything


def test_evaluation_does_not_depend_on_recomputation(randomise: Callable[..., None]) -> None:
    network = stepped("resnet20v1", randomise, recompute=True).eval()
    other = build_network("resnet20v1", in_channels=3, classes=10).eval()
    other.load_state_dict(network.state_dict())
    x = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network(x), other(x))
