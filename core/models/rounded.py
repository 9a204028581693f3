"""Logits of a model whose results are rounded to 16 bits: what a precision costs the network, on any processor."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from .model import Model, tensor_from_images
from .own_code import has_other_code

ROUNDED_BATCH = 64
"""Images at a time: every layer has its result twice."""


def rounded_logits(model: Model, images_NHWC: NDArray[np.uint8], dtype: torch.dtype) -> NDArray[np.float32]:
    """Compute the logits N x K in fp32 arithmetic with the weights and the result of every layer rounded to `dtype`.

    Normalised pixels are rounded too; residual additions are not. So this is what a 16-bit precision costs the network,
    whatever the processor can compute. In networks with code outside of rtk, the result of every operation is rounded,
    because much of their arithmetic may be in no layer.
    """
    copied = copy.deepcopy(model).eval()
    device = next(copied.parameters()).device
    parts = []
    with torch.inference_mode():
        for weight in copied.network.parameters():
            weight.copy_(weight.to(dtype))
        for start in range(0, len(images_NHWC), ROUNDED_BATCH):
            images_BHWC = tensor_from_images(images_NHWC[start : start + ROUNDED_BATCH]).to(device)
            x_BCHW = copied.normalise(images_BHWC)
            with _rounded_results(copied.network, dtype):
                parts.append(copied.logits_of_pixels(_rounded(x_BCHW, dtype)).cpu())
    result: NDArray[np.float32] = torch.cat(parts).numpy()
    return result


@contextlib.contextmanager
def _rounded_results(network: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """In this block, round the results of the network's layers, or of all its operations."""
    if has_other_code(network):
        with _EveryOperation(dtype):
            yield
        return
    leaves = (layer for layer in network.modules() if not list(layer.children()))
    hooks = [layer.register_forward_hook(lambda _, __, output: _rounded(output, dtype)) for layer in leaves]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _EveryOperation(TorchDispatchMode):
    """Rounds the floating-point results of all operations of torch; views and what changes in place stay the same."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype = dtype

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        schema = func._schema  # type: ignore[attr-defined]
        if schema.is_mutable:
            for value in args:
                if isinstance(value, Tensor) and value is output and value.dtype == torch.float32:
                    value.copy_(value.to(self.dtype))
            return output
        if any(one.alias_info is not None for one in schema.returns):  # a view
            return output
        return tree_map_only(Tensor, lambda value: _rounded(value, self.dtype), output)


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).to(values.dtype) if values.dtype == torch.float32 else values
