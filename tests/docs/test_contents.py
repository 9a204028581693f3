"""The pages name what the code has: environment variables, fields of files, error messages."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.pages import DOCS, README, ROOT, text_of
from rtk.bench.config import PRESETS, SCOPES
from rtk.core.artifacts.engine import EngineInfo
from rtk.core.card import Input, ModelCard, Preprocessing, Score, Training
from rtk.core.data.datasets import DATASETS
from rtk.train.recipes import RECIPES

ROOMS = ("core", "train", "export", "infer", "bench", "workflow", "cli")
SOURCES = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))]
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{2,}")


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    return text_of(ROOT / "docs" / name)


def variables_of(source: str) -> Iterator[str]:
    """Yield the environment variables that a module reads or sets: names in one expression with os.environ."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "envvar" and isinstance(node.value, ast.Constant):
            yield str(node.value.value)
        if isinstance(node, ast.Call | ast.Subscript | ast.Compare | ast.AugAssign) and _is_environment(node):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and VARIABLE.fullmatch(str(part.value)):
                    yield str(part.value)


def _is_environment(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="set_in_environment")):
            return True
        case ast.Call():
            parts = [node.func]
        case ast.Subscript():
            parts = [node.value]
        case ast.Compare():
            parts = [*node.comparators]
        case ast.AugAssign():
            parts = [node.target]
        case _:
            parts = []
    return any(
        isinstance(one, ast.Attribute) and one.attr in ("environ", "getenv") for p in parts for one in ast.walk(p)
    )


def test_variables_are_found_however_they_are_used() -> None:
    source = """
import os
a = os.environ.get("ONE") or os.environ["TWO"]
b = "THREE" in os.environ
os.environ |= {"FOUR": "x"}
os.environ.setdefault("FIVE", "y")
c = Option(envvar="SIX")
d = os.getenv("SEVEN")
set_in_environment("NINE", "z")
print("EIGHT")
"""
    assert sorted(variables_of(source)) == ["FIVE", "FOUR", "NINE", "ONE", "SEVEN", "SIX", "THREE", "TWO"]


def test_every_environment_variable_of_the_code_is_documented() -> None:
    used = {name for path in SOURCES for name in variables_of(path.read_text(encoding="utf-8"))}
    assert used >= {"RTK_DATA_DIR", "RTK_CACHE_DIR", "WORLD_SIZE"}
    text = page("environment.md").partition("## Telemetry")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([A-Z0-9_]{3,})`", row.split("|")[1])} == used


@pytest.mark.parametrize(
    "kind", [ModelCard, Input, Preprocessing, Score, Training, EngineInfo], ids=lambda k: k.__name__
)
def test_every_field_of_a_card_and_an_engine_is_documented(kind: type) -> None:
    assert dataclasses.is_dataclass(kind)
    text = page("file-formats.md")
    assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in text] == []


def test_every_file_of_a_run_folder_is_documented() -> None:
    source = ast.parse((ROOT / "train" / "run_folder.py").read_text(encoding="utf-8"))
    strings = [str(node.value) for node in ast.walk(source) if isinstance(node, ast.Constant)]
    names = {name for name in strings if re.fullmatch(r"[\w-]+\.(pt|json|jsonl|csv|png)", name)}
    state = {"best.pt", "last.pt", "not-finite.pt", "config.json"}
    assert names == state | {"history.jsonl", "history.csv", "curves.png"}
    assert [name for name in names if f"`{name}`" not in page("file-formats.md")] == []


def test_every_data_set_recipe_scope_and_preset_is_documented() -> None:
    for names, name in ((DATASETS, "own-data.md"), (RECIPES, "training.md"), ((*SCOPES, *PRESETS), "benchmarks.md")):
        assert [one for one in names if f"`{one}`" not in page(name)] == []


def test_every_error_message_of_the_troubleshooting_page_is_in_the_code() -> None:
    messages = re.findall(r"^### `(.*)`$", page("troubleshooting.md"), re.MULTILINE)
    assert len(messages) > 20
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert [message for message in messages if message not in code] == []


def test_every_row_about_other_machines_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text().partition("## Containers, clusters and other shells")[2]
    named = re.findall(r"`(test_\w+)` \|$", text, re.MULTILINE)
    rows = [
        line for line in text.splitlines() if line.startswith("|") and "---" not in line and "| symptom" not in line
    ]
    assert len(named) == len(rows)
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in named if f"def {name}(" not in tests]
    assert not missing


@pytest.mark.parametrize("path", [README, *DOCS], ids=lambda path: path.name)
def test_a_page_has_no_lines_of_prose_wider_than_120_columns(path: Path) -> None:
    prose = [line for line in text_of(path).splitlines() if not line.startswith(("|", "    ", "- ", "**"))]
    assert [line for line in prose if len(line) > 120] == []
