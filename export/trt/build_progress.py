"""TensorRT's progress while it builds, as bars on standard error; Ctrl-C stops the build and not the interpreter."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class BuildProgress:
    """What the builder told of its phases; drawn as one bar for each open phase."""

    def __init__(self) -> None:
        self.interrupted = False
        self.phases: list[str] = []
        """The open phases, the outermost first."""
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def start(self, phase: str, steps: int) -> None:
        """A phase of so many steps begins."""
        self.phases.append(phase)
        if self._bars is not None:
            indent = "  " * (len(self.phases) - 1)
            self._tasks[phase] = self._bars.add_task(f"{indent}{phase}", total=steps)

    def step(self, phase: str) -> bool:
        """One step of a phase is done; False asks the builder to stop."""
        if phase in self._tasks:
            self._bars.advance(self._tasks[phase])
        return not self.interrupted

    def finish(self, phase: str) -> None:
        """A phase ended, or was broken off."""
        if phase in self.phases:
            self.phases.remove(phase)
        if phase in self._tasks:
            self._bars.remove_task(self._tasks.pop(phase))

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Draw bars, where standard error is a terminal, and hold back Ctrl-C while the block runs.

        An exception must not pass through TensorRT, so that Ctrl-C sets `interrupted` and the builder stops by itself.
        Raises KeyboardInterrupt at the end, if it was pressed.
        """
        with contextlib.ExitStack() as stack:
            if sys.stderr.isatty():
                from rich.console import Console
                from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

                columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
                self._bars = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
            if threading.current_thread() is threading.main_thread():
                before = signal.signal(signal.SIGINT, self._interrupt)
                stack.callback(signal.signal, signal.SIGINT, before)
            try:
                yield
            finally:
                self._tasks.clear()
        if self.interrupted:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True


def monitor_of(trt: Any, progress: BuildProgress) -> Any:
    """An IProgressMonitor that tells `progress`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base class comes from a module without types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()
