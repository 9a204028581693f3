"""Progress bars of a TensorRT build on standard error, and Ctrl-C that stops the build cleanly."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class BuildProgress:
    """The builder's open phases, drawn as one bar each."""

    def __init__(self) -> None:
        self.interrupted = False
        self.phases: list[str] = []
        """The open phases, outermost first."""
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def start(self, phase: str, steps: int) -> None:
        """Begin a phase of that many steps."""
        self.phases.append(phase)
        if self._bars is not None:
            indent = "  " * (len(self.phases) - 1)
            self._tasks[phase] = self._bars.add_task(f"{indent}{phase}", total=steps)

    def step(self, phase: str) -> bool:
        """Count one finished step of a phase; return False to ask the builder to stop."""
        if phase in self._tasks:
            self._bars.advance(self._tasks[phase])
        return not self.interrupted

    def finish(self, phase: str) -> None:
        """End a phase, finished or not."""
        if phase in self.phases:
            self.phases.remove(phase)
        if phase in self._tasks:
            self._bars.remove_task(self._tasks.pop(phase))

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Draw bars if standard error is a terminal, and defer Ctrl-C while the block runs.

        An exception must not pass through TensorRT. Therefore Ctrl-C sets `interrupted`, and the builder stops at its
        next step. Raises KeyboardInterrupt at the end if Ctrl-C was pressed.
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


def monitor_for(trt: Any, progress: BuildProgress) -> Any:
    """Return an IProgressMonitor that reports to `progress`."""

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
