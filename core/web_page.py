"""An HTML page in a single file: no network, no script, readable on a phone and in dark mode.

Tables and wide pictures scroll in boxes of their own, so that the page itself never scrolls sideways.
"""

import base64
import html
from collections.abc import Collection, Iterable, Mapping, Sequence

from .text import visible

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --rule: #d6d9de; --shade: #f3f4f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #16181c; --rule: #3a3f47; --shade: #202329; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 76rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 0; }
p { margin: .5rem 0; } figure { margin: 0; } figcaption { font-size: .9rem; } .faint { opacity: .75; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .25rem .45rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top;
         white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; overflow-wrap: normal; } tr:hover td { background: var(--shade); }
tr > :first-child { padding-left: 0 !important; } th.text, td.text { text-align: left; }
td.long { white-space: normal; min-width: 7rem; overflow-wrap: anywhere; }
th:first-child { text-align: left; }
.dense { font-size: .8rem; } .dense th, .dense td { padding: .2rem .3rem; } .dense td.long { min-width: 5.5rem; }
.notes { font-size: .9rem; padding-left: 1.2rem; }
pre { white-space: pre-wrap; font-size: .85rem; }
svg { display: block; width: 100%; height: auto; } svg image { image-rendering: pixelated; }
.plots { display: grid; gap: 1.5rem 2rem; margin: 1rem 0 2rem;
         grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); }
.plots > * { min-width: 0; } .plots > figure { max-width: 40rem; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin-bottom: .15rem; }
.legend span { display: inline-flex; align-items: center; gap: .25rem; }
.legend svg { width: 16px; height: 12px; flex: none; } .legend svg.wide { width: 28px; }
.legend i { width: 12px; height: 12px; flex: none; }
.answer { font-size: 1.15rem; margin: 1rem 0; } .answer b { font-size: 1.8rem; }
dl { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { opacity: .75; } dd { margin: 0; min-width: 0; } summary { cursor: pointer; padding: .5rem 0; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: 1rem; }
.images figure { min-width: 0; }
.images img { width: 100%; height: auto; display: block; box-sizing: border-box; border: 1px solid var(--rule);
              border-radius: .25rem; }
img.few-pixels { image-rendering: pixelated; }
.images figcaption { margin-top: .25rem; line-height: 1.35; } .images small { display: block; opacity: .75; }
"""
"""CSS of every page of rtk."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Content security policy: nothing is loaded from elsewhere, even if a file name contains HTML."""
FEW_PIXELS = 96
"""The width up to which an image is enlarged as squares and not blurred, in pixels."""
LONG_CELL, LONG_CELL_OF_DENSE = 20, 14
"""Characters of a table's cell above which it may be broken into lines."""
DENSE = 10
"""Columns above which a table has smaller letters, so that it fits a desktop's page."""


def web_page(title: str, body: str, *, style: str = "") -> str:
    """Return a whole page. `title`: plain text. `body`: HTML, its texts from `escaped`. `style`: more CSS."""
    return (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f'<meta http-equiv=Content-Security-Policy content="{POLICY}">'
        f"<title>{escaped(title)}</title><style>{STYLE}{style}</style><body>{body}</body></html>\n"
    )


def escaped(text: str) -> str:
    """Escape text for HTML; characters that are not printable become visible escapes."""
    return html.escape(visible(text))


def table_html(rows: Sequence[Mapping[str, str]], *, text_columns: Collection[str] = ()) -> str:
    """Rows with the same keys as a table in a box that scrolls; `text_columns` and the first one are set to the left.

    A long text is broken into lines where the page is narrow.
    """
    names = list(rows[0]) if rows else []
    left, dense = {*names[:1], *text_columns}, len(names) > DENSE
    longest = LONG_CELL_OF_DENSE if dense else LONG_CELL

    def cell(tag: str, name: str, text: str) -> str:
        classes = [word for word, holds in (("text", name in left), ("long", len(text) > longest)) if holds]
        return f"<{tag}{_class(classes)}>{escaped(text)}"

    heading = "".join(cell("th", name, name) for name in names)
    body = "".join("<tr>" + "".join(cell("td", *item) for item in row.items()) for row in rows)
    return f"<div class=scroll><table{_class(['dense'] if dense else [])}><tr>{heading}{body}</table></div>"


def _class(names: Sequence[str]) -> str:
    return f" class='{' '.join(names)}'" if names else ""


def figure_html(drawing: str, caption: str, *, legend: str = "", least_px: int = 0, most_px: int = 0) -> str:
    """A plot with its caption. `drawing`, `legend`: HTML.

    `least_px`: below this width it scrolls in a box. `most_px`: it does not become wider; 0: as wide as its place.
    """
    if most_px:
        drawing = f"<div style='max-width:{most_px}px'>{drawing}</div>"
    if least_px:
        drawing = f"<div class=scroll><div style='min-width:{least_px}px'>{drawing}</div></div>"
    return f"<figure>{drawing}<figcaption>{legend}{escaped(caption)}</figcaption></figure>"


def picture_html(picture: str, caption: str, *, alt: str = "", small: str = "") -> str:
    """An image in a grid with its caption; `picture`: a PNG in base64, `small`: a second, fainter text."""
    large = " class=few-pixels" if 0 < png_width(picture) <= FEW_PIXELS else ""
    image = f'<img{large} alt="{escaped(alt)}" src="data:image/png;base64,{escaped(picture)}">' if picture else ""
    below = f"<small>{escaped(small)}</small>" if small else ""
    return f"<figure>{image}<figcaption>{escaped(caption)}{below}</figcaption></figure>"


def png_width(picture: str) -> int:
    """The width of a PNG in base64, from its header, in pixels; 0 without a picture."""
    return int.from_bytes(base64.b64decode(picture[:32])[16:20])


def picture_grid(figures: Iterable[str]) -> str:
    """A grid of figures from `picture_html`."""
    return f"<div class=images>{''.join(figures)}</div>"


def facts_html(facts: Mapping[str, str]) -> str:
    """Names and their values, below each other."""
    return "<dl>" + "".join(f"<dt>{escaped(name)}<dd>{escaped(value)}" for name, value in facts.items()) + "</dl>"


def details_html(summary: str, body: str) -> str:
    """HTML that a click on the summary shows."""
    return f"<details><summary>{escaped(summary)}</summary>{body}</details>"


def swatches_html(entries: Iterable[tuple[str, str, float]]) -> str:
    """A legend of coloured squares: a text, a colour and an opacity for each."""
    squares = (
        f"<span><i style='background:{colour};opacity:{opacity:.2f}'></i>{escaped(text)}</span>"
        for text, colour, opacity in entries
    )
    return f"<span class=legend>{''.join(squares)}</span>"


def notes_html(lines: Sequence[str]) -> str:
    """Small text as a list; nothing without lines."""
    return f"<ul class='notes faint'>{''.join(f'<li>{escaped(line)}' for line in lines)}</ul>" if lines else ""
