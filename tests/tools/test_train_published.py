"""make table trains within its time, keeps finished trainings, and writes the table even after an error."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from rtk.core.errors import TrainingError
from rtk.core.zoo import zoo_card
from rtk.tools import train_published as table
from rtk.tools.published import Row

ROW = Row("resnet20v1", "cifar10")


@pytest.fixture
def as_rtk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return a function that replaces the Python that runs rtk train by a shell script."""

    def replace_python(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(table, "sys", SimpleNamespace(executable=str(path)))

    return replace_python


def test_a_training_that_does_not_stop_in_time_is_killed(
    as_rtk: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "STOP_LIMIT_S", 0.2)
    as_rtk(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done")  # type: ignore[operator]
    assert table.train_for(ROW, "rtk", 0, runs=tmp_path, seconds=1.0) is None
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_stopped_training_is_resumed_the_next_time(as_rtk: object, tmp_path: Path) -> None:
    as_rtk(f"echo $* > {tmp_path}/words; sleep 30 & wait")  # type: ignore[operator]
    (tmp_path / "resnet20v1-cifar10-rtk-s0").mkdir()
    for words in ("train resnet20v1 --dataset cifar10 --recipe rtk --seed 0 --out", "train --resume"):
        assert table.train_for(ROW, "rtk", 0, runs=tmp_path, seconds=1.0) is None
        called_with = (tmp_path / "words").read_text()
        assert called_with == f"-m rtk {words} {tmp_path}/resnet20v1-cifar10-rtk-s0\n"
        (tmp_path / "resnet20v1-cifar10-rtk-s0" / "last.pt").touch()


def test_finished_trainings_are_written_when_a_later_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(row: Row, recipe: str, seed: int, **options: object) -> object:
        if seed:
            raise TrainingError("rtk train: exit code 1")
        return zoo_card("resnet20v1-cifar10")

    page = tmp_path / "docs" / "training.md"
    page.parent.mkdir()
    page.write_text("<!-- published:begin -->\n<!-- published:end -->\n")
    (tmp_path / "README.md").write_text("no markers\n")
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(table, "ROWS", (ROW,))
    monkeypatch.setattr(table, "train_for", trained)
    monkeypatch.setattr(table, "published_block", lambda cards: "the table")
    with pytest.raises(TrainingError):
        table.train_published(minutes=1, seeds=2, recipe="rtk", runs=tmp_path)
    assert "the table" in page.read_text()
    assert (tmp_path / "README.md").read_text() == "no markers\n"
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["resnet20v1-cifar10-rtk-s0.json"]


def test_ctrl_c_in_a_training_ends_all_of_them(as_rtk: object, tmp_path: Path) -> None:
    as_rtk("exit 130")  # type: ignore[operator]
    with pytest.raises(KeyboardInterrupt):
        table.train_for(ROW, "rtk", 0, runs=tmp_path, seconds=30)
