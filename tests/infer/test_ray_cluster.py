"""A cluster gives the same rows as one machine, even if an actor or a machine dies."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.log import logged
from PIL import Image
from rtk.core.card import Input
from rtk.core.data.datasets import Split
from rtk.core.data.decode import Decoder
from rtk.core.data.synthetic_shapes import draw_shapes
from rtk.core.errors import BackendError, DataError, OutputError
from rtk.infer.backend import BackendOptions
from rtk.infer.classify import Answer, ClassifyConfig, Prediction, classify
from rtk.infer.fake import FakeBackend
from rtk.infer.output.parquet import write_shards
from rtk.infer.ray_cluster import Actors, Classifier, Work, actors_for, answers_from_json, listed_groups
from rtk.infer.sources.listing import entries

SIZE = Input(6, 6, 3)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder of 60 images, some unreadable, one with an unusual name; an array of 40; a file that is missing."""
    monkeypatch.chdir(tmp_path)
    dice = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(60):
        path = tmp_path / "in" / (f"{number:02}.png" if number != 30 else "\udcff\n\U0001f600.png")
        if number % 7 == 2:
            path.write_bytes(b"broken")
        else:
            Image.fromarray(dice.integers(0, 256, (6, 6, 3), np.uint8)).save(path)
    np.save("many.npy", dice.integers(0, 256, (40, 6, 6, 3), np.uint8))
    return ["in", "gone.png", "many.npy", "in/00.png", "*.gif"]


def alone(paths: list[str]) -> list[Answer]:
    with Decoder(SIZE, processes=0) as decoder:
        return list(classify(entries(paths), FakeBackend(size=SIZE), decoder, ClassifyConfig(16, 2)))


def open_fake(options: BackendOptions) -> FakeBackend:
    assert options.threads == 3
    return FakeBackend(size=SIZE)


def test_groups_and_actors_give_the_answers_of_one_machine(
    sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.infer.ray_cluster.FILES_PER_GROUP", 16)
    monkeypatch.setattr("rtk.infer.ray_cluster.ANSWERS_PER_ROW", 7)
    work = Work(open_fake, str(tmp_path), ClassifyConfig(16, 2), "crop", None, BackendOptions(), processes=0)
    rows = list(listed_groups({"paths": np.array([json.dumps(sources)])}, folder=str(tmp_path)))
    groups = [json.loads(text) for row in rows for text in row["group"]]
    assert [len(group) for group in groups] == [16, 16, 16, 13, 1, 2]
    assert groups[4] == [["many.npy", ""]]
    assert groups[5] == [["in/00.png", ""], ["*.gif", "the pattern matches no file"]]
    actor = Classifier(work, Actors(1, cores=3, gpus=0))
    texts = [text for group in rows for row in actor(group) for text in row["answers"]]
    assert [answer for text in texts for answer in answers_from_json(text)] == alone(sources)
    assert max(len(json.loads(text)) for text in texts) == 7


def test_an_actor_uses_the_temperature_of_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("many.npy", np.zeros((2, 6, 6, 3), np.uint8))

    def open_with_temperature(options: BackendOptions) -> FakeBackend:
        backend = open_fake(options)
        backend.card = replace(backend.card, temperature=10.0)
        return backend

    work = Work(
        open_with_temperature, str(tmp_path), ClassifyConfig(16, 1), "crop", None, BackendOptions(), processes=0
    )
    (row,) = Classifier(work, Actors(1, cores=3, gpus=0))({"group": np.array([json.dumps([["many.npy", ""]])])})
    answers = list(answers_from_json(row["answers"][0]))
    # the logits are 10 and nine times 0; divided by ten, 1 and 0
    assert [answer.probability for answer in answers] == pytest.approx([np.e / (np.e + 9)] * 2)


@pytest.mark.parametrize(
    ("machines", "device", "expected"),
    [
        ([{"CPU": 2.0}], "auto", Actors(1, cores=2, gpus=0)),
        ([{"CPU": 0.0}, {"CPU": 1.0}, {"CPU": 1.0}], "auto", Actors(2, cores=1, gpus=0)),
        ([{"CPU": 16.0}, {"CPU": 6.0}, {}], "auto", Actors(5, cores=4, gpus=0)),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}], "auto", Actors(2, cores=4, gpus=1)),
        ([{"CPU": 8.0, "GPU": 8.0}, {"CPU": 96.0, "GPU": 1.0}], "cuda", Actors(9, cores=1, gpus=1)),
        ([{"CPU": 16.0, "GPU": 2.0}], "cpu", Actors(4, cores=4, gpus=0)),
    ],
)
def test_there_is_one_actor_per_gpu_or_per_few_cores(
    machines: list[dict[str, float]], device: str, expected: Actors
) -> None:
    assert actors_for(machines, device) == expected


def test_a_cluster_without_the_requested_device_is_refused() -> None:
    with pytest.raises(BackendError, match="ray: --device cuda: the cluster has no GPU"):
        actors_for([{"CPU": 8.0}], "cuda")
    with pytest.raises(BackendError, match="neither GPUs nor cores"):
        actors_for([{"memory": 1.0}], "auto")


def test_shards_contain_every_answer_once_and_appear_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("rtk.infer.output.parquet.ROWS_PER_GROUP", 10)
    answers = [
        Answer(f"{k}.png", (Prediction("cat", 3, k / 25),)) if k % 5 else Answer(f"{k}.png", (), "bad")
        for k in range(25)
    ]
    target = tmp_path / "out"
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "part-00007.parquet").write_bytes(b"of a run that was killed")
    seen: list[bool] = []

    def watched() -> object:
        for answer in answers:
            seen.append(target.exists())
            yield answer

    assert write_shards(watched(), target, top_k=1) == 25  # type: ignore[arg-type]
    assert not any(seen)
    assert sorted(os.listdir(target)) == [f"part-0000{k}.parquet" for k in range(3)]
    assert sorted(os.listdir(tmp_path)) == ["out"]
    table = parquet.read_table(target)
    assert table["file"].to_pylist() == [answer.file for answer in answers]
    assert table["error"].null_count == 20
    assert [str(field.type) for field in table.schema] == ["string", "string", "int32", "double", "string"]
    with pytest.raises(OutputError, match="exists and is not an empty folder; choose another"):
        write_shards([], target, top_k=1)


@pytest.mark.parametrize("stopping", [KeyboardInterrupt(), DataError("--strict")])
def test_shards_contain_the_answers_before_the_run_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopping: BaseException
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("rtk.infer.output.parquet.ROWS_PER_GROUP", 10)
    monkeypatch.chdir(tmp_path)

    def stopped() -> Iterator[Answer]:
        for number in range(14):
            yield Answer(f"{number}.png", (Prediction("cat", 3, 0.5),))
        raise stopping

    messages: list[str] = []
    with pytest.raises(type(stopping)):
        logged(messages.append, write_shards, stopped(), Path("out"), top_k=1)
    assert messages == [f"14 answers are in {tmp_path}/out.part"]
    assert parquet.read_table("out.part")["file"].to_pylist() == [f"{number}.png" for number in range(14)]


# Clusters on this machine.

DRIVER = """
import json, os, signal, sys
from pathlib import Path
from ray.cluster_utils import Cluster
from rtk.infer.backend import BackendOptions
from rtk.infer.classify import ClassifyConfig
from rtk.infer.ray_cluster import Work, answers_on_ray
from rtk.workflow.select import open_model

graph, dies = sys.argv[1:]


def open_there(options):
    return open_model(graph, backend="onnx", options=options)


def actors():
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            if words.startswith(b"ray::") and b"Classifier" in words and owner(folder.name) in raylets:
                found.append(int(folder.name))
        except OSError:
            pass
    return found


def owner(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


if __name__ == "__main__":
    room = {"object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **room})
    workers = [cluster.add_node(num_cpus=1, **room) for _ in range(2)]
    raylets = [process.process.pid for worker in workers for process in worker.all_processes["raylet"]]
    work = Work(
        open_there, os.getcwd(), ClassifyConfig(64, 2), "crop", None, BackendOptions(device="cpu"), processes=1
    )
    answers, before = [], []
    for answer in answers_on_ray(["in", "gone.png", "many.npy"], work, address=cluster.address):
        answers.append([answer.file, answer.error, [[g.label, g.index, g.probability] for g in answer.predictions]])
        if len(answers) == 100:
            before = actors()
            if dies == "actor":
                os.kill(before[0], signal.SIGKILL)
            else:
                cluster.remove_node(workers[0], allow_graceful=False)
    print(json.dumps({"answers": answers, "before": before}))
    cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["actor", "machine"])
def test_two_machines_give_the_rows_of_one_even_if_an_actor_or_machine_dies(
    tmp_path: Path, graph_path: Path, dies: str
) -> None:
    images_NHWC = draw_shapes(6_000, seed=1)[0]
    (tmp_path / "in").mkdir()
    for number, image_HWC in enumerate(images_NHWC[:5_000]):
        Image.fromarray(image_HWC).save(tmp_path / "in" / f"{number:05}.png")
    (tmp_path / "in" / "02000.png").write_bytes(b"broken")
    np.save(tmp_path / "many.npy", images_NHWC[5_000:])
    (tmp_path / "driver.py").write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, "driver.py", str(graph_path), dies],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["before"]) == 2
    command = [sys.executable, "-m", "rtk", "classify", "in", "gone.png", "many.npy", "-m", str(graph_path)]
    single = subprocess.run(
        [*command, "--top-k", "2", "-o", "alone.jsonl"], cwd=tmp_path, capture_output=True, check=False
    )
    assert single.returncode == 3, single.stderr
    rows = [json.loads(line) for line in (tmp_path / "alone.jsonl").read_text().splitlines()]
    assert [answer[0] for answer in found["answers"]] == [row["file"] for row in rows]
    assert [answer[1] for answer in found["answers"]] == [row["error"] or "" for row in rows]
    for (_, error, predictions), row in zip(found["answers"], rows, strict=True):
        if not error:
            (label, index, probability), second = predictions
            assert [label, index, second[1]] == [row["label"], row["index"], row["index_2"]]
            assert probability == pytest.approx(row["probability"], abs=2e-6)


@pytest.mark.slow
def test_the_command_writes_the_parquet_rows_of_one_machine(tmp_path: Path, graph_path: Path, shapes64: Split) -> None:
    from pyarrow import parquet

    (tmp_path / "in").mkdir()
    for number, image_HWC in enumerate(shapes64.images_NHWC):
        Image.fromarray(image_HWC).save(tmp_path / "in" / f"{number:02}.png")
    command = [sys.executable, "-m", "rtk", "classify", "-", "gone.png", "-m", str(graph_path), "--device", "cpu"]

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *words], cwd=tmp_path, input="in\n", capture_output=True, text=True, check=False
        )

    spread = run("--ray", "local", "--output", "shards")
    assert spread.returncode == 3, spread.stderr
    unreadable, counts = spread.stderr.splitlines()[-2:]
    assert unreadable == "rtk: gone.png: no such file"
    assert counts.startswith("65 images, 1 unreadable, ")
    assert counts.endswith(" s; output: shards")
    assert run("-o", "alone.parquet").returncode == 3
    shards, single = parquet.read_table(tmp_path / "shards"), parquet.read_table(tmp_path / "alone.parquet")
    assert shards.schema == single.schema
    for column in ("file", "label", "index", "error"):
        assert shards[column] == single[column]
    again = run("--ray", "local", "--output", "shards")
    assert again.returncode == 1
    assert again.stderr == "rtk: shards: exists and is not an empty folder; choose another\n"


def test_options_that_a_cluster_does_not_support_are_refused(
    in_new_process: Callable[[str], str], tmp_path: Path
) -> None:
    code = (
        f"import os, sys; os.chdir({str(tmp_path)!r})\n"
        + """
from rtk.cli import app as cli
for words, message in (
    (["--ray", "local"], "needs --output with a folder"),
    (["--ray", "local", "-o", "out", "--resume"], "leave out --resume"),
    (["--ray", "local", "-o", "out", "--format", "csv"], "leave out --resume"),
    (["--ray", "local", "-o", "out", "--device", "cuda:1"], "every actor has one GPU of its own"),
    (["--ray", "local", "-o", "out", "--backend", "onxx"], "backend 'onxx' is unknown; did you mean onnx?"),
    (["--ray", "local", "-o", "out", "--model", "resnet99"], "model 'resnet99' is unknown"),
):
    from rtk.core.errors import UsageError
    try:
        cli.app(["classify", "a.png", *words], standalone_mode=False)
    except UsageError as error:
        assert message in str(error), error
    else:
        raise AssertionError(words)
print(os.listdir())
"""
    )
    assert in_new_process(code) == "[]\n"


@pytest.mark.slow
def test_a_missing_cluster_is_a_one_line_error(tmp_path: Path, graph_path: Path) -> None:
    command = [sys.executable, "-m", "rtk", "classify", "a.png", "-m", str(graph_path), "--ray", "auto", "-o", "out"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("rtk: ray: no cluster at auto: ")
    assert len(done.stderr.splitlines()) == 1
