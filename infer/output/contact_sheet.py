"""A contact sheet of the answers that the model is least sure of, as one HTML page without a network.

However many answers come, only the least certain are held: a heap of small pictures. Names and labels come from
strangers: they are shown as text that steers neither a browser nor a reader, and the page may load nothing and run
nothing.
"""

import base64
import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...core.card import Input, ModelCard
from ...core.data.images import encoded_image, model_image
from ...core.errors import ImageError, UsageError
from ...core.files import make_folder, write_whole
from ...core.web_page import escaped, web_page
from ..classify import Answer
from ..sources.entry import Entry

SHOWN = 100
"""Answers on a sheet."""
PICTURE = Input(128, 128, 3)
"""Their pictures, whole, with bars where they are not square."""
JPEG_QUALITY = 85

STYLE = """
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; margin-top: 1rem; }
figure { padding: .5rem; border: 1px solid var(--rule); border-radius: .5rem; }
img { width: 100%; height: auto; display: block; border-radius: .25rem; } small { display: block; opacity: .75; }
"""


@dataclass(frozen=True, order=True)
class _Shown:
    """One picture on the sheet; the smallest is the first to leave it."""

    certainty: float
    """Minus the probability of the best guess."""
    number: int
    """Minus its place among the answers, so that of two that are equally certain the earlier one stays."""
    figure: str


class Sheet:
    """Collects the least certain of the answers that pass through it, and writes them as a page."""

    def __init__(self, path: Path, card: ModelCard, *, shown: int = SHOWN) -> None:
        """Raises UsageError for a folder, OutputError when the page's folder cannot be made."""
        if path.is_dir():
            raise UsageError(f"--report {path}: is a folder; expected the name of an HTML file")
        make_folder(path.parent)
        self.path, self.card, self.shown = path, card, shown
        self.answered = self.unreadable = 0
        self._heap: list[_Shown] = []
        self._asked: deque[Entry] = deque()

    def noted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries, remembered until their answers come."""
        for entry in entries:
            self._asked.append(entry)
            yield entry

    def seen(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The answers to these entries, as they are."""
        for answer in answers:
            entry = self._asked.popleft()
            assert entry.name == answer.file
            self.answered += 1
            if answer.error:
                self.unreadable += 1
            elif len(self._heap) < self.shown or -answer.probability > self._heap[0].certainty:
                one = _Shown(-answer.probability, -self.answered, _figure(entry, answer))
                (heapq.heappush if len(self._heap) < self.shown else heapq.heapreplace)(self._heap, one)
            yield answer

    def write(self) -> None:
        """Write the page, the least certain answer first, if there was any answer. Raises OutputError."""
        if not self.answered:
            return
        title = f"The least certain answers of {self.card.name}"
        least = sorted(self._heap, reverse=True)
        images = "image" if self.answered == 1 else "images"
        words = f"{len(least):,} of {self.answered:,} {images}, {self.unreadable:,} of them unreadable"
        body = (
            f"<h1>{escaped(title)}</h1><p>{words}; {escaped(self.card.precision)}</p>"
            f"<main>{''.join(one.figure for one in least)}</main>"
        )
        write_whole(self.path, web_page(title, body, style=STYLE))


def _figure(entry: Entry, answer: Answer) -> str:
    guesses = "".join(f"<b>{escaped(guess.label)}</b> {guess.probability:.1%}<br>" for guess in answer.guesses)
    return (
        f"<figure>{_picture(entry)}<figcaption>{guesses}<small>{escaped(answer.file)}</small></figcaption></figure>\n"
    )


def _picture(entry: Entry) -> str:
    """The image itself in the page; or words, when its file has gone since it was answered."""
    try:
        pixels = model_image(entry.name if entry.content is None else entry.content, PICTURE, fit="letterbox")
    except ImageError:
        return "<p>its file has changed since</p>"
    jpeg = base64.b64encode(encoded_image(pixels, format_="JPEG", quality=JPEG_QUALITY)).decode()
    return f"<img alt='' src='data:image/jpeg;base64,{jpeg}'>"
