"""A contact sheet of the answers that the model is least sure of, as one HTML page without a network.

However many answers come, only the least certain are held: a heap of small pictures. Names and labels come from
strangers: they are shown as text that steers neither a browser nor a reader, and the page may load nothing and run
nothing.
"""

import base64
import heapq
import html
import io
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...core.card import Input, ModelCard
from ...core.data.images import model_image
from ...core.errors import ImageError, UsageError
from ...core.files import make_folder, write_whole
from ...core.text import visible
from ..classify import Answer
from ..sources.entry import Entry

SHOWN = 100
"""Answers on a sheet."""
PICTURE = Input(128, 128, 3)
"""Their pictures, whole, with bars where they are not square."""
JPEG_QUALITY = 85

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --rule: #d6d9de; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16181c; --rule: #3a3f47; } }
body { font: 16px/1.4 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; margin: 0; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1rem; margin-top: 1rem; }
figure { margin: 0; padding: .5rem; border: 1px solid var(--rule); border-radius: .5rem; }
img { width: 100%; height: auto; display: block; border-radius: .25rem; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; } small { display: block; opacity: .75; }
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
        title = f"The least certain answers of {_text(self.card.name)}"
        least = sorted(self._heap, reverse=True)
        images = "image" if self.answered == 1 else "images"
        words = f"{len(least):,} of {self.answered:,} {images}, {self.unreadable:,} of them unreadable"
        write_whole(
            self.path,
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; "
            "style-src 'unsafe-inline'\">"
            f"<title>{title}</title><style>{STYLE}</style><body><h1>{title}</h1><p>{words}; "
            f"{_text(self.card.precision)}</p><main>{''.join(one.figure for one in least)}</main></body></html>\n",
        )


def _figure(entry: Entry, answer: Answer) -> str:
    guesses = "".join(f"<b>{_text(guess.label)}</b> {guess.probability:.1%}<br>" for guess in answer.guesses)
    return f"<figure>{_picture(entry)}<figcaption>{guesses}<small>{_text(answer.file)}</small></figcaption></figure>\n"


def _picture(entry: Entry) -> str:
    """The image itself in the page; or words, when its file has gone since it was answered."""
    try:
        pixels = model_image(entry.name if entry.content is None else entry.content, PICTURE, fit="letterbox")
    except ImageError:
        return "<p>its file has changed since</p>"
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY)
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}'>"


def _text(words: str) -> str:
    return html.escape(visible(words))
