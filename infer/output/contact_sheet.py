"""A contact sheet: the least certain answers with their images, as one HTML page that needs no network.

Memory is bounded: a heap keeps only the least certain answers, as small JPEGs. File names and labels are untrusted, so
they become text that controls neither a browser nor a terminal, and the page may neither load nor run anything.
"""

import base64
import heapq
from dataclasses import dataclass
from pathlib import Path

from ...core.card import Input, ModelCard
from ...core.data.images import encoded_image, model_image
from ...core.data.sources.entry import Entry
from ...core.errors import ImageError, UsageError
from ...core.files import make_folder, write_whole
from ...core.web_page import escaped, picture_grid, web_page
from ..classify import Answer

ANSWERS_SHOWN = 100
PICTURE_SIZE = Input(128, 128, 3)
"""The whole image fits into this size; bars fill the rest."""
JPEG_QUALITY = 85

STYLE = """
.images figure { padding: .5rem; border: 1px solid var(--rule); border-radius: .5rem; }
"""


@dataclass(frozen=True, order=True)
class _Figure:
    """One answer on the sheet. The smallest is the first to be replaced."""

    uncertainty: float
    """Minus the probability of the best prediction."""
    earliness: int
    """Minus the number of the answer: of two equally certain answers, the earlier one stays."""
    html: str


class ContactSheet:
    """Collects the least certain answers and writes them as a page."""

    def __init__(self, path: Path, card: ModelCard, *, shown: int = ANSWERS_SHOWN) -> None:
        """Raises UsageError if `path` is a folder, OutputError if its folder cannot be made."""
        if path.is_dir():
            raise UsageError(f"--report {path}: is a folder; expected the name of an HTML file")
        make_folder(path.parent)
        self.path, self.card, self.shown = path, card, shown
        self.answered = self.unreadable = 0
        self._heap: list[_Figure] = []

    def add(self, answer: Answer) -> None:
        """Keep the answer if it is among the least certain ones so far. It must carry its entry."""
        assert answer.entry is not None
        self.answered += 1
        if answer.error:
            self.unreadable += 1
        elif len(self._heap) < self.shown:
            heapq.heappush(self._heap, self._figure(answer, answer.entry))
        elif -answer.probability > self._heap[0].uncertainty:
            heapq.heapreplace(self._heap, self._figure(answer, answer.entry))

    def write(self) -> None:
        """Write the page, the least certain answer first. Without answers, write nothing. Raises OutputError."""
        if not self.answered:
            return
        title = f"The least certain answers of {self.card.name}"
        figures = sorted(self._heap, reverse=True)
        images = "image" if self.answered == 1 else "images"
        counts = f"{len(figures):,} of {self.answered:,} {images}, {self.unreadable:,} of them unreadable"
        body = (
            f"<h1>{escaped(title)}</h1><p>{counts}; {escaped(self.card.precision)}</p>"
            f"{picture_grid(figure.html for figure in figures)}"
        )
        write_whole(self.path, web_page(title, body, style=STYLE))

    def _figure(self, answer: Answer, entry: Entry) -> _Figure:
        return _Figure(-answer.probability, -self.answered, _figure_html(answer, entry))


def _figure_html(answer: Answer, entry: Entry) -> str:
    predictions = "".join(f"<b>{escaped(one.label)}</b> {one.probability:.1%}<br>" for one in answer.predictions)
    caption = f"<figcaption>{predictions}<small>{escaped(answer.file)}</small></figcaption>"
    return f"<figure>{_picture_html(entry)}{caption}</figure>\n"


def _picture_html(entry: Entry) -> str:
    """The image inside the page, or a sentence if its file has changed since it was classified."""
    try:
        pixels = model_image(entry.name if entry.content is None else entry.content, PICTURE_SIZE, fit="letterbox")
    except ImageError:
        return "<p>its file has changed since</p>"
    jpeg = base64.b64encode(encoded_image(pixels, format_="JPEG", quality=JPEG_QUALITY)).decode()
    return f"<img alt='' src='data:image/jpeg;base64,{jpeg}'>"
