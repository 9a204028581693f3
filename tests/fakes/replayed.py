"""A stand-in for CUDA graphs on the CPU: operations are recorded one by one, with their tensors, and run again."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
WAITS = (ATEN._local_scalar_dense.default, ATEN.nonzero.default, ATEN.masked_select.default)
"""Operations that wait for the device: the host needs a number from it, or the shape of the result."""


def _indices(func: Any, args: Any) -> list[Tensor]:
    """The tensors that index another; masks among them need the device to count."""
    indexes = func in (ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default)
    return [one for one in args[1] if one is not None] if indexes else []


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITS or any(one.dtype == torch.bool for one in _indices(func, args)):
            raise RuntimeError("operation not permitted when stream is capturing")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


class ReplayRecorder:
    """Records as CUDA does: numbers of Python and the places of tensors stay those of the recorded step.

    `state`: every tensor that the work changes. Recording must not change them, so they are restored after it.
    """

    def __init__(self, state: Callable[[], Iterable[Tensor]]) -> None:
        self.state, self.recorded, self.runs = state, 0, 0

    def record(
        self, work: Callable[[], tuple[Tensor, ...]], generators: Sequence[Generator]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """See Recorder."""
        self.recorded += 1
        drawn = [generator.get_state() for generator in generators]
        before = [(tensor, tensor.detach().clone()) for tensor in self.state()]
        operations = _Operations()
        with operations:
            results = work()
        for tensor, old in before:
            tensor.detach().copy_(old)
        for generator, old_state in zip(generators, drawn, strict=True):
            generator.set_state(old_state)

        def run() -> None:
            self.runs += 1
            with torch.no_grad():
                for func, args, kwargs, result in operations.calls:
                    again = func(*args, **kwargs)
                    for mine, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                        if isinstance(mine, Tensor) and mine.data_ptr() != new.data_ptr():
                            mine.detach().copy_(new)

        return run, results
