"""Progress bars on standard error; nothing is printed when it is not a terminal."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]
Total = int | Callable[[], int | None] | None
"""The total count; a function is called in a thread while the bar already runs; None means unknown."""


@contextlib.contextmanager
def progress_bar(description: str, total: Total, *, unit: str = "", shown: bool = True) -> Iterator[Advance]:
    """Show a bar while the block runs, and yield a function that advances it by a count of `unit`s."""
    if not shown or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total if isinstance(total, int) else None, rate="")
        if callable(total):
            threading.Thread(target=lambda: progress.update(task, total=total()), daemon=True).start()

        def advance(count: int) -> None:
            progress.advance(task, count)
            speed = progress.tasks[0].speed
            if speed:
                progress.update(task, rate=f"{speed:,.0f}/s")

        yield advance
