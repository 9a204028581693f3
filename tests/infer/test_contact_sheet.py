"""The contact sheet shows the least certain answers, in bounded memory, and untrusted names do no harm."""

import base64
import io
import random
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rtk.core.card import ModelCard
from rtk.core.data.sources.entry import Entry
from rtk.core.errors import OutputError, UsageError
from rtk.infer.classify import Answer, Prediction
from rtk.infer.output.contact_sheet import ContactSheet

PIXELS = np.full((6, 6, 3), 200, np.uint8)


class Page(HTMLParser):
    """The page as a browser reads it: tags in order, their attributes, the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def pictures(self) -> list[Image.Image]:
        sources = [value or "" for name, value in self.attributes if name == "src"]
        assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
        return [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def add_all(sheet: ContactSheet, pairs: list[tuple[Entry, float]], label: str = "cat") -> None:
    for entry, probability in pairs:
        predictions = (Prediction(label, 3, probability), Prediction("dog", 5, 0.01))
        sheet.add(Answer(entry.name, () if entry.error else predictions, entry.error, entry))


def test_only_the_least_certain_answers_are_shown_the_least_certain_first(tmp_path: Path, card: ModelCard) -> None:
    shares = [number / 1_000 for number in range(200, 1_000)]
    random.Random(3).shuffle(shares)
    sheet = ContactSheet(tmp_path / "new" / "sheet.html", card, shown=7)
    pairs = [(Entry(f"{share:.3f}.png", content=PIXELS), share) for share in shares]
    pairs.insert(50, (Entry("bad.png", "damaged"), 0.0))
    add_all(sheet, pairs)
    sheet.write()
    page = Page(tmp_path / "new" / "sheet.html")
    assert re.findall(r"0\.\d{3}\.png", " ".join(page.words)) == [f"0.{200 + place}.png" for place in range(7)]
    assert "7 of 801 images, 1 of them unreadable; fp32" in page.words
    assert page.words.count("cat") == page.words.count("dog") == 7
    assert " 20.0%" in page.words
    assert len(page.pictures) == 7


def test_of_equally_certain_answers_the_earlier_ones_stay(tmp_path: Path, card: ModelCard) -> None:
    sheet = ContactSheet(tmp_path / "a.html", card, shown=3)
    add_all(sheet, [(Entry(f"{number}.png", content=PIXELS), 0.5) for number in range(9)])
    sheet.write()
    assert re.findall(r"\d\.png", " ".join(Page(tmp_path / "a.html").words)) == ["0.png", "1.png", "2.png"]


def test_pictures_show_the_whole_image_of_every_source(tmp_path: Path, card: ModelCard) -> None:
    Image.fromarray(np.full((10, 40, 3), (250, 0, 0), np.uint8)).save(tmp_path / "wide.png")
    (tmp_path / "gone.png").write_bytes(b"was an image when it was answered")
    content = (tmp_path / "wide.png").read_bytes()
    pairs = [
        (Entry(str(tmp_path / "wide.png")), 0.1),
        (Entry("a.zip!/wide.png", content=content), 0.2),
        (Entry("grey.npy[0]", content=PIXELS[..., :1]), 0.3),
        (Entry(str(tmp_path / "gone.png")), 0.4),
    ]
    sheet = ContactSheet(tmp_path / "a.html", card)
    add_all(sheet, pairs)
    sheet.write()
    page = Page(tmp_path / "a.html")
    pictures = [np.asarray(picture).astype(int) for picture in page.pictures]
    assert [picture.shape for picture in pictures] == [(128, 128, 3)] * 3
    for wide in pictures[:2]:
        assert abs(wide[64, 2] - [250, 0, 0]).max() < 12  # the left end is there, between bars
        assert wide[2].max() < 12
    assert abs(pictures[2] - 200).max() < 12
    assert "its file has changed since" in page.words


HARMFUL = [
    "<script>alert(1)</script>.png",
    "\"><img src=x onerror='alert(1)'>.png",
    "</figcaption></main><style>*{display:none}</style>",
    "\u202egnp.exe",
    "two\nlines\x1b[2J.png",
    "\udcff.png",
    "&lt;b&gt;",
]


def test_names_and_labels_become_plain_text(tmp_path: Path, card: ModelCard) -> None:
    for name in HARMFUL:
        sheet = ContactSheet(tmp_path / "a.html", card)
        add_all(sheet, [(Entry(name, content=PIXELS), 0.5)], label=name)
        sheet.write()
        page = Page(tmp_path / "a.html")
        assert page.tags == ["html", "meta", "meta", "meta", "title", "style", "body", "h1", "p", "div", "figure",
                             "img", "figcaption", "b", "br", "b", "br", "small"]  # fmt: skip
        assert {name for name, _ in page.attributes} == {
            *("lang", "charset", "name", "content", "http-equiv", "class", "alt", "src")
        }
        shown = page.words[-2] if page.words[-1] == "\n" else page.words[-1]
        assert "\u202e" not in "".join(page.words)
        assert "\x1b" not in "".join(page.words)
        assert page.words.count(shown) >= 2 or name in page.words  # as label and as name
    assert "&lt;b&gt;" in page.words  # not "<b>"


def test_a_page_needs_no_network_and_has_dark_colours(tmp_path: Path, card: ModelCard) -> None:
    sheet = ContactSheet(tmp_path / "a.html", card)
    add_all(sheet, [(Entry("a.png", content=PIXELS), 0.5)])
    sheet.write()
    text = (tmp_path / "a.html").read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "prefers-color-scheme: dark" in text
    assert "name=viewport" in text
    assert "default-src 'none'; img-src data:" in text


def test_memory_does_not_grow_over_a_hundred_thousand_answers(tmp_path: Path, card: ModelCard) -> None:
    sheet = ContactSheet(tmp_path / "a.html", card, shown=10)
    dice = random.Random(1)

    def add(count: int) -> None:
        for number in range(count):
            entry = Entry(f"{number}.png", content=PIXELS)
            sheet.add(Answer(entry.name, (Prediction("cat", 3, dice.random()),), entry=entry))

    tracemalloc.start()
    try:
        add(10_000)
        before = tracemalloc.get_traced_memory()[0]
        add(90_000)
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert sheet.answered == 100_000


def test_a_page_that_cannot_be_written_is_an_error_before_the_run(tmp_path: Path, card: ModelCard) -> None:
    with pytest.raises(UsageError, match="is a folder; expected the name of an HTML file"):
        ContactSheet(tmp_path, card)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the folder cannot be created"):
        ContactSheet(tmp_path / "file" / "a.html", card)
    ContactSheet(tmp_path / "a.html", card).write()
    assert not (tmp_path / "a.html").exists()  # there are no answers
