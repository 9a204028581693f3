"""Every example in docs/python.md runs, and gives what the page shows."""

import doctest
import re
from pathlib import Path

import pytest
from docs.pages import ROOT, text_of

PAGE = ROOT / "docs" / "python.md"


def examples() -> str:
    """The examples of the page, as one text."""
    return "\n".join(re.findall(r"^```pycon\n(.*?)^```$", text_of(PAGE), re.DOTALL | re.MULTILINE))


def test_every_example_is_in_a_block_that_is_run() -> None:
    assert examples().count(">>> ") == text_of(PAGE).count(">>> ") > 30


@pytest.mark.torch
def test_every_example_gives_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    parsed = doctest.DocTestParser().get_doctest(examples(), {}, PAGE.name, str(PAGE), 0)
    shown: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    result = runner.run(parsed, out=shown.append)
    assert result.failed == 0, "".join(shown)
