"""--classes: every common form of a list of classes, and the one line that says what is wrong with another."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from rtk.core.errors import DataError, RtkError, UsageError
from rtk.workflow.class_list import read_classes


@pytest.mark.parametrize(
    "text", ["cat\ndog\nemu\n", "cat\r\ndog\r\nemu", "\ufeffcat\n dog \nemu\n\n\n", "cat\ndog\nemu"]
)
def test_a_text_has_a_name_in_each_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.txt").write_bytes(text.encode())
    assert read_classes(str(tmp_path / "classes.txt")).names == ("cat", "dog", "emu")


@pytest.mark.parametrize(
    "content",
    [
        ["cat", "dog", "emu"],
        {"2": "emu", "0": "cat", "1": "dog"},  # numbers to names
        {"emu": 2, "cat": 0, "dog": 1},  # torchvision's class_to_idx
        {"0": ["n02123045", "cat"], "1": ["n02084071", "dog"], "2": ["n01518878", "emu"]},  # Keras
        {"model_type": "resnet", "id2label": {"0": "cat", "1": "dog", "2": "emu"}, "label2id": {"cat": 0}},
    ],
    ids=["list", "numbers to names", "names to numbers", "pairs", "configuration"],
)
@pytest.mark.parametrize("suffix", [".json", ".txt"])
def test_json_is_a_list_or_a_map(tmp_path: Path, content: Any, suffix: str) -> None:
    (tmp_path / f"classes{suffix}").write_text(json.dumps(content))
    assert read_classes(str(tmp_path / f"classes{suffix}")).names == ("cat", "dog", "emu")


def test_numbers_may_be_names(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"7": 0, "8": 1}))
    (tmp_path / "b.json").write_text(json.dumps({"0": "7", "1": "8"}))
    assert read_classes(str(tmp_path / "a.json")).names == read_classes(str(tmp_path / "b.json")).names == ("7", "8")


def test_a_list_has_commas() -> None:
    assert read_classes("cat, dog,emu").names == ("cat", "dog", "emu")


def test_a_data_set_with_a_name_brings_its_classes() -> None:
    found = read_classes("fashion-mnist")
    assert (len(found.names), found.names[0], found.dataset) == (10, "T-shirt/top", "fashion-mnist")
    assert read_classes("cat,dog").dataset == ""


def test_names_that_occur_twice_get_their_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "classes.txt").write_text("crane\nemu\ncrane\n")
    with caplog.at_level(logging.WARNING):
        assert read_classes(str(tmp_path / "classes.txt")).names == ("crane (0)", "emu", "crane (2)")
    assert "several classes have the same name (crane)" in " ".join(caplog.text.split())


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("missing.txt", UsageError, "--classes missing.txt: no such file; expected a file, names with commas"),
        ("cat,,dog", UsageError, "--classes cat,,dog: name 2 is empty; "),
        (".", UsageError, "--classes .: a folder; expected a file"),
        ("gap.txt", DataError, "gap.txt: --classes: line 2 is empty; expected one name in each line"),
        ("empty.txt", DataError, "empty.txt: --classes: line 1 is empty; expected one name in each line"),
        ("bytes.txt", DataError, "bytes.txt: --classes: not text in UTF-8; expected one name in each line, or JSON"),
        ("broken.json", DataError, "broken.json: --classes: not JSON ("),
        ("gap.json", DataError, "gap.json: --classes: expected a JSON list of names, or a map between all numbers"),
        ("numbers.json", DataError, "numbers.json: --classes: expected a JSON list of names, or a map between all"),
        ("empty.json", DataError, "empty.json: --classes: expected a JSON list of names, or a map between all"),
    ],
)
def test_what_is_no_list_of_classes_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[RtkError], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in (
        ("gap.txt", b"cat\n\ndog"),
        ("empty.txt", b"\n"),
        ("bytes.txt", b"\xff\xfe\x00"),
        ("broken.json", b"[1,"),
        ("gap.json", b'{"0": "cat", "2": "dog"}'),
        ("numbers.json", b"[1, 2]"),
        ("empty.json", b"{}"),
    ):
        Path(name).write_bytes(content)
    with pytest.raises(kind) as caught:
        read_classes(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
