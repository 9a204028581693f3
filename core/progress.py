"""Progress bars on standard error; nothing is printed when it is not a terminal."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

Advance = Callable[[int], None]
Total = int | Callable[[], int | None] | None
"""The total count; a function is called in a thread while the bar already runs; None means unknown."""
REDRAWS_PER_S = 4
"""Drawing costs milliseconds, during which the program's other threads wait."""


@contextlib.contextmanager
def progress_bar(description: str, total: Total, *, unit: str = "", shown: bool = True) -> Iterator[Advance]:
    """Show a bar while the block runs, and yield a function that advances it by a count of `unit`s.

    The function only adds, so it may be called for every image of millions: the bar fetches the sum when it is drawn.
    It must not be called by several threads at once.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count

    class Bar(Progress):
        """A bar that fetches how much is done."""

        def get_renderables(self) -> Iterable[RenderableType]:
            for one in self.tasks:
                speed = one.speed
                self.update(one.id, completed=done, rate=f"{speed:,.0f}/s" if speed else "")
            return super().get_renderables()

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=REDRAWS_PER_S) as progress:
        task = progress.add_task(description, total=total if isinstance(total, int) else None, rate="")
        if callable(total):
            threading.Thread(target=lambda: progress.update(task, total=total()), daemon=True).start()
        yield advance
