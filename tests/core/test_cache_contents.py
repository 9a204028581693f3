"""rtk cache lists, checks and removes everything that rtk keeps in the cache, and nothing else."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.engine_files import INFO, KEY, PLAN
from rtk.cli.app import app
from rtk.core.artifacts.engine_cache import cache_engine
from rtk.core.artifacts.graph_cache import graph_file, graph_problem, record_graph, sound_graph
from rtk.core.artifacts.parity_cache import remember_parity
from rtk.core.cache_contents import FOLDERS
from rtk.core.errors import ArtifactError
from rtk.core.files import write_whole
from rtk.core.paths import cache_path
from rtk.core.sealed_files import read_sealed, write_sealed

Printed = Callable[..., str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, with a file of the user's own in it."""
    monkeypatch.setenv("RTK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("rtk.core.paths.temporary_cache", lambda: tmp_path / "temporary")
    (tmp_path / "cache" / "mine").mkdir(parents=True)
    (tmp_path / "cache" / "mine" / "notes.txt").write_text("keep")
    return tmp_path / "cache"


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Run `rtk cache` with these words and return what it prints."""

    def run(*words: str) -> str:
        app(["cache", *words], standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_ls_lists_engines_graphs_and_every_other_folder(cache: Path, printed: Printed) -> None:
    assert printed("ls") == "(none)\n"
    engine = cache_engine(KEY, "small", PLAN, INFO)
    for name in sorted(set(FOLDERS) - {"engines"}):
        write_whole(cache_path(name, "a.onnx" if name == "graphs" else "a"), b"12345")
    text = printed("ls")
    assert str(engine) in text
    assert str(cache / "graphs" / "a.onnx") in text
    for name in sorted(set(FOLDERS) - {"engines", "graphs"}):
        assert f" {cache / name}\n" in f"{text}\n"
    assert "mine" not in text.replace(str(cache.parent), "")


def test_clear_removes_everything_of_rtk_also_what_is_unfinished(cache: Path, printed: Printed) -> None:
    cache_engine(KEY, "small", PLAN, INFO)
    for name in sorted(set(FOLDERS) - {"engines"}):
        write_whole(cache_path(name, "a.onnx" if name == "graphs" else "a"), b"12345")
    (cache / "engines" / ".new-left").mkdir()
    (cache.parent / "temporary" / "parity").mkdir(parents=True, mode=0o700)
    (cache.parent / "temporary").chmod(0o700)
    assert printed("clear").startswith(f"removed 1 engine, 1 graph and {len(FOLDERS) - 2} other files, ")
    assert [path.name for path in cache.iterdir()] == ["mine"]
    assert list((cache.parent / "temporary").iterdir()) == []
    assert printed("ls") == "(none)\n"


def test_every_kind_of_damage_is_found(cache: Path, printed: Printed, graph_path: Path, card: object) -> None:
    cache_engine(KEY, "small", PLAN, INFO)
    write_whole(cache_path("graphs", "of-an-earlier-version.onnx"), graph_path.read_bytes())
    remember_parity(graph_path, "numpy")
    assert printed("verify") == "1 engine and 2 other files checked, none damaged\n"
    (record,) = (cache / "parity").iterdir()
    record.write_bytes(b"{")
    write_whole(cache_path("graphs", "bad.onnx"), graph_path.read_bytes()[:1000])
    write_whole(cache_path("data", "cifar-10-binary.tar.gz"), b"not the archive")
    write_whole(cache_path("data", "fashion-mnist", "t10k-labels-idx1-ubyte.gz"), b"not the labels")
    with pytest.raises(ArtifactError, match="^4 damaged; "):
        printed("verify")


def test_a_cached_graph_that_is_not_what_its_record_says_is_found(printed: Printed, graph_path: Path) -> None:
    parts = [{"precision": "fp32", "checkpoint": name} for name in ("one", "other", "third")]
    one, other, third = map(graph_file, parts)
    for path, made_from in zip((one, other, third), parts, strict=True):
        write_whole(path, graph_path.read_bytes())
        record_graph(path, made_from)
    assert printed("verify") == "0 engines and 3 other files checked, none damaged\n"
    assert sound_graph(parts[0]) == one
    write_whole(other, graph_path.read_bytes() + b"\0")  # another graph
    shutil.copy(one, third)
    shutil.copy(one.with_suffix(".json"), third.with_suffix(".json"))  # another graph with its record
    one.with_suffix(".json").unlink()
    assert [graph_problem(path)[:20] for path in (one, other, third)] == [
        f"its record, {one.stem}"[:20],
        "altered: its sha256 ",
        "the record beside it",
    ]
    assert [sound_graph(made_from) for made_from in parts] == [None, None, None]
    with pytest.raises(ArtifactError, match="^3 damaged; "):
        printed("verify")
    assert "removed 0 engines, 3 graphs and 0 other files, " in printed("clear")


def test_kernels_and_timings_that_are_not_what_their_name_says_are_not_used(
    printed: Printed, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("mine", "other", "third"):
        write_sealed("rtx", name, name.encode())
    write_whole(cache_path("rtx", "of-an-earlier-version.cache"), b"kernels")
    assert printed("verify") == "0 engines and 3 other files checked, none damaged\n"
    assert [read_sealed("rtx", name) for name in ("mine", "missing")] == [b"mine", b""]
    mine, other, third = (cache_path("rtx", f"{name}.sealed") for name in ("mine", "other", "third"))
    shutil.copy(other, mine)
    third.write_bytes(third.read_bytes()[:-1])
    assert [read_sealed("rtx", name) for name in ("mine", "other", "third")] == [b"", b"other", b""]
    assert len(caplog.messages) == 2
    assert "it is not used, and made again" in " ".join(caplog.messages[0].split())
    with pytest.raises(ArtifactError, match="^2 damaged; "):
        printed("verify")


def test_the_folders_of_the_cache_are_those_that_the_code_uses() -> None:
    root = Path(__file__).parent.parent.parent
    rooms = ("core", "train", "export", "infer", "bench", "workflow")
    sources = "".join(path.read_text() for room in rooms for path in (root / room).rglob("*.py"))
    constants = {"GRAPHS": "graphs", "ENGINES": "engines", "TIMINGS": "timings", "KERNELS": "rtx", "FOLDER": "parity"}
    constants["DATASETS_FOLDER"] = "datasets"
    used = re.findall(r"(?:cache_path|(?:read|write)_sealed)\(([^,)]+)", sources)
    names = {constants.get(one, one.strip('"')) for one in used} - {"*parts: str", "folder: str", "folder"}
    assert names <= set(FOLDERS)
