"""Every link of the documentation leads somewhere, and the README is short and links to every page."""

import re
from pathlib import Path

import pytest
from docs.pages import DOCS, PAGES, README, anchors_in, text_of

LONGEST_README = 200


def links_in(text: str) -> list[str]:
    """Return the targets of all links and pictures of a page, those to other servers left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in links_in(text_of(page)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors_in(text_of(target)), f"{page.name}: {link}"


def test_links_and_anchors_are_found() -> None:
    text = "# A & b\n## `c` d: e?\n[x](docs/a.md#b) ![y](c.png) [z](https://example.org) [w](#a--b)"
    assert links_in(text) == ["docs/a.md#b", "c.png", "#a--b"]
    assert anchors_in(text) == {"a--b", "c-d-e"}


def test_the_readme_links_to_every_page() -> None:
    linked = {link.partition("#")[0] for link in links_in(text_of(README))}
    assert {f"docs/{page.name}" for page in DOCS} <= linked
    assert len(DOCS) >= 13


def test_the_readme_is_short() -> None:
    assert len(text_of(README).splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_page_opens_with_code(page: Path) -> None:
    heading, empty, first, *_ = text_of(page).splitlines()
    assert heading.startswith("# ")
    assert empty == ""
    assert first.startswith("    ") or first == "```python"
