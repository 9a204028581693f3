"""The pages of the documentation, and the commands and Python snippets that they show."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


def text_of(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def indented_lines(text: str) -> Iterator[str]:
    """Yield the lines of indented code blocks outside of fenced blocks, continued lines joined."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in plain.replace("\\\n", " ").splitlines():
        if line.startswith("    "):
            yield line.strip()


def commands_in(text: str) -> list[list[str]]:
    """Return the arguments of every command of rtk in the code blocks of a page, the word rtk left out."""
    found = []
    for line in indented_lines(text):
        for part in re.split(r"&&|(?<!\|)\|(?!\|)", line.removeprefix("$ ")):
            if re.match(r"\s*([A-Z_]+=\S+ )*(rtk|torchrun \S.* -m rtk) ", part):
                words = shlex.split(part, comments=True)
                found.append(words[words.index("rtk") + 1 :])
    return found


def inline_commands_in(text: str) -> list[list[str]]:
    """Return the words of every command of rtk in inline code, such as `rtk export MODEL --trt`."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"(?<!`)`([^`]+)`(?!`)", plain)
    return [span.split()[1:] for span in spans if span.split()[:1] == ["rtk"]]


def snippets_in(text: str) -> list[str]:
    """Return the fenced Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def anchors_in(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
