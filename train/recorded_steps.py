"""RecordedSteps: the work of a training step as a CUDA graph, which the host starts with a single call.

A step of a small network is hundreds of short kernels. Starting one takes the host longer than the GPU needs to run it,
so a GPU that gets them one by one mostly waits. A CUDA graph holds them all, from the crops of the images to the update
of the weights.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from ..core.errors import BackendError


class RecordingError(BackendError):
    """The work of a step cannot be recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"a training step of this network cannot be recorded as a CUDA graph ({reason}); use --compile off"
        )
        self.reason = reason


WARM_UP_STEPS = 3
"""Steps of each shape before one is recorded: libraries choose their algorithms, and allocate memory, in the first."""

Work = Callable[..., tuple[Tensor, ...]]


class Recorder(Protocol):
    """Records work on a device without running it."""

    def record(
        self, work: Callable[[], tuple[Tensor, ...]], generators: Sequence[Generator]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """What runs the recorded work, and the tensors that hold its results after each run. Raises RuntimeError.

        `generators`: those that the work draws from, which go on from run to run.
        """
        ...


class CudaGraphRecorder:
    """Records CUDA graphs; they share their memory, because only one of them runs at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(
        self, work: Callable[[], tuple[Tensor, ...]], generators: Sequence[Generator]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """See Recorder."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # Another thread may allocate memory meanwhile, for images that are streamed.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            results = work()
        return graph.replay, results


@dataclass(frozen=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    run: Callable[[], None]
    results: tuple[Tensor, ...]


class RecordedSteps:
    """Calls `work` in the first steps of each kind, then records it once, and runs the recording.

    The first argument of `work` is a value of Python, the others are tensors or None. Steps of one kind have the same
    value, and tensors of the same shapes and types. `work` must not wait for the device, must draw random numbers only
    from `generators`, and must keep its state in the same tensors from step to step.
    """

    def __init__(self, work: Work, recorder: Recorder, *, generators: Sequence[Generator] = ()) -> None:
        self._work, self._recorder, self._generators = work, recorder, generators
        self._calls: Counter[Hashable] = Counter()
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(self, value: Hashable, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """The results of one step, valid until the next one. Raises RecordingError if the work cannot be recorded."""
        kind = (value, *(None if one is None else (one.shape, one.dtype) for one in inputs))
        recording = self._recordings.get(kind)
        if recording is None:
            self._calls[kind] += 1
            if self._calls[kind] <= WARM_UP_STEPS:
                return self._work(value, *inputs)
            recording = self._recordings[kind] = self._record(value, inputs)
        given = [one for one in inputs if one is not None]
        for mine, theirs in zip(recording.inputs, given, strict=True):
            mine.copy_(theirs)
        recording.run()
        return recording.results

    def _record(self, value: Hashable, inputs: Sequence[Tensor | None]) -> _Recording:
        mine = tuple(None if one is None else one.clone() for one in inputs)
        try:
            run, results = self._recorder.record(lambda: self._work(value, *mine), self._generators)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise RecordingError(reason) from error
        return _Recording(tuple(one for one in mine if one is not None), run, results)
