"""rtk cache lists, checks and removes everything that rtk keeps in the cache, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.engine_files import INFO, PLAN
from rtk.cli.app import app
from rtk.core.artifacts.engine_cache import cache_engine
from rtk.core.artifacts.parity_cache import remember_parity
from rtk.core.cache_contents import FOLDERS
from rtk.core.errors import ArtifactError
from rtk.core.files import write_whole
from rtk.core.paths import cache_path

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
    engine = cache_engine("k1", "small", PLAN, INFO)
    for name in sorted(set(FOLDERS) - {"engines"}):
        write_whole(cache_path(name, "a.onnx" if name == "graphs" else "a"), b"12345")
    text = printed("ls")
    assert str(engine) in text
    assert str(cache / "graphs" / "a.onnx") in text
    for name in sorted(set(FOLDERS) - {"engines", "graphs"}):
        assert f" {cache / name}\n" in f"{text}\n"
    assert "mine" not in text.replace(str(cache.parent), "")


def test_clear_removes_everything_of_rtk_also_what_is_unfinished(cache: Path, printed: Printed) -> None:
    cache_engine("k1", "small", PLAN, INFO)
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
    cache_engine("k1", "small", PLAN, INFO)
    write_whole(cache_path("graphs", "good.onnx"), graph_path.read_bytes())
    remember_parity(graph_path, "numpy")
    assert printed("verify") == "1 engine and 2 other files checked, none damaged\n"
    (record,) = (cache / "parity").iterdir()
    record.write_bytes(b"{")
    write_whole(cache_path("graphs", "bad.onnx"), graph_path.read_bytes()[:1000])
    write_whole(cache_path("data", "cifar-10-binary.tar.gz"), b"not the archive")
    write_whole(cache_path("data", "fashion-mnist", "t10k-labels-idx1-ubyte.gz"), b"not the labels")
    with pytest.raises(ArtifactError, match="^4 damaged; "):
        printed("verify")


def test_the_folders_of_the_cache_are_those_that_the_code_uses() -> None:
    root = Path(__file__).parent.parent.parent
    rooms = ("core", "train", "export", "infer", "bench", "workflow")
    sources = "".join(path.read_text() for room in rooms for path in (root / room).rglob("*.py"))
    constants = {"ENGINES": "engines", "TIMINGS": "timings", "KERNELS": "rtx", "FOLDER": "parity"}
    used = re.findall(r"(?:cache_path|read_cached)\(([^,)]+)", sources)
    names = {constants.get(one, one.strip('"')) for one in used} - {"*parts: str"}
    assert names <= set(FOLDERS)
