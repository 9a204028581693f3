"""What headless Chromium makes of a page: sizes, pictures, and where the text of its plots lies."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LOOK = """
onload = () => {
  const inner = document.getElementById('page').contentDocument, root = inner.documentElement;
  const rect = element => element.getBoundingClientRect(), slack = 1;
  const apart = (a, b) => a.right <= b.left + slack || b.right <= a.left + slack
      || a.bottom <= b.top + slack || b.bottom <= a.top + slack;
  const inside = (a, b) => a.left >= b.left - slack && a.right <= b.right + slack
      && a.top >= b.top - slack && a.bottom <= b.bottom + slack;
  const faults = [];
  for (const svg of inner.querySelectorAll('figure svg')) {
    const area = svg.querySelector('[id=patch_2]');
    const texts = [...svg.querySelectorAll('text')].filter(e => e.textContent.trim())
        .map(e => [e.textContent.trim(), rect(e), e.closest('[id^="matplotlib.axis"]')]);
    texts.forEach(([words, box, ofAxis], k) => {
      if (!inside(box, rect(svg))) faults.push(words + ' lies outside its picture');
      if (area && ofAxis && !apart(box, rect(area))) faults.push(words + ' lies on the plot');
      for (const [other, itsBox] of texts.slice(k + 1))
        if (!apart(box, itsBox)) faults.push(words + ' runs into ' + other);
    });
  }
  const series = [...inner.querySelectorAll('[id^=data-]')].map(
      e => [e.id, e.getBBox().width + e.getBBox().height > 0]);
  const scroll = [...inner.querySelectorAll('.scroll')];
  document.title = JSON.stringify({
    sideways: root.scrollWidth - root.clientWidth, width: root.clientWidth, faults,
    series: Object.fromEntries(series), images: [...inner.images].map(e => e.naturalWidth),
    tables: inner.querySelectorAll('table').length,
    loose: [...inner.querySelectorAll('table')].filter(e => !e.closest('.scroll')).length,
    cut: scroll.filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(0, 60)),
  });
};
"""


@dataclass(frozen=True)
class Seen:
    """What the browser found."""

    width: int
    """Of the page, in CSS pixels."""
    sideways: int
    """How far the page itself scrolls sideways, in CSS pixels."""
    faults: list[str]
    """Texts of plots outside their picture, on the plot's area, or on one another."""
    series: dict[str, bool]
    """By id, whether each series of a plot has a size."""
    images: list[int]
    """The width of every image in its own pixels; 0 if it cannot be shown."""
    tables: int
    loose: int
    """Tables outside a box that scrolls."""
    cut: list[str]
    """The beginning of the text of every box that must be scrolled to be seen."""


def look_at(page: str, folder: Path, *, width: int) -> Seen:
    """Show the page in a frame of this width, narrower than Chromium's smallest window too. Skips without Chromium.

    The frame's page is the very page: what looks at it runs outside of it.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    frame = f'<iframe id=page style="width:{width}px;height:1600px;border:0" srcdoc="{html.escape(page)}"></iframe>'
    (folder / "frame.html").write_text(f"<meta charset=utf-8><body style='margin:0'>{frame}<script>{LOOK}</script>")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--force-dark-mode"]
    options += [f"--window-size={max(width, 600)},1600", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [chromium, *options, str(folder / "frame.html")], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found: dict[str, Any] = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))  # type: ignore[index]
    return Seen(**found)
